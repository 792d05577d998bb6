"""What is known about the switch and its holds, and what follows from it at a given time. Pure.

Times are seconds since the epoch on the *backend's* clock (Redis' TIME; the wall clock for files).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from .exceptions import InvalidStateError
from .state import OFF, MaintenanceState

__all__ = ["Effective", "Hold", "Reading", "ScopeSwitch", "coming_window", "evaluate", "fill_gaps", "replace_state", "steady"]

_JITTER = 0.02  # seconds by which two measurements of one expiry may differ
_HOLD_RETRY_AFTER = 60  # seconds; a hold without a known end is over when its block is, which takes minutes rather than an hour


@dataclass(frozen=True, slots=True)
class Hold:
    """A lease on the state, on or off, taken by a block and ending by itself at its deadline.

    An off hold lifts the on holds it names in `lifts`: those of its own enclosing blocks. With a `scope`, it is about that alone.
    """

    id: str
    state: MaintenanceState
    since: float = 0.0
    deadline: float = math.inf
    lifts: tuple[str, ...] = ()
    scope: str | None = None

    def dump(self) -> str:
        """Write what does not change while the hold lives, as JSON; the deadline is stored beside it."""
        document = {"state": json.loads(self.state.model_dump_json(exclude_none=True)), "since": self.since}
        document |= {name: value for name, value in (("lifts", self.lifts), ("scope", self.scope)) if value}
        return json.dumps(document)

    @classmethod
    def parse(cls, id: str, deadline: float, text: str | bytes) -> Hold:
        """Read what `dump` wrote. Raises `InvalidStateError` for anything else."""
        try:
            document = json.loads(text)
            state = MaintenanceState.from_document(document["state"])
            since, lifts = float(document.get("since", 0.0)), document.get("lifts", [])
            scope = document.get("scope")
            if not math.isfinite(since) or not isinstance(lifts, list) or not isinstance(scope, str | None):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            raise InvalidStateError(f"The hold {id!r} cannot be read.") from None
        return cls(id, state, since, deadline, tuple(map(str, lifts)), scope)


@dataclass(frozen=True, slots=True)
class ScopeSwitch:
    """The switch of one scope, which is there: as `switch` and `expires_in` of a reading."""

    switch: MaintenanceState | None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One consistent look at a backend.

    `switch` or `holds` is None where what is stored could not be read; `error` then says why, and what was last known stays.
    `expires_in` is the switch's remaining time to live in seconds. `registered` says whether the same atomic step renewed this
    worker's place in the registry. `scopes` has the switches of scopes, those that are there; None as for `holds`.
    """

    switch: MaintenanceState | None = OFF
    holds: tuple[Hold, ...] | None = ()
    now: float = 0.0
    expires_in: float | None = None
    error: str | None = None
    epoch: int = 0
    fingerprint: str = ""
    registered: bool = False
    scopes: Mapping[str, ScopeSwitch] | None = field(default_factory=dict)

    def of(self, scope: str | None) -> Reading | None:
        """This reading with the switch of a scope in the place of the general one; None where that is not there."""
        own = None if scope is None else (self.scopes or {}).get(scope)
        return None if own is None else replace(self, switch=own.switch, expires_in=own.expires_in)

    @property
    def expires_at(self) -> float:
        """When the switch's time to live is over."""
        return math.inf if self.expires_in is None else self.now + self.expires_in


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


def evaluate(reading: Reading, now: float, scope: str | None = None) -> Effective:
    """Combine switch and holds as they stand at `now`; for a scope, those of everything and its own, which goes first.

    An on hold of either closes it. Else its own off hold opens it; else its own switch decides, where there is one; else what
    holds in general does. A window of its own that has not begun or is over decides nothing: it must not open what is closed in general.
    """
    switch, until = _switch_at(reading, now)
    coming = coming_window(reading, now)
    opened_by: tuple[str | None, ...] = (None, scope)
    if (own := reading.of(scope)) is not None:
        own_switch, own_until = _switch_at(own, now)
        own_coming = coming_window(own, now)
        until = min(until, own_until)
        if now < own.expires_at and (own_switch.enabled or not (own.switch or OFF).enabled):
            switch, coming, opened_by = own_switch, None, (scope,)
        coming = own_coming or coming
    live = [hold for hold in reading.holds or () if now < hold.deadline and hold.scope in (None, scope)]
    until = min([until, *(hold.deadline for hold in live)])
    return Effective(_combine(live, opened_by), switch, until, coming)


