"""What is known about the switch and its holds, and what follows from it at a given time. Pure.

Times are seconds since the epoch on the *backend's* clock (Redis' TIME; the wall clock for files).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from .exceptions import InvalidStateError
from .state import OFF, MaintenanceState

__all__ = ["Effective", "Hold", "Reading", "evaluate", "fill_gaps", "replace_state", "steady"]

_JITTER = 0.02  # seconds by which two measurements of one expiry may differ


@dataclass(frozen=True, slots=True)
class Hold:
    """A lease on the state, on or off, taken by a block and ending by itself at its deadline.

    An off hold lifts the on holds it names in `lifts`: those of its own enclosing blocks.
    """

    id: str
    state: MaintenanceState
    since: float = 0.0
    deadline: float = math.inf
    lifts: tuple[str, ...] = ()

    def dump(self) -> str:
        """Write what does not change while the hold lives, as JSON; the deadline is stored beside it."""
        document = {"state": json.loads(self.state.model_dump_json(exclude_none=True)), "since": self.since}
        return json.dumps(document | ({"lifts": self.lifts} if self.lifts else {}))

    @classmethod
    def parse(cls, id: str, deadline: float, text: str | bytes) -> Hold:
        """Read what `dump` wrote. Raises `InvalidStateError` for anything else."""
        try:
            document = json.loads(text)
            state = MaintenanceState.model_validate(document["state"])
            since, lifts = float(document.get("since", 0.0)), document.get("lifts", [])
            if not math.isfinite(since) or not isinstance(lifts, list):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            raise InvalidStateError(f"The hold {id!r} cannot be read.") from None
        return cls(id, state, since, deadline, tuple(map(str, lifts)))


@dataclass(frozen=True, slots=True)
class Reading:
    """One consistent look at a backend.

    `switch` or `holds` is None where what is stored could not be read; `error` then says why, and what was last known stays.
    `expires_in` is the switch's remaining time to live in seconds. `registered` says whether the same atomic step renewed this
    worker's place in the registry.
    """

    switch: MaintenanceState | None = OFF
    holds: tuple[Hold, ...] | None = ()
    now: float = 0.0
    expires_in: float | None = None
    error: str | None = None
    epoch: int = 0
    fingerprint: str = ""
    registered: bool = False


@dataclass(frozen=True, slots=True)
class Effective:
    """What a reading means at one instant, and until when it means that."""

    hold: MaintenanceState | None
    switch: MaintenanceState
    until: float
    coming: MaintenanceState | None = None
    """The switch, if it stands for a window that has not begun."""

    @property
    def state(self) -> MaintenanceState:
        """The effective state: a standing hold's, else the switch's."""
        return self.switch if self.hold is None else self.hold


def evaluate(reading: Reading, now: float) -> Effective:
    """Combine switch and holds as they stand at `now`."""
    switch, switch_until = _switch_at(reading, now)
    live = [hold for hold in reading.holds or () if now < hold.deadline]
    until = min([switch_until, *(hold.deadline for hold in live)])
    return Effective(_combine(live), switch, until, _coming(reading, now))


def _switch_at(reading: Reading, now: float) -> tuple[MaintenanceState, float]:
    state = reading.switch or OFF
    expires_at = math.inf if reading.expires_in is None else reading.now + reading.expires_in
    if now >= expires_at:
        return OFF, math.inf
    at = _moment(now)
    change = state.changes_after(at)
    until = min(expires_at, math.inf if change is None else change.timestamp())
    if not state.active_at(at):
        return replace_state(state, enabled=False), until
    return _ending_by(state, expires_at), until


def _coming(reading: Reading, now: float) -> MaintenanceState | None:
    state = reading.switch or OFF
    if not state.enabled or state.starts_at is None or state.starts_at <= _moment(now):
        return None
    expires_at = math.inf if reading.expires_in is None else reading.now + reading.expires_in
    return _ending_by(state, expires_at) if state.starts_at.timestamp() < expires_at else None


def _ending_by(state: MaintenanceState, expires_at: float) -> MaintenanceState:
    """Let a time to live show as the end it is, so that Retry-After can be honest about it."""
    try:
        end = _moment(expires_at)
    except (OverflowError, ValueError, OSError):  # no time to live, or one beyond the calendar
        return state
    return state if state.ends_at is not None and state.ends_at <= end else replace_state(state, ends_at=end)


def _combine(live: Iterable[Hold]) -> MaintenanceState | None:
    """On while any on hold stands that no off hold of its own block lifts; else off while any off hold stands."""
    holds = sorted(live, key=lambda hold: (hold.since, hold.id))
    off = [hold for hold in holds if not hold.state.enabled]
    lifted = {id for hold in off for id in hold.lifts}
    standing = [hold.state for hold in holds if hold.state.enabled and hold.id not in lifted]
    if standing:
        strictest = "full" if any(state.mode == "full" for state in standing) else "read-only"
        return replace_state(standing[-1], mode=strictest, allow=_allowed_by_all(standing), bypass=None)
    return off[-1].state if off else None


def _allowed_by_all(states: list[MaintenanceState]) -> tuple[str, ...] | None:
    """What none of several closings is against: nobody opens anything under another's migration."""
    *others, newest = (state.allow or () for state in states)
    return tuple(entry for entry in newest if all(entry in other for other in others)) or None


def replace_state(state: MaintenanceState, **changes: object) -> MaintenanceState:
    """A copy of an already valid state with other, equally valid, values."""
    return state.model_copy(update=changes)


def fill_gaps(new: Reading, old: Reading | None) -> Reading:
    """Put what was last known in the place of what could not be read now."""
    if new.switch is None and old is not None:
        left = None if old.expires_in is None else old.now + old.expires_in - new.now
        new = replace(new, switch=old.switch, expires_in=left)
    if new.holds is None and old is not None:
        new = replace(new, holds=old.holds)
    return new


def steady(new: Reading, old: Reading | None) -> Reading:
    """Let an expiry that is the same but for measuring be the same, so that nothing seems to have changed."""
    if old is None or old.expires_in is None or new.expires_in is None:
        return new
    left = old.now + old.expires_in - new.now
    return replace(new, expires_in=left) if abs(left - new.expires_in) < _JITTER else new


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
