"""Gate: open or closed, by which rule, until when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..model.evaluate import evaluate
from ..model.policy import Closing, closing
from ..model.snapshot import Reading
from ..model.state import MaintenanceState

__all__ = ["Gate", "Verdict", "decreed"]


class Verdict(NamedTuple):
    """Whether a scope is closed and by which rule, what its state is, and the window that will close it by itself."""

    closing: Closing | None
    state: MaintenanceState
    coming: MaintenanceState | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """What a worker goes by: whether it is closed and by which rule, what the state is and where that comes from.

    `coming` is the window that will close it by itself. `scopes` has what differs from all that in a scope; `is_open` says that
    nothing is closed, there or elsewhere.

    It may say so until `until`, a local monotonic time; then it must be judged again. `version` counts the changes of what it says.
    """

    closing: Closing | None
    state: MaintenanceState
    source: str
    until: float
    coming: MaintenanceState | None = None
    scopes: Mapping[str, Verdict] = field(default_factory=dict)
    version: int = 0
    is_open: bool = field(init=False)
    _general: Verdict = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        is_open = self.closing is None and all(verdict.closing is None for verdict in self.scopes.values())
        object.__setattr__(self, "is_open", is_open)
        object.__setattr__(self, "_general", Verdict(self.closing, self.state, self.coming))

    def after(self, before: Gate) -> Gate:
        """Return this gate as the next one: what is equal stays the same object, so that its response stays encoded."""
        closing = before.closing if self.closing == before.closing else self.closing
        scopes = before.scopes
        if self.scopes != scopes:
            kept = {name: before.scopes[name] for name, verdict in self.scopes.items() if before.scopes.get(name) == verdict}
            scopes = {**self.scopes, **kept}
        changed = closing is not before.closing or scopes is not before.scopes
        return replace(self, closing=closing, scopes=scopes, version=before.version + changed)

    def closed_states(self) -> list[MaintenanceState]:
        """What all that is closed is closed by."""
        return [closing.state for closing in (self.closing, *(verdict.closing for verdict in self.scopes.values())) if closing is not None]

    def of(self, scope: str | None) -> Verdict:
        """What goes for the routes of a scope; None for those that are in none."""
        return self._general if scope is None else self.scopes.get(scope, self._general)


def decreed(state: MaintenanceState, now: float, wall_clock: float) -> Gate:
    """The gate of a worker that goes by a state it was given, as tests give it, whatever is known."""
    effective = evaluate(Reading(state, now=wall_clock), wall_clock)
    refusal = closing(None, None, effective.switch)
    return Gate(refusal, effective.switch, "override", now + effective.until - wall_clock)
