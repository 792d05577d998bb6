"""Snapshots of a backend. Pure.

Times are seconds since the epoch on the *backend's* clock (Redis' TIME; the wall clock for files).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from .holds import Hold
from .state import OFF, MaintenanceState

_JITTER: Final = 0.02  # seconds by which two measurements of one expiry may differ


@dataclass(frozen=True, slots=True)
class ComponentSwitch:
    """A component's own switch: `switch` and `expires_in` as in a snapshot."""

    switch: MaintenanceState | None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent read of a backend.

    `switch` or `holds` is `None` if the stored value is unreadable; `error` says why, and the last
    known value stays in effect. `expires_in` is the remaining time to live of the switch in
    seconds. `registered` says whether the same atomic step renewed the registration of this worker.
    `confirmed_at` is the local monotonic time at which the server was last known to own the switch,
    infinite if only the server itself can tell.
    `components` has the switches of components that have one; `None` as for `holds`.
    """

    switch: MaintenanceState | None = OFF
    holds: tuple[Hold, ...] | None = ()
    now: float = 0.0
    expires_in: float | None = None
    error: str | None = None
    epoch: int = 0
    fingerprint: str = ""
    registered: bool = False
    confirmed_at: float = field(default=math.inf, compare=False)
    components: Mapping[str, ComponentSwitch] | None = field(default_factory=dict)

    def for_component(self, component: str | None) -> Snapshot | None:
        """Return the snapshot with a component's own switch; `None` if it has none."""
        own = None if component is None else (self.components or {}).get(component)
        return None if own is None else replace(self, switch=own.switch, expires_in=own.expires_in)

    def switches(self, component: str | None) -> tuple[MaintenanceState | None, ...]:
        """Return the general switch, and the component's own if it has one."""
        own = self.for_component(component)
        return (self.switch,) if own is None else (self.switch, own.switch)

    @property
    def expires_at(self) -> float:
        """The time at which the switch expires."""
        return math.inf if self.expires_in is None else self.now + self.expires_in


def with_last_known(new: Snapshot, old: Snapshot | None) -> Snapshot:
    """Replace unreadable values by the last known ones."""
    if new.switch is None and old is not None:
        new = replace(new, switch=old.switch, expires_in=_left(old.expires_in, old, new))
    if new.holds is None and old is not None:
        new = replace(new, holds=old.holds)
    if new.components is None or any(own.switch is None for own in new.components.values()):
        new = replace(new, components=_known_components(new, old or Snapshot()))
    return new


def _known_components(new: Snapshot, old: Snapshot) -> Mapping[str, ComponentSwitch]:
    """Return the readable switches of components, and the last known ones of the others."""
    before = old.components or {}
    known = {
        name: replace(own, expires_in=_left(own.expires_in, old, new))
        for name, own in before.items()
    }
    if new.components is None:
        return known
    components = {
        name: known.get(name, own) if own.switch is None else own
        for name, own in new.components.items()
    }
    return {name: own for name, own in components.items() if own.switch is not None}


def _left(expires_in: float | None, old: Snapshot, new: Snapshot) -> float | None:
    """Return the remaining time to live at the time of the newer snapshot."""
    return None if expires_in is None else old.now + expires_in - new.now


def with_stable_expiry(new: Snapshot, old: Snapshot | None) -> Snapshot:
    """Keep an expiry that differs only by measurement, so that the snapshots are equal."""
    if old is None:
        return new
    left = _stable(new.expires_in, old.expires_in, new, old)
    components, before = dict(new.components or {}), old.components or {}
    for name in components.keys() & before.keys():
        own_left = _stable(components[name].expires_in, before[name].expires_in, new, old)
        components[name] = replace(components[name], expires_in=own_left)
    if left == new.expires_in and components == (new.components or {}):
        return new
    return replace(new, expires_in=left, components=components)


def _stable(
    expires_in: float | None, before: float | None, new: Snapshot, old: Snapshot
) -> float | None:
    left = _left(before, old, new)
    if left is None or expires_in is None:
        return expires_in
    return left if abs(left - expires_in) < _JITTER else expires_in
