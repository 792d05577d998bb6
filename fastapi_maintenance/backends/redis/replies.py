"""Parse and validate replies of Redis."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from redis.exceptions import ResponseError

from ...exceptions import BackendError, InvalidStateError
from ...model.holds import Hold
from ...model.snapshot import ComponentSwitch, Snapshot
from ...model.state import MAX_BYTES, MaintenanceState
from ...model.workers import RegistrySnapshot, Worker
from .connection import Command
from .keys import Keys


@dataclass(frozen=True, slots=True)
class ScriptReply:
    """A validated reply of Redis.

    A reading, which life of the data it is of, and how a step of the script went.

    It is not `whole` where the epoch cannot be had. `unrecorded` says why the history lacks what
    the step changed, if it does. `marks` has for the switch ('') and those of components when it
    ends, in milliseconds of Redis' clock or 0, and a digest of its value. It is `rolled_back` if
    the data lack what this worker had read in them, or had written to them, before.

    `components` are those that it is about, `noticed` is the number of bare writes that the history
    had, and `restored` says with which knowledge lost data was last restored.
    """

    reading: Snapshot
    incarnation: int = 0
    restored_from: int = 0
    verdict: str = ""
    whole: bool = True
    unrecorded: str = ""
    is_rolled_back: bool = False
    components: tuple[str, ...] = ()
    noticed: int = 0
    restored: bytes = b""
    marks: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def is_lost_in(self, later: ScriptReply) -> bool:
        """Return whether a later reply lost the data of this one, still to be restored.

        What another worker restored meanwhile may be older than this.
        """
        if not self.incarnation:
            return False
        is_other = later.reading.fingerprint != self.reading.fingerprint
        if later.is_restored_since(self):
            return is_other
        if later.incarnation != self.incarnation:
            return later.restored_from == 0
        return later.reading.epoch < self.reading.epoch or (later.is_rolled_back and is_other)

    def is_restored_since(self, earlier: ScriptReply) -> bool:
        """Return whether a worker restored lost data after an earlier reply."""
        return self.restored not in (b"", earlier.restored)

    def with_reading(self, reading: Snapshot) -> ScriptReply:
        """Return the same reply with another snapshot."""
        return replace(self, reading=reading)


class HoldObserver:
    """Measures on this process' monotonic clock for how long each hold has not been renewed.

    A hold is over once it was seen unchanged for its whole lease. Deadlines that are stored are on
    a clock that may be set.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[bytes, float, float]] = {}
        self.over: dict[str, bytes] = {}

    def live(
        self, entries: Sequence[tuple[bytes, Any, Any, Any]], now: float
    ) -> tuple[tuple[Hold, ...], str | None]:
        """Return the holds that stand, each with the deadline that follows if it is not renewed.

        And what cannot be read.
        """
        at, before, problem, holds = self._clock(), self._seen, None, []
        self._seen, self.over = {}, {}
        for id, deadline, since, json in entries:
            name = id.decode(errors="replace")
            try:
                hold = replace(Hold.parse(name, math.inf, json), since=int(since) / 1e6)
                stamp = b"%d" % int(deadline)
                length = hold.lease or max(0.0, int(deadline) / 1e6 - now)
            except (ValueError, OverflowError):  # the first is also what an InvalidStateError is
                problem = f"The hold {name!r} cannot be read; delete it from that hash."
                continue
            seen = before.get(name)
            first, length = seen[1:] if seen is not None and seen[0] == stamp else (at, length)
            self._seen[name] = stamp, first, length
            left = first + length - at
            if left > 0:
                holds.append(replace(hold, deadline=now + left))
            else:
                self.over[name] = b" ".join((stamp, b"%d" % int(since), json))
        return tuple(holds), problem


def read_script(reply: Any, observer: HoldObserver | None = None) -> ScriptReply:
    """Read the script's reply. Raises `BackendError` if it has another shape."""
    try:
        now, status, value, pttl, holds, life, fingerprint, verdict, _, switches, unrecorded = reply
        epoch, incarnation, restored_from = life
        instant = _instant(int(now) / 1e6)
        switch, problem = _switch(status.decode(), value)
        live, damaged = (
            (None, _NO_HASH) if holds is None else (observer or HoldObserver()).live(holds, instant)
        )
        components, unreadable = _components(switches)
        problem, left = problem or damaged or unreadable, _seconds(pttl)
        print_, why = fingerprint.decode(), unrecorded.decode(errors="replace")
        reading = Snapshot(
            switch, live, instant, left, problem, int(epoch), print_, components=components
        )
        return ScriptReply(
            reading, int(incarnation), int(restored_from), verdict.decode(), unrecorded=why
        )
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise BackendError(
            "Redis answered the script with something else than a reading."
        ) from None


