"""The gate: open or closed, by which rule, and for how long that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..model.evaluate import evaluate
from ..model.policy import Closure, closure_of
from ..model.snapshot import Snapshot
from ..model.state import MaintenanceState


class GateState(NamedTuple):
    """The rule that closes a component, its state, and the window that will close it."""

    closure: Closure | None
    state: MaintenanceState
    upcoming: MaintenanceState | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """The decision for an ordinary request: one without marks and exemptions.

    `components` has the components that differ from the general state. `is_open` means that
    neither the service nor a component is closed. `upcoming` is the next window.

    The gate is valid until `until` on the monotonic clock. Each change increments `version`.
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
        object.__setattr__(self, "is_open", not self.closed_states())
        object.__setattr__(self, "_general", GateState(self.closure, self.state, self.upcoming))

    def after(self, before: Gate) -> Gate:
        """Return this gate as the successor of another.

        Equal parts stay the same objects, so that responses stay encoded.
        """
        closure = before.closure if self.closure == before.closure else self.closure
        components = before.components
        if self.components != components:
            components = {
                name: before.components[name] if before.components.get(name) == state else state
                for name, state in self.components.items()
            }
        changed = closure is not before.closure or components is not before.components
        return replace(
            self, closure=closure, components=components, version=before.version + changed
        )

    def closed_states(self) -> list[MaintenanceState]:
        """Return the states that close the service or a component."""
        closures = [self.closure, *(state.closure for state in self.components.values())]
        return [closure.state for closure in closures if closure is not None]

    def for_component(self, component: str | None) -> GateState:
        """Return what applies to the routes of a component, or with None, to all other routes."""
        return self._general if component is None else self.components.get(component, self._general)


def overridden(state: MaintenanceState, now: float, wall_clock: float) -> Gate:
    """Return the gate of a worker whose state a test overrides."""
    effective = evaluate(Snapshot(state, now=wall_clock), wall_clock)
    closure = closure_of(None, None, effective.switch)
    return Gate(closure, effective.switch, "override", now + effective.until - wall_clock)
