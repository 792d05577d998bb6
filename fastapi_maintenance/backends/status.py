"""Point-in-time status report of a backend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

from .._internal.times import isoformat_utc as iso
from ..model.evaluate import EffectiveState, evaluate, upcoming_window
from ..model.holds import Hold
from ..model.snapshot import Snapshot
from ..model.state import MaintenanceState
from .base import BaseStateBackend


async def look(backend: BaseStateBackend, component: str | None = None) -> StatusReport:
    """Return the status now, in general or of a component. Raises `BackendError`."""
    if component is not None:
        backend.follow_components([component])
    return StatusReport.of(backend, await backend.read(), component=component)


def label(state: MaintenanceState | None) -> str:
    """Return a state in one word."""
    if state is None:
        return "unknown"
    return "on" if state.enabled else "off"


def describe_hold(hold: Hold) -> str:
    """Return the owner of a hold, and its reason."""
    owner = hold.state.by or hold.id
    return f"{owner} ({hold.state.reason})" if hold.state.reason else owner


@dataclass(frozen=True, slots=True)
class StatusReport:
    """A snapshot, evaluated at an instant of the backend's clock.

    If a missing part of the snapshot could decide, the effective state is unknown.
    """

    url: str
    kind: str
    reading: Snapshot
    at: float
    component: str | None = None

    @classmethod
    def of(
        cls,
        backend: BaseStateBackend,
        reading: Snapshot,
        at: float | None = None,
        component: str | None = None,
    ) -> Self:
        """Evaluate a snapshot, at its own time by default; in general, or for a component."""
        return cls(
            backend.describe(), backend.kind, reading, reading.now if at is None else at, component
        )

    def about(self, component: str | None) -> Self:
        """Return the status of a component in the same snapshot."""
        return replace(self, component=component)

    @property
    def now(self) -> datetime:
        """The instant."""
        return datetime.fromtimestamp(self.at, UTC)

    @property
    def state(self) -> MaintenanceState | None:
        """The effective state; None if unknown."""
        effective = self._effective
        known = effective.hold is not None or not (
            self._source.switch is None or self.reading.holds is None
        )
        return effective.state if known else None

    @property
    def enabled(self) -> bool | None:
        """True if maintenance is on; None if that is unknown."""
        return None if self.state is None else self.state.enabled

    @property
    def decided_by(self) -> str | None:
        """The decider: `hold`, `switch` or, for a component, `general switch`; None if unknown."""
        if self.state is None:
            return None
        if self._effective.hold is not None:
            return "hold"
        return "switch" if self.component is None or self.has_own_switch else "general switch"

    @property
    def retry_after(self) -> int | None:
        """The Retry-After for clients, in seconds; None if maintenance is off or unknown."""
        state = self.state
        return state.retry_after_at(self.now) if state is not None and state.enabled else None

    @property
    def has_own_switch(self) -> bool:
        """True if the component has a switch of its own."""
        return self.reading.for_component(self.component) is not None

    @property
    def _source(self) -> Snapshot:
        return self.reading.for_component(self.component) or self.reading

    @property
    def switch(self) -> MaintenanceState | None:
        """The stored switch, the component's if it has one; None if unreadable."""
        return self._source.switch

    @property
    def expires_in(self) -> float | None:
        """The time to live of the switch, in seconds; None without one."""
        reading = self._source
        return (
            None
            if reading.expires_in is None
            else max(0.0, reading.now + reading.expires_in - self.at)
        )

    @property
    def upcoming(self) -> MaintenanceState | None:
        """The switch, if it has a window that has not begun and begins before the key expires."""
        return upcoming_window(self._source, self.at)

    @property
    def switch_is_on(self) -> bool:
        """True if the switch alone is on now, with its window."""
        return self._effective.switch.enabled

    @property
    def window(self) -> MaintenanceState | None:
        """The switch, if it has a window that is not over."""
        switch = self.switch if self.component is None or self.has_own_switch else None
        timed = (
            switch is not None
            and switch.enabled
            and (switch.starts_at is not None or switch.ends_at is not None)
        )
        return switch if timed and (self.switch_is_on or self.upcoming is not None) else None

    @property
    def holds(self) -> tuple[Hold, ...] | None:
        """The active holds, oldest first; None if unreadable."""
        if self.reading.holds is None:
            return None
        return tuple(
            sorted(
                (hold for hold in self.reading.holds if self.at < hold.deadline),
                key=lambda hold: (hold.since, hold.id),
            )
        )

    @property
    def deciding(self) -> tuple[Hold, ...]:
        """The holds that decide the effective state; empty if the switch decides."""
        holds, state = self.holds or (), self._effective.hold
        if state is None:
            return ()
        holds = tuple(hold for hold in holds if hold.component in (None, self.component))
        lifted = {id for hold in holds if not hold.state.enabled for id in hold.lifts}
        return tuple(
            hold
            for hold in holds
            if hold.state.enabled == state.enabled and not (state.enabled and hold.id in lifted)
        )

    def lease_of(self, hold: Hold) -> float | None:
        """Return the seconds until a hold expires unless renewed; None without a lease."""
        return _finite(hold.deadline - self.at)

    @property
    def changes_at(self) -> datetime | None:
        """The time at which a lease, window or time to live may change the state; None if never."""
        until = _finite(self._effective.until)
        try:
            return None if until is None else datetime.fromtimestamp(until, UTC)
        except (OverflowError, ValueError, OSError):  # beyond the calendar
            return None

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values, always with the same keys."""
        state, upcoming, changes_at = self.state, self.upcoming, self.changes_at
        return {
            "component": self.component,
            "enabled": self.enabled,
            "decided_by": self.decided_by,
            "state": None if state is None else _state_json(state),
            "retry_after": self.retry_after,
            "changes_at": None if changes_at is None else iso(changes_at),
            "switch": None
            if self.switch is None
            else _state_json(self.switch) | {"expires_in": self.expires_in},
            "upcoming": None
            if upcoming is None
            else {name: _state_json(upcoming)[name] for name in ("starts_at", "ends_at")},
            "holds": None if self.holds is None else [self._hold_json(hold) for hold in self.holds],
            "error": self.reading.error,
            "now": iso(self.now),
            "backend": {"kind": self.kind, "url": self.url},
        }

    def windows_json(self) -> list[dict[str, Any]]:
        """Return the windows as JSON values; `begun` says whether one is active."""
        window = self.window
        return [] if window is None else [_state_json(window) | {"begun": self.upcoming is None}]

    def _hold_json(self, hold: Hold) -> dict[str, Any]:
        return {
            "id": hold.id,
            "lease": self.lease_of(hold),
            "lifts": list(hold.lifts),
            "component": hold.component,
            **_state_json(hold.state),
        }

    @property
    def _effective(self) -> EffectiveState:
        return evaluate(self.reading, self.at, self.component)


def _state_json(state: MaintenanceState) -> dict[str, Any]:
    times = {name: getattr(state, name) for name in ("starts_at", "ends_at", "since")}
    bypass = (
        None
        if state.bypass is None
        else [record.model_dump() | {"until": iso(record.until)} for record in state.bypass]
    )
    written = {name: None if moment is None else iso(moment) for name, moment in times.items()}
    return state.model_dump() | written | {"bypass": bypass, "ignored": list(state.ignored)}


def _finite(seconds: float) -> float | None:
    return None if seconds == float("inf") else seconds
