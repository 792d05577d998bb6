"""The workers that a backend knows of, as they report themselves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .snapshot import Snapshot

__all__ = ["FENCE_MARGIN", "LEFT", "WAY_AROUND", "ComponentStatus", "RegistrySnapshot", "Worker"]

LEFT: Final = "left"
"""What stands in the place of a report once a worker has shut down in order."""

FENCE_MARGIN: Final = 0.95
"""How much of the registry's lifetime a fence may take: two clocks may run at rates that differ a little."""

WAY_AROUND: Final = (
    "was answered while the service was closed: no route has that path, a middleware inside the application did it. "
    'unknown_routes="refuse" closes it.'
)
"""What follows the path, in the log and wherever workers are listed."""

_Count = Annotated[int, Field(ge=0)]


class ComponentStatus(BaseModel):
    """How a worker stands to one component that its routes belong to; as in `Worker`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    closed: bool = False
    drained: bool = False
    http: _Count = 0
    websockets: _Count = 0


class _Report(BaseModel):
    """What a worker says of itself; from Redis, so not trusted."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str = "?"
    pid: int = 0
    started: float = 0.0
    version: str = "?"
    rung: str = "?"
    epoch: _Count = 0
    applied: str = ""
    closed: bool = False
    drained: bool = False
    http: _Count = 0
    websockets: _Count = 0
    components: dict[str, ComponentStatus] = {}
    fence: float | None = None
    lifetime: float = 0.0
    unrouted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process as the registry has it. `deadline` is on the registry's clock; after it, the worker has expired.

    `http` and `websockets` count the requests in flight: while closed, those that must be waited for. `fence` is after how
    many seconds without the backend the worker closes by itself, None if it does not.
    """

    id: str
    deadline: float
    left: bool = False
    host: str = "?"
    pid: int = 0
    started: float = 0.0
    version: str = "?"
    rung: str = "?"
    epoch: int = 0
    applied: str = ""
    closed: bool = False
    drained: bool = False
    http: int = 0
    websockets: int = 0
    components: Mapping[str, ComponentStatus] = field(default_factory=dict)
    fence: float | None = None
    lifetime: float = 0.0
    unrouted: tuple[str, ...] = ()

    @classmethod
    def parse(cls, id: str, deadline: float, report: str | bytes) -> Self:
        """Read a registration; one that cannot be read is of a worker of which nothing can be said."""
        if report in (LEFT, LEFT.encode()):
            return cls(id, deadline, left=True)
        try:
            return cls(id, deadline, **dict(_Report.model_validate_json(report)))
        except ValidationError:
            return cls(id, deadline)

    def in_component(self, component: str) -> Self:
        """The same as to one component. Who has no routes of it has nothing there to close or to wait for."""
        standing = self.components.get(component)
        if standing is None:
            return replace(self, closed=True, drained=True, http=0, websockets=0)
        return replace(
            self,
            closed=standing.closed,
            drained=standing.drained,
            http=standing.http,
            websockets=standing.websockets,
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self) | {"fenced": self.is_fenced}

    @property
    def standing(self) -> Literal["open", "closed", "drained"]:
        """How it stands, as it says itself: `open`, `closed`, or `drained` where nobody has to be waited for any more."""
        if not self.closed:
            return "open"
        return "drained" if self.drained else "closed"

    @property
    def name(self) -> str:
        """How to find it: process id and host."""
        return f"{self.pid}@{self.host}"

    @property
    def is_fenced(self) -> bool:
        """Whether it surely answers 503 once the registry has forgotten it."""
        return self.fence is not None and 0 < self.fence <= self.lifetime * FENCE_MARGIN


@dataclass(frozen=True, slots=True)
class RegistrySnapshot:
    """Switch, holds and registry in one consistent look.

    `born` names the life of the data, which a loss ends, by when it began: microseconds of the registry's clock.
    `lifetime` is how many seconds a registration stands that is not renewed.
    """

    reading: Snapshot
    born: int
    workers: tuple[Worker, ...]
    lifetime: float = 0.0

    @property
    def settles_in(self) -> float:
        """For how many seconds more there may be workers whom an earlier life of the data knew, and this one does not yet."""
        lifetime = max([self.lifetime, *(worker.lifetime for worker in self.workers)])
        return max(0.0, self.born / 1e6 + lifetime - self.reading.now)
