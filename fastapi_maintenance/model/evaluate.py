"""The effective state of a snapshot at a given time, on the backend's clock. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from .holds import Hold
from .snapshot import Snapshot
from .state import OFF, MaintenanceState, replace_state

__all__ = ["EffectiveState", "evaluate", "upcoming_window"]

_HOLD_RETRY_AFTER = 60  # seconds; a hold without a known end is over when its block is, which takes minutes rather than an hour


@dataclass(frozen=True, slots=True)
class EffectiveState:
    """What a reading means at one instant, and until when it means that."""

    hold: MaintenanceState | None
    switch: MaintenanceState
    until: float
    upcoming: MaintenanceState | None = None
    """The switch, if it stands for a window that has not begun."""

    @property
    def state(self) -> MaintenanceState:
        """The effective state: a standing hold's, else the switch's."""
        return self.switch if self.hold is None else self.hold


def evaluate(reading: Snapshot, now: float, component: str | None = None) -> EffectiveState:
    """Combine switch and holds as they stand at `now`; for a component, those of everything and its own, which goes first.

    An on hold of either closes it. Else its own off hold opens it; else its own switch decides, where there is one; else what
    holds in general does. A window of its own that has not begun or is over decides nothing: it must not open what is closed in general.
    """
    switch, until = _switch_at(reading, now)
    coming = upcoming_window(reading, now)
    opened_by: tuple[str | None, ...] = (None, component)
    if (own := reading.for_component(component)) is not None:
        own_switch, own_until = _switch_at(own, now)
        own_coming = upcoming_window(own, now)
        until = min(until, own_until)
        if now < own.expires_at and (own_switch.enabled or not (own.switch or OFF).enabled):
            switch, coming, opened_by = own_switch, None, (component,)
        coming = own_coming or coming
    live = [
        hold
        for hold in reading.holds or ()
        if now < hold.deadline and hold.component in (None, component)
    ]
    until = min([until, *(hold.deadline for hold in live)])
    return EffectiveState(_combine(live, opened_by), switch, until, coming)


def _switch_at(reading: Snapshot, now: float) -> tuple[MaintenanceState, float]:
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


def upcoming_window(reading: Snapshot, now: float) -> MaintenanceState | None:
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
    return (
        state
        if state.ends_at is not None and state.ends_at <= end
        else replace_state(state, ends_at=end)
    )


def _combine(live: Iterable[Hold], opened_by: tuple[str | None, ...]) -> MaintenanceState | None:
    """On while any on hold stands that no off hold of its own block lifts; else off while an off hold stands of one of these components.

    The most specific of those goes first.
    """
    holds = sorted(live, key=lambda hold: (hold.since, hold.id))
    off = [hold for hold in holds if not hold.state.enabled]
    lifted = {id for hold in off for id in hold.lifts}
    standing = [hold.state for hold in holds if hold.state.enabled and hold.id not in lifted]
    if standing:
        strictest = "full" if any(state.mode == "full" for state in standing) else "read-only"
        newest = standing[-1]
        retry_after = (
            _HOLD_RETRY_AFTER
            if newest.retry_after is None and newest.ends_at is None
            else newest.retry_after
        )
        return replace_state(
            newest,
            mode=strictest,
            allow=_allowed_by_all(standing),
            bypass=None,
            retry_after=retry_after,
        )
    opening = [hold for hold in off if hold.component in opened_by]
    return (
        max(opening, key=lambda hold: (hold.component is not None, hold.since, hold.id)).state
        if opening
        else None
    )


def _allowed_by_all(states: list[MaintenanceState]) -> tuple[str, ...] | None:
    """What none of several closings is against: nobody opens anything under another's migration."""
    *others, newest = (state.allow or () for state in states)
    return tuple(entry for entry in newest if all(entry in other for other in others)) or None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
