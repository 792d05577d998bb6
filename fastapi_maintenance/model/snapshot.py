"""What is known about the switch and its holds, and what follows from it at a given time. Pure.

Times are seconds since the epoch on the *backend's* clock (Redis' TIME; the wall clock for files).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .holds import Hold
from .state import OFF, MaintenanceState

__all__ = ["Reading", "ScopeSwitch", "fill_gaps", "steady"]

_JITTER = 0.02  # seconds by which two measurements of one expiry may differ


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
