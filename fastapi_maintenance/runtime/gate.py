"""Gate: open or closed, by which rule, until when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..model.evaluate import evaluate
from ..model.policy import Closure, closure_of
from ..model.snapshot import Snapshot
from ..model.state import MaintenanceState

__all__ = ["Gate", "GateState", "overridden"]


class GateState(NamedTuple):
    """Whether a component is closed and by which rule, what its state is, and the window that will close it by itself."""

    closure: Closure | None
    state: MaintenanceState
    upcoming: MaintenanceState | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """What a worker goes by: whether it is closed and by which rule, what the state is and where that comes from.

    `coming` is the window that will close it by itself. `scopes` has what differs from all that in a component; `is_open` says that
    nothing is closed, there or elsewhere.

    It may say so until `until`, a local monotonic time; then it must be judged again. `version` counts the changes of what it says.
    """

    closure: Closure | None
    state: MaintenanceState
    source: str
    until: float
    upcoming: MaintenanceState | None = None
    components: Mapping[str, GateState] = field(default_factory=dict)
    version: int = 0
    is_open: bool = field(init=False)
    _general: GateState = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        is_open = self.closure is None and all(
            verdict.closure is None for verdict in self.components.values()
        )
        object.__setattr__(self, "is_open", is_open)
        object.__setattr__(self, "_general", GateState(self.closure, self.state, self.upcoming))

    def after(self, before: Gate) -> Gate:
        """Return this gate as the next one: what is equal stays the same object, so that its response stays encoded."""
        closing = before.closure if self.closure == before.closure else self.closure
        components = before.components
        if self.components != components:
            kept = {
                name: before.components[name]
                for name, verdict in self.components.items()
                if before.components.get(name) == verdict
            }
            components = {**self.components, **kept}
        changed = closing is not before.closure or components is not before.components
        return replace(
            self, closure=closing, components=components, version=before.version + changed
        )

    def closed_states(self) -> list[MaintenanceState]:
        """What all that is closed is closed by."""
        return [
            closing.state
            for closing in (
                self.closure,
                *(verdict.closure for verdict in self.components.values()),
            )
            if closing is not None
        ]

    def for_component(self, component: str | None) -> GateState:
        """What goes for the routes of a component; None for those that are in none."""
        return self._general if component is None else self.components.get(component, self._general)


def overridden(state: MaintenanceState, now: float, wall_clock: float) -> Gate:
    """The gate of a worker that goes by a state it was given, as tests give it, whatever is known."""
    effective = evaluate(Snapshot(state, now=wall_clock), wall_clock)
    refusal = closure_of(None, None, effective.switch)
    return Gate(refusal, effective.switch, "override", now + effective.until - wall_clock)