def read_registry(reply: Any, observer: HoldObserver | None = None) -> RegistrySnapshot:
    """Read the script's reply to a step that calls the roll.

    Raises `BackendError` if it has another shape.
    """
    reading = read_script(reply, observer).reading
    try:
        generation, ids, records, reports, earlier = reply[8]
        workers = [
            Worker.parse(id.decode(errors="replace"), record, report)
            for id, record, report in zip(ids, records, reports, strict=True)
        ]
        before = zip(earlier[::2], earlier[1::2], strict=True)
        workers += filter(
            None,
            (
                Worker.parse_earlier(id.decode(errors="replace"), entry, reading.now)
                for id, entry in before
            ),
        )
        return RegistrySnapshot(reading, generation.decode(errors="replace"), tuple(workers))
    except (TypeError, ValueError, AttributeError):
        raise BackendError(
            "Redis answered the roll call with something else than workers."
        ) from None


def reads(keys: Keys, components: Sequence[str], get: Callable[[str], Command]) -> list[Command]:
    """Return the read-only commands whose replies `read_natively` parses.

    The epoch comes first and last: whatever changes two keys at once changes it too, so where it is
    the same, the rest belongs together.
    """
    switches = [keys.switch, *map(keys.component, components)]
    values = [command for key in switches for command in (get(key), ("PTTL", key))]
    return [("GET", keys.epoch), *values, ("HGETALL", keys.holds), ("TIME",), ("GET", keys.epoch)]


def read_natively(
    replies: Sequence[Any],
    wall_clock: float,
    components: Sequence[str],
    observer: HoldObserver,
    noticed: int = 0,
    restored: bytes = b"",
) -> ScriptReply | None:
    """Read the replies to `reads`; None where something changed in between.

    `wall_clock` stands in where `TIME` is refused. `noticed` and `restored` are as in a reply.

    Holds or the epoch may be refused. Raises `BackendError` where the switch itself cannot be had.
    """
    epoch, *found, held, clock, epoch_after = replies
    if epoch != epoch_after and not isinstance(epoch, Exception):
        return None
    now = _time(clock, wall_clock)
    values = [
        (_present(value, left), left) for value, left in zip(found[::2], found[1::2], strict=True)
    ]
    value, pttl = values[0]
    if isinstance(value, Exception) and not str(value).startswith("WRONGTYPE"):
        raise BackendError(f"GET failed: {value}") from value
    switch, problem = _switch(_status(value), value)
    facts: list[bytes] = []
    holds, damaged = _native_holds(held, now, observer, facts)
    own: dict[str, ComponentSwitch] = {}
    unreadable = None
    for name, (text, left) in zip(components, values[1:], strict=True):
        if text is None:
            continue
        status = _status(text)
        state, trouble = _switch(status, text) if status else (None, f"GET failed: {text}")
        own[name] = ComponentSwitch(state, _seconds(left))
        unreadable = unreadable or (trouble and f"The component {name}: {trouble}")
        facts.append(f"{name}:".encode() + (text if status == "text" else status.encode()))
    facts.sort()
    facts.append(value if isinstance(value, bytes) else b"")
    match = _EPOCH.fullmatch(epoch) if isinstance(epoch, bytes) else None
    counted, incarnation, restored_from = map(int, match.groups()) if match else (0, 0, 0)
    problem, left = problem or damaged or unreadable, _seconds(pttl)
    fingerprint = hashlib.sha1(b"\n".join(facts), usedforsecurity=False).hexdigest()
    reading = Snapshot(switch, holds, now, left, problem, counted, fingerprint, components=own)
    named = dict(zip(("", *components), values, strict=True))
    marks = {
        name: (_end(now, left), _digest(_status(text), text))
        for name, (text, left) in named.items()
        if text is not None
    }
    # That one is to be made anew.
    whole = not isinstance(epoch, Exception) or str(epoch).startswith("WRONGTYPE")
    return ScriptReply(
        reading,
        incarnation,
        restored_from,
        whole=whole,
        components=tuple(components),
        noticed=noticed,
        restored=restored,
        marks=marks,
    )


