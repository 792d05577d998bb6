"""The effective state of a snapshot at a given time, on the backend's clock. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from .holds import Hold
from .snapshot import Snapshot
from .state import OFF, MaintenanceState

_HOLD_RETRY_AFTER: Final = 60  # seconds; a block takes minutes rather than an hour


@dataclass(frozen=True, slots=True)
class EffectiveState:
    """The meaning of a snapshot at one time, valid until `until`."""

    hold: MaintenanceState | None
    switch: MaintenanceState
    until: float
    upcoming: MaintenanceState | None = None
    """The switch, if its window has not begun."""
    deciding: tuple[Hold, ...] = field(default=(), compare=False)
    """The holds that decide, oldest first."""

    @property
    def state(self) -> MaintenanceState:
        """The effective state: that of the holds, else of the switch."""
        return self.switch if self.hold is None else self.hold


def evaluate_all(snapshot: Snapshot, now: float) -> dict[str | None, EffectiveState]:
    """Evaluate the general state, under `None`, and each component with a switch or a hold."""
    held = {hold.component for hold in snapshot.holds or ()}
    return {
        name: evaluate(snapshot, now, name) for name in {None, *held, *(snapshot.components or {})}
    }


def evaluate(snapshot: Snapshot, now: float, component: str | None = None) -> EffectiveState:
    """Combine the switch and the live holds at `now`, in general or for a component.

    For a component, the first that applies decides:

    1. an on hold, general or its own: closed;
    2. its own off hold: open;
    3. its own switch, unless its window has not begun or is over, as that must not open what is
       closed in general;
    4. the general state.
    """
    switch, until = _switch_at(snapshot, now)
    upcoming = upcoming_window(snapshot, now)
    opened_by: tuple[str | None, ...] = (None, component)
    if (own := snapshot.for_component(component)) is not None:
        own_switch, own_until = _switch_at(own, now)
        until = min(until, own_until)
        if now < own.expires_at and (own_switch.enabled or not (own.switch or OFF).enabled):
            switch, upcoming, opened_by = own_switch, None, (component,)
        upcoming = upcoming_window(own, now) or upcoming
    live = [hold for hold in live_holds(snapshot, now) if hold.component in (None, component)]
    until = min([until, *(hold.deadline for hold in live)])
    deciding = _deciding(live, opened_by)
    return EffectiveState(_combined(deciding), switch, until, upcoming, deciding)


def _switch_at(snapshot: Snapshot, now: float) -> tuple[MaintenanceState, float]:
    """Return the state of the switch, and until when it is that."""
    state, expires_at = snapshot.switch or OFF, snapshot.expires_at
    if now >= expires_at:
        return OFF, math.inf
    at = _moment(now)
    change = state.changes_after(at)
    until = min(expires_at, math.inf if change is None else change.timestamp())
    if not state.active_at(at):
        return state.replace(enabled=False), until
    return _ending_by(state, expires_at), until


def upcoming_window(snapshot: Snapshot, now: float) -> MaintenanceState | None:
    """Return the switch, ending with its expiry, if its window has not begun but will."""
    state, expires_at = snapshot.switch or OFF, snapshot.expires_at
    if not state.enabled or state.starts_at is None or state.starts_at <= _moment(now):
        return None
    return _ending_by(state, expires_at) if state.starts_at.timestamp() < expires_at else None


def _ending_by(state: MaintenanceState, expires_at: float) -> MaintenanceState:
    """Return the state with its expiry as its end, for Retry-After."""
    try:
        end = _moment(expires_at)
    except (OverflowError, ValueError, OSError):  # no expiry, or one after the year 9999
        return state
    return state if state.ends_at and state.ends_at <= end else state.replace(ends_at=end)


def live_holds(snapshot: Snapshot, now: float) -> tuple[Hold, ...]:
    """Return the holds that have not expired, oldest first."""
    live = (hold for hold in snapshot.holds or () if now < hold.deadline)
    return tuple(sorted(live, key=lambda hold: (hold.since, hold.id)))


def _deciding(live: Iterable[Hold], opened_by: tuple[str | None, ...]) -> tuple[Hold, ...]:
    """Return the on holds that are not lifted; without any, the off holds of these components."""
    off = [hold for hold in live if not hold.state.enabled]
    lifted = {id for hold in off for id in hold.lifts}
    on = [hold for hold in live if hold.state.enabled and hold.id not in lifted]
    return tuple(on or (hold for hold in off if hold.component in opened_by))


def _combined(holds: Sequence[Hold]) -> MaintenanceState | None:
    """Return the state of the deciding holds; `None` without any.

    The newest on hold has the details, with the strictest mode. Of several off holds, that of a
    component decides.
    """
    if not holds:
        return None
    *others, newest = (hold.state for hold in holds)
    if not newest.enabled:
        return max(reversed(holds), key=lambda hold: hold.component is not None).state
    is_open_ended = newest.retry_after is None and newest.ends_at is None
    retry_after = _HOLD_RETRY_AFTER if is_open_ended else newest.retry_after
    mode = "full" if any(state.mode == "full" for state in (newest, *others)) else "read-only"
    lists = [state.allow or () for state in others]  # no hold opens what another closes
    allow = tuple(entry for entry in newest.allow or () if all(entry in each for each in lists))
    return newest.replace(mode=mode, allow=allow or None, bypass=None, retry_after=retry_after)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
