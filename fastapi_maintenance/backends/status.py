"""Point-in-time status report of a backend."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self, cast

from pydantic_core import to_jsonable_python

from ..model.evaluate import EffectiveState, evaluate, live_holds, upcoming_window
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
        left = _finite(self._source.expires_at)
        return None if left is None else max(0.0, left - self.at)

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
        if switch is None or not switch.enabled or not (switch.starts_at or switch.ends_at):
            return None
        return switch if self.switch_is_on or self.upcoming else None

    @property
    def holds(self) -> tuple[Hold, ...] | None:
        """The active holds, oldest first; None if unreadable."""
        return None if self.reading.holds is None else live_holds(self.reading, self.at)

    @property
    def deciding(self) -> tuple[Hold, ...]:
        """The holds that decide the effective state; empty if the switch decides."""
        return self._effective.deciding

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
        upcoming = self.upcoming
        document = {
            "component": self.component,
            "enabled": self.enabled,
            "decided_by": self.decided_by,
            "state": _fields(self.state),
            "retry_after": self.retry_after,
            "changes_at": self.changes_at,
            "switch": _fields(self.switch, expires_in=self.expires_in),
            "upcoming": upcoming and {"starts_at": upcoming.starts_at, "ends_at": upcoming.ends_at},
            "holds": None if self.holds is None else [*map(self._hold_fields, self.holds)],
            "error": self.reading.error,
            "now": self.now,
            "backend": {"kind": self.kind, "url": self.url},
        }
        return cast(dict[str, Any], to_jsonable_python(document))

    def windows_json(self) -> list[dict[str, Any]]:
        """Return the windows as JSON values; `begun` says whether one is active."""
        window = _fields(self.window, begun=self.upcoming is None)
        return [] if window is None else [to_jsonable_python(window)]

    def _hold_fields(self, hold: Hold) -> dict[str, Any] | None:
        lease, lifts, component = self.lease_of(hold), hold.lifts, hold.component
        return _fields(hold.state, id=hold.id, lease=lease, lifts=lifts, component=component)

    @property
    def _effective(self) -> EffectiveState:
        return evaluate(self.reading, self.at, self.component)


def _fields(state: MaintenanceState | None, **more: object) -> dict[str, Any] | None:
    """Return the fields of a state and more, as Python values."""
    return None if state is None else {**dict(state), "ignored": state.ignored, **more}


def _finite(seconds: float) -> float | None:
    return None if seconds == math.inf else seconds
