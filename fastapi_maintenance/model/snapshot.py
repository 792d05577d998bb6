"""What is known about the switch and its holds, and what follows from it at a given time. Pure.

Times are seconds since the epoch on the *backend's* clock (Redis' TIME; the wall clock for files).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .holds import Hold
from .state import OFF, MaintenanceState

__all__ = ["ComponentSwitch", "Snapshot", "with_last_known", "with_stable_expiry"]

_JITTER = 0.02  # seconds by which two measurements of one expiry may differ


@dataclass(frozen=True, slots=True)
class ComponentSwitch:
    """The switch of one component, which is there: as `switch` and `expires_in` of a reading."""

    switch: MaintenanceState | None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent look at a backend.

    `switch` or `holds` is None where what is stored could not be read; `error` then says why, and what was last known stays.
    `expires_in` is the switch's remaining time to live in seconds. `registered` says whether the same atomic step renewed this
    worker's place in the registry. `components` has the switches of components, those that are there; None as for `holds`.
    """

    switch: MaintenanceState | None = OFF
    holds: tuple[Hold, ...] | None = ()
    now: float = 0.0
    expires_in: float | None = None
    error: str | None = None
    epoch: int = 0
    fingerprint: str = ""
    registered: bool = False
    components: Mapping[str, ComponentSwitch] | None = field(default_factory=dict)

    def for_component(self, component: str | None) -> Snapshot | None:
        """This reading with the switch of a component in the place of the general one; None where that is not there."""
        own = None if component is None else (self.components or {}).get(component)
        return None if own is None else replace(self, switch=own.switch, expires_in=own.expires_in)

    @property
    def expires_at(self) -> float:
        """When the switch's time to live is over."""
        return math.inf if self.expires_in is None else self.now + self.expires_in


def with_last_known(new: Snapshot, old: Snapshot | None) -> Snapshot:
    """Put what was last known in the place of what could not be read now."""
    if new.switch is None and old is not None:
        new = replace(new, switch=old.switch, expires_in=_left(old.expires_in, old, new))
    if new.holds is None and old is not None:
        new = replace(new, holds=old.holds)
    if new.components is None or any(own.switch is None for own in new.components.values()):
        new = replace(new, components=_known_components(new, old))
    return new


def _known_components(new: Snapshot, old: Snapshot | None) -> Mapping[str, ComponentSwitch]:
    """Those that could be read, and for the others what was last known, if that ever was."""
    known: dict[str, ComponentSwitch] = {}
    if old is not None:
        known = {
            name: ComponentSwitch(own.switch, _left(own.expires_in, old, new))
            for name, own in (old.components or {}).items()
        }
    if new.components is None:
        return known
    components = {
        name: known.get(name, own) if own.switch is None else own
        for name, own in new.components.items()
    }
    return {name: own for name, own in components.items() if own.switch is not None}


def _left(expires_in: float | None, old: Snapshot, new: Snapshot) -> float | None:
    return None if expires_in is None else old.now + expires_in - new.now


def with_stable_expiry(new: Snapshot, old: Snapshot | None) -> Snapshot:
    """Let an expiry that is the same but for measuring be the same, so that nothing seems to have changed."""
    if old is None:
        return new
    left = _steadied(new.expires_in, old.expires_in, new, old)
    components, before = dict(new.components or {}), old.components or {}
    for name in components.keys() & before.keys():
        own_left = _steadied(components[name].expires_in, before[name].expires_in, new, old)
        components[name] = replace(components[name], expires_in=own_left)
    return (
        new
        if left == new.expires_in and components == (new.components or {})
        else replace(new, expires_in=left, components=components)
    )


def _steadied(
    expires_in: float | None, before: float | None, new: Snapshot, old: Snapshot
) -> float | None:
    left = _left(before, old, new)
    return (
        left
        if left is not None and expires_in is not None and abs(left - expires_in) < _JITTER
        else expires_in
    )