def pairs(reply: Any) -> Iterator[tuple[bytes, bytes]]:
    """Return the entries of a hash, in either protocol."""
    return (
        iter(reply.items())
        if isinstance(reply, Mapping)
        else zip(reply[::2], reply[1::2], strict=True)
    )


def count_replicas(role: Any) -> int | None:
    """Return the number of replicas in a reply to ROLE; None if it names none."""
    match role:
        case [b"master", _, list(replicas)]:
            return len(replicas)
    return None


_YEAR_10000: Final = 253402300800.0
_WRONG_TYPE: Final = "The switch is not a string; delete the key, then SET it."
_NO_VALUE: Final = "something else than a value"
_NO_HASH: Final = "The holds are not a hash; delete that key."
_EPOCH: Final = re.compile(rb"(\d{1,18}) (\d{1,18}) (\d{1,18}) \d{1,18} \d{1,18}")
_HOLD: Final = re.compile(rb"(\d{1,16}) (\d{1,16}) (.*)", re.DOTALL)


def _present(value: Any, left: Any) -> Any:
    """Return the value of a key, `None` for a missing one.

    GETRANGE returns an empty text then, and PTTL -2.
    """
    if value == b"" and (left == -2 or not isinstance(left, int)):
        return None
    return value if isinstance(value, bytes | Exception | None) else ResponseError(_NO_VALUE)


def _end(now: float, left: Any) -> int:
    return int(now * 1000) + left if isinstance(left, int) and left >= 0 else 0


def _digest(status: str, value: Any) -> str:
    """As the script digests a value for the history."""
    return hashlib.sha1(
        value if status == "text" else status.encode(), usedforsecurity=False
    ).hexdigest()


def _status(value: bytes | Exception | None) -> str:
    if isinstance(value, Exception):
        return "wrong type" if str(value).startswith("WRONGTYPE") else ""
    return "too long" if value is not None and len(value) > MAX_BYTES else "text"


def _switch(status: str, value: Any) -> tuple[MaintenanceState | None, str | None]:
    if status == "wrong type":
        return None, _WRONG_TYPE
    if status == "too long":
        return None, f"The value is longer than {MAX_BYTES} bytes."
    try:
        return MaintenanceState.parse(value), None
    except InvalidStateError as error:
        return None, str(error)


def _native_holds(
    reply: Any, now: float, observer: HoldObserver, facts: list[bytes]
) -> tuple[tuple[Hold, ...] | None, str | None]:
    if isinstance(reply, Exception):
        return None, _NO_HASH if str(reply).startswith("WRONGTYPE") else None
    entries: list[tuple[bytes, Any, Any, Any]] = []
    try:
        for id, text in pairs(reply):
            match = _HOLD.fullmatch(text)
            deadline, since, json = match.groups() if match else (b"", b"", b"")
            entries.append((bytes(id), deadline, since, json))
            if match:
                facts.append(id + b"=" + json)
    except (TypeError, ValueError, AttributeError):
        raise BackendError("Redis answered HGETALL with something else than a hash.") from None
    return observer.live(entries, now)


def _components(entries: Any) -> tuple[dict[str, ComponentSwitch], str | None]:
    components, problem = {}, None
    for name, status, value, pttl in entries:
        switch, trouble = _switch(status.decode(), value)
        components[name.decode()] = ComponentSwitch(switch, _seconds(pttl))
        problem = problem or (trouble and f"The component {name.decode()}: {trouble}")
    return components, problem


def _time(clock: Any, otherwise: float) -> float:
    try:
        seconds, microseconds = clock
        return _instant(int(seconds) + int(microseconds) / 1e6)
    except (TypeError, ValueError, OverflowError):
        return otherwise


def _instant(seconds: float) -> float:
    """Check that a time is in the calendar. Raises `ValueError`."""
    if not 0 <= seconds < _YEAR_10000:
        raise ValueError(seconds)
    return seconds


def _seconds(pttl: Any) -> float | None:
    return pttl / 1000 if isinstance(pttl, int) and pttl >= 0 else None
