"""The workers that a backend knows of, as they report themselves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AliasChoices, Field, TypeAdapter, ValidationError

from .._internal.validation import is_number
from .snapshot import Snapshot

FENCE_MARGIN: Final = 0.95
"""The largest share of the registry's lifetime that a fence may take: the rates of two clocks may
differ a little.
"""

WAY_AROUND: Final = (
    "was answered while the service was closed: no route has that path, a middleware inside "
    "the application did it. "
    'unknown_routes="refuse" closes it.'
)
"""The sentence after such a path, in the log and in lists of workers."""
FORMAT: Final = 2
"""The format of the registry. A version that changes it reads this one as well, and is released
before the one that writes the new one alone.
"""

_LEFT: Final = b"left"  # in the place of a report, in the registry of versions before 1.0

_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentStatus:
    """The status of a worker for one component of its routes, as in `Worker`."""

    closed: bool = False
    drained: bool = False
    http: _Count = 0
    websockets: _Count = 0


@dataclass(frozen=True, kw_only=True)
class _Record:
    """The record that a worker registers once; from Redis, hence validated."""

    host: str = "?"
    pid: int = 0
    boot: str = ""
    namespace: str = ""
    start: str = ""
    instance: str = ""
    started: float = 0.0
    version: str = "?"
    fence: float | None = None
    lifetime: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _EarlierRecord(_Record):
    format: int = 1


@dataclass(frozen=True, kw_only=True)
class _Report:
    """The report of a worker at every poll."""

    # Versions before 1.0 say `rung`.
    delivery: Annotated[str, Field(validation_alias=AliasChoices("delivery", "rung"))] = "?"
    epoch: _Count = 0
    applied: str = ""
    closed: bool = False
    drained: bool = False
    http: _Count = 0
    websockets: _Count = 0
    components: Mapping[str, ComponentStatus] = field(default_factory=dict)
    unrouted: tuple[str, ...] = ()
    generation: str = ""
    known_for: float = 0.0


@dataclass(frozen=True)
class Worker(_Record, _Report):
    """One worker process as the registry has it, with its last report.

    It has `vanished` where that report is over.

    `http` and `websockets` count the requests in flight: while closed, those that must be waited
    for. `fence` is after how many seconds without the backend the worker closes by itself, None if
    it does not. `sequence` grows with every report. For `known_for` seconds, on one connection, it
    has found itself in this `generation` of the registry. `boot`, `namespace` and `start` tell its
    process from others; `instance` is the container that it was told to be.
    """

    id: str
    vanished: bool = False
    sequence: int = 0

    @classmethod
    def parse(cls, id: str, record: bytes, report: bytes | None) -> Self:
        """Read what is registered.

        Nothing can be said of a worker whose record or report cannot be read.
        """
        sequence, _, text = (report or b"").partition(b" ")
        known = _valid(_Record, record) | (_valid(_Report, text) if report else {})
        return cls(id, report is None, int(sequence) if is_number(sequence) else 0, **known)

    @classmethod
    def parse_earlier(cls, id: str, entry: bytes, now: float) -> Self | None:
        """Read the registration of a version before 1.0, whose deadline is on Redis' clock.

        None for one that left or has both.
        """
        deadline, _, text = entry.partition(b" ")
        record = _valid(_EarlierRecord, text)
        if text == _LEFT or record.pop("format", 1) != 1 or not is_number(deadline):
            return None
        return cls(id, int(deadline) / 1e6 <= now, int(deadline), **record, **_valid(_Report, text))

    def in_component(self, component: str) -> Self:
        """Return this worker's status for one component.

        A worker without routes in it counts as closed and drained.
        """
        own = self.components.get(component, ComponentStatus(closed=True, drained=True))
        return replace(self, **asdict(own))

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {"id": self.id, **asdict(self), "fenced": self.is_fenced}

    @property
    def status(self) -> Literal["open", "closed", "drained", "vanished"]:
        """The reported status: `drained` is closed, without a request to be waited for."""
        if self.vanished:
            return "vanished"
        if not self.closed:
            return "open"
        return "drained" if self.drained else "closed"

    @property
    def name(self) -> str:
        """The process id and host."""
        return f"{self.pid}@{self.host}"

    @property
    def is_fenced(self) -> bool:
        """Return whether it surely answers 503 once the registry has missed it for a lifetime."""
        return self.fence is not None and 0 < self.fence <= self.lifetime * FENCE_MARGIN

    def is_near(self, other: Worker) -> bool:
        """Return whether both see the same processes.

        On one boot of one machine, in one PID namespace.
        """
        return bool(self.boot) and (self.boot, self.namespace) == (other.boot, other.namespace)


@dataclass(frozen=True, slots=True)
class RegistrySnapshot:
    """Switch, holds and registry in one consistent look.

    `generation` names the registry, which another one follows where workers have been lost from it.
    `lifetime` is how many seconds a report lives. `settling` are seconds for which, beyond that, a
    lost registry may be incomplete. It is not `confirmed` if only a minority of the Sentinels named
    the server that it is of.
    """

    reading: Snapshot
    generation: str
    workers: tuple[Worker, ...]
    lifetime: float = 0.0
    settling: float = 0.0
    confirmed: bool = True

    def why_not_gone(self, worker: Worker) -> str:
        """Return why a worker that vanished is not proved gone."""
        if not worker.boot:
            return "its record does not say where its process ran"
        if any(other.is_near(worker) for other in self.workers if not other.vanished):
            return (
                "its process was still there when a worker beside it last looked, or no worker "
                "has looked yet"
            )
        return "no live worker runs on the same machine, in the same PID namespace"


def _valid(part: Any, text: bytes) -> dict[str, Any]:
    try:
        return dict(vars(_adapter(part).validate_json(text)))
    except ValidationError:
        return {}


@cache
def _adapter(part: Any) -> TypeAdapter[Any]:
    return TypeAdapter(part)
