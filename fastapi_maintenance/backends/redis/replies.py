"""From replies of Redis, which are untrusted, to readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from ...exceptions import BackendError, InvalidStateError
from ...model.holds import Hold
from ...model.snapshot import ComponentSwitch, Snapshot
from ...model.state import MAX_BYTES, MaintenanceState
from ...model.workers import RegistrySnapshot, Worker
from .connection import Command
from .keys import Keys

__all__ = [
    "ScriptReply",
    "count_replicas",
    "plain_reads",
    "read_plain",
    "read_registry",
    "read_script",
]


@dataclass(frozen=True, slots=True)
class ScriptReply:
    """What the script says: a reading, which life of the data it is of, and how the step itself went.

    It is not `whole` where only GET and PTTL could be had, which know of no holds and no life. `unrecorded` says why the history
    lacks what the step changed, if it does.
    """

    reading: Snapshot
    born: int = 0
    parent: int = 0
    verdict: str = ""
    whole: bool = True
    unrecorded: str = ""

    def is_lost_in(self, later: ScriptReply) -> bool:
        """Whether what this answer says is not in the data of a later one, and nobody has put it back yet."""
        if not self.born:
            return False
        if later.born != self.born:
            return later.parent == 0
        return later.reading.epoch < self.reading.epoch or later.is_rolled_back

    @property
    def is_rolled_back(self) -> bool:
        """Whether the sync found an older registration of this worker's than it had made, and so made none."""
        return self.verdict == "rolled back"

    def with_reading(self, reading: Snapshot) -> ScriptReply:
        """The same about another reading."""
        return replace(self, reading=reading)


def read_script(reply: Any) -> ScriptReply:
    """Read the script's reply. Raises `BackendError` if it has another shape."""
    try:
        (
            now,
            status,
            value,
            pttl,
            holds,
            (epoch, born, parent),
            fingerprint,
            verdict,
            _,
            switches,
            unrecorded,
        ) = reply
        switch, problem = _switch(status.decode(), value)
        live, damaged = _holds(holds)
        components, unreadable = _scopes(switches)
        reading = Snapshot(
            switch,
            live,
            _instant(int(now) / 1e6),
            _seconds(pttl),
            problem or damaged or unreadable,
            int(epoch),
            fingerprint.decode(),
            components=components,
        )
        return ScriptReply(
            reading,
            int(born),
            int(parent),
            verdict.decode(),
            unrecorded=unrecorded.decode(errors="replace"),
        )
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise BackendError(
            "Redis answered the script with something else than a reading."
        ) from None


def read_registry(reply: Any) -> RegistrySnapshot:
    """Read the script's reply to a step that calls the roll. Raises `BackendError` if it has another shape."""
    answer = read_script(reply)
    try:
        workers = tuple(
            Worker.parse(id.decode(errors="replace"), int(deadline) / 1e6, report)
            for id, deadline, report in reply[8]
        )
    except (TypeError, ValueError, AttributeError):
        raise BackendError(
            "Redis answered the roll call with something else than workers."
        ) from None
    return RegistrySnapshot(answer.reading, answer.born, workers)


def plain_reads(keys: Keys, components: Sequence[str]) -> list[Command]:
    """The commands whose replies `read_plain` reads."""
    switches = [keys.switch, *map(keys.component, components)]
    (get, pttl), *rest = ((("GET", key), ("PTTL", key)) for key in switches)
    return [get, pttl, ("TIME",), *(command for pair in rest for command in pair)]


def read_plain(replies: list[Any], now: float, components: Sequence[str] = ()) -> Snapshot:
    """Read what `GET`, `PTTL` and `TIME` answered, which says nothing of holds; `now` stands in where `TIME` is refused.

    Then come `GET` and `PTTL` for each of the components. Raises `BackendError` where the switch itself cannot be had.
    """
    value, pttl, clock, *rest = replies
    switches, unreadable = _plain_components(
        dict(zip(components, zip(rest[::2], rest[1::2], strict=True), strict=True))
    )
    if isinstance(clock, list) and len(clock) == 2:
        with suppress(TypeError, ValueError, OverflowError):
            now = _instant(int(clock[0]) + int(clock[1]) / 1e6)
    if isinstance(value, Exception):
        if str(value).startswith("WRONGTYPE"):
            return Snapshot(None, None, now, error=_WRONG_TYPE, components=switches)
        raise BackendError(f"GET failed: {value}") from value
    if not isinstance(value, bytes | None):
        raise BackendError("Redis answered GET with something else than a value.")
    switch, problem = _switch("text", value)
    return Snapshot(switch, None, now, _seconds(pttl), problem or unreadable, components=switches)


def count_replicas(role: Any) -> int | None:
    """How many replicas a master says that it has (ROLE); None where it does not say."""
    match role:
        case [b"master", _, list(replicas)]:
            return len(replicas)
    return None


_YEAR_10000: Final = 253402300800.0
_WRONG_TYPE: Final = "The switch is not a string; delete the key, then SET it."


def _switch(status: str, value: bytes | None) -> tuple[MaintenanceState | None, str | None]:
    if status == "wrong type":
        return None, _WRONG_TYPE
    if status == "too long":
        return None, f"The value is longer than {MAX_BYTES} bytes."
    try:
        return MaintenanceState.parse(value), None
    except InvalidStateError as error:
        return None, str(error)


def _holds(entries: Any) -> tuple[tuple[Hold, ...] | None, str | None]:
    if entries is None:
        return None, "The holds are not a hash; delete that key."
    holds, problem = [], None
    for id, deadline, since, json in entries:
        name = id.decode(errors="replace")
        try:
            hold = Hold.parse(name, int(deadline) / 1e6, json)
            holds.append(replace(hold, since=int(since) / 1e6))
        except (ValueError, OverflowError):  # the first is also what an InvalidStateError is
            problem = f"The hold {name!r} cannot be read; delete it from that hash."
    return tuple(holds), problem


def _scopes(entries: Any) -> tuple[dict[str, ComponentSwitch], str | None]:
    components, problem = {}, None
    for name, status, value, pttl in entries:
        switch, trouble = _switch(status.decode(), value)
        components[name.decode()] = ComponentSwitch(switch, _seconds(pttl))
        problem = problem or (trouble and f"The component {name.decode()}: {trouble}")
    return components, problem


def _plain_components(
    replies: Mapping[str, tuple[Any, Any]],
) -> tuple[dict[str, ComponentSwitch], str | None]:
    """Those that are there, and those that cannot be had."""
    components, problem = {}, None
    for name, (value, pttl) in replies.items():
        if isinstance(value, bytes):
            switch, trouble = _switch("text", value)
        elif value is None:
            continue
        else:
            switch, trouble = None, f"GET failed: {value}"
        components[name] = ComponentSwitch(switch, _seconds(pttl))
        problem = problem or (trouble and f"The component {name}: {trouble}")
    return components, problem


def _instant(seconds: float) -> float:
    """A time that is in the calendar, else `ValueError`."""
    if not 0 <= seconds < _YEAR_10000:
        raise ValueError(seconds)
    return seconds


def _seconds(pttl: Any) -> float | None:
    return pttl / 1000 if isinstance(pttl, int) and pttl >= 0 else None