def _switch_at(reading: Reading, now: float) -> tuple[MaintenanceState, float]:
    state = reading.switch or OFF
    expires_at = reading.expires_at
    if now >= expires_at:
        return OFF, math.inf
    at = _moment(now)
    change = state.changes_after(at)
    until = min(expires_at, math.inf if change is None else change.timestamp())
    if not state.active_at(at):
        return replace_state(state, enabled=False), until
    return _ending_by(state, expires_at), until


def coming_window(reading: Reading, now: float) -> MaintenanceState | None:
    """The switch, if it stands for a window that has not begun and that it lives to see, with the end that its time to live makes."""
    state = reading.switch or OFF
    if not state.enabled or state.starts_at is None or state.starts_at <= _moment(now):
        return None
    expires_at = reading.expires_at
    return _ending_by(state, expires_at) if state.starts_at.timestamp() < expires_at else None


def _ending_by(state: MaintenanceState, expires_at: float) -> MaintenanceState:
    """Let a time to live show as the end it is, so that Retry-After can be honest about it."""
    try:
        end = _moment(expires_at)
    except (OverflowError, ValueError, OSError):  # no time to live, or one beyond the calendar
        return state
    return state if state.ends_at is not None and state.ends_at <= end else replace_state(state, ends_at=end)


def _combine(live: Iterable[Hold], opened_by: tuple[str | None, ...]) -> MaintenanceState | None:
    """On while any on hold stands that no off hold of its own block lifts; else off while an off hold stands of one of these scopes.

    The most specific of those goes first.
    """
    holds = sorted(live, key=lambda hold: (hold.since, hold.id))
    off = [hold for hold in holds if not hold.state.enabled]
    lifted = {id for hold in off for id in hold.lifts}
    standing = [hold.state for hold in holds if hold.state.enabled and hold.id not in lifted]
    if standing:
        strictest = "full" if any(state.mode == "full" for state in standing) else "read-only"
        newest = standing[-1]
        retry_after = _HOLD_RETRY_AFTER if newest.retry_after is None and newest.ends_at is None else newest.retry_after
        return replace_state(newest, mode=strictest, allow=_allowed_by_all(standing), bypass=None, retry_after=retry_after)
    opening = [hold for hold in off if hold.scope in opened_by]
    return max(opening, key=lambda hold: (hold.scope is not None, hold.since, hold.id)).state if opening else None


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
        new = replace(new, switch=old.switch, expires_in=_left(old.expires_in, old, new))
    if new.holds is None and old is not None:
        new = replace(new, holds=old.holds)
    if new.scopes is None or any(own.switch is None for own in new.scopes.values()):
        new = replace(new, scopes=_known_scopes(new, old))
    return new


def _known_scopes(new: Reading, old: Reading | None) -> Mapping[str, ScopeSwitch]:
    """Those that could be read, and for the others what was last known, if that ever was."""
    known: dict[str, ScopeSwitch] = {}
    if old is not None:
        known = {name: ScopeSwitch(own.switch, _left(own.expires_in, old, new)) for name, own in (old.scopes or {}).items()}
    if new.scopes is None:
        return known
    scopes = {name: known.get(name, own) if own.switch is None else own for name, own in new.scopes.items()}
    return {name: own for name, own in scopes.items() if own.switch is not None}


def _left(expires_in: float | None, old: Reading, new: Reading) -> float | None:
    return None if expires_in is None else old.now + expires_in - new.now


def steady(new: Reading, old: Reading | None) -> Reading:
    """Let an expiry that is the same but for measuring be the same, so that nothing seems to have changed."""
    if old is None:
        return new
    left = _steadied(new.expires_in, old.expires_in, new, old)
    scopes, before = dict(new.scopes or {}), old.scopes or {}
    for name in scopes.keys() & before.keys():
        own_left = _steadied(scopes[name].expires_in, before[name].expires_in, new, old)
        scopes[name] = replace(scopes[name], expires_in=own_left)
    return new if left == new.expires_in and scopes == (new.scopes or {}) else replace(new, expires_in=left, scopes=scopes)


def _steadied(expires_in: float | None, before: float | None, new: Reading, old: Reading) -> float | None:
    left = _left(before, old, new)
    return left if left is not None and expires_in is not None and abs(left - expires_in) < _JITTER else expires_in


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
