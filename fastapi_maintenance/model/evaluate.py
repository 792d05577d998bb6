"""The effective state of a snapshot at a given time, on the backend's clock. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
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
    live = [
        hold
        for hold in snapshot.holds or ()
        if now < hold.deadline and hold.component in (None, component)
    ]
    until = min([until, *(hold.deadline for hold in live)])
    return EffectiveState(_combine(live, opened_by), switch, until, upcoming)


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
    return (
        state if state.ends_at is not None and state.ends_at <= end else state.replace(ends_at=end)
    )


def _combine(live: Iterable[Hold], opened_by: tuple[str | None, ...]) -> MaintenanceState | None:
    """Return the state of the holds; `None` if none decides.

    It is on for an on hold that is not lifted, else off for an off hold of these components.
    The newest on hold has the details, with the strictest mode. Of several off holds, that of a
    component decides.
    """
    holds = sorted(live, key=lambda hold: (hold.since, hold.id))
    off = [hold for hold in holds if not hold.state.enabled]
    lifted = {id for hold in off for id in hold.lifts}
    on = [hold.state for hold in holds if hold.state.enabled and hold.id not in lifted]
    if on:
        newest, mode = on[-1], "full" if any(state.mode == "full" for state in on) else "read-only"
        retry_after = (
            newest.retry_after
            if newest.ends_at or newest.retry_after is not None
            else _HOLD_RETRY_AFTER
        )
        return newest.replace(
            mode=mode, allow=_allowed_by_all(on), bypass=None, retry_after=retry_after
        )
    opening = [hold for hold in off if hold.component in opened_by]
    return (
        max(opening, key=lambda hold: (hold.component is not None, hold.since, hold.id)).state
        if opening
        else None
    )


def _allowed_by_all(states: list[MaintenanceState]) -> tuple[str, ...] | None:
    """Return the entries that every hold allows, so that no hold opens what another closes."""
    *others, newest = (state.allow or () for state in states)
    return tuple(entry for entry in newest if all(entry in other for other in others)) or None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
