"""The gate, and the cached snapshot that it is derived from. No clock and no I/O.

The gate is open or closed, by one rule, and for as long as that is known.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from ..model.evaluate import EffectiveState, evaluate, evaluate_all
from ..model.precedence import Closure, closure_of
from ..model.snapshot import Snapshot, with_last_known, with_stable_expiry
from ..model.state import OFF, MaintenanceState

OutagePolicy = Literal["last-known", "open", "closed"]

FENCED: Final = MaintenanceState(
    enabled=True,
    retry_after=2,
    reason="The backend cannot be reached, and on_unreachable is 'closed'.",
)
"""The state of a worker that closed itself. It opens as soon as the backend is back, so
`retry_after` is short."""


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
        closures = (state.closure for state in self.components.values())
        is_open = self.closure is None and not any(closures)
        object.__setattr__(self, "is_open", is_open)
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


@dataclass(frozen=True, slots=True)
class StalenessPolicy:
    """The treatment of old snapshots. Times are in seconds; `kind` is the backend's.

    With `counts_from_registering`, age counts from the last registration, as a fence must.
    With `asks_always`, the backend is read for every request, so that nothing can be stale.
    """

    kind: str
    enable_maintenance: bool | None
    on_unreachable: OutagePolicy
    stale_after: float
    ttl: float
    counts_from_registering: bool
    asks_always: bool


class SnapshotCache:
    """The last snapshot, and when it was requested, stored and confirmed.

    Callers pass local monotonic times.
    """

    def __init__(self, policy: StalenessPolicy, clock: Callable[[], float] = time.time) -> None:
        self.policy = policy
        self._wall_clock = clock
        self._stored_at = -math.inf
        self._registered_at = -math.inf
        # Of the backend's clock minus our monotonic one.
        self._offset_bounds = -math.inf, math.inf
        self.begun_at = -math.inf  # the first use
        self.fresh_at = -math.inf
        self.changes_at = -math.inf
        self.snapshot: Snapshot | None = None

    def store(
        self, snapshot: Snapshot, requested_at: float, arrived_at: float
    ) -> tuple[Snapshot, bool]:
        """Store a snapshot, unless a newer one arrived while this one was on its way.

        Returns the one that is stored now, in which last known values replace unreadable ones, and
        whether it is this one.
        """
        old = self.snapshot
        if old is not None and requested_at < self._stored_at and snapshot.now < old.now:
            return old, False
        self._narrow_offset(snapshot.now - arrived_at, snapshot.now - requested_at)
        self.snapshot = known = with_stable_expiry(with_last_known(snapshot, old), old)
        self._stored_at = arrived_at
        self.touch(requested_at)
        if snapshot.registered:
            registered_at = min(requested_at, snapshot.confirmed_at)
            self._registered_at = max(self._registered_at, registered_at)
        return known, True

    def _narrow_offset(self, low: float, high: float) -> None:
        """Narrow the clock offset by a snapshot, which bounds it by its round trip.

        Bounds that contradict the known ones mean that a clock was set, and replace them.
        """
        least, most = self._offset_bounds
        narrowed = max(low, least), min(high, most)
        self._offset_bounds = narrowed if narrowed[0] <= narrowed[1] else (low, high)

    @property
    def _clock_offset(self) -> float:
        low, high = self._offset_bounds
        return (low + high) / 2 if math.isfinite(low) else 0.0

    def touch(self, at: float) -> None:
        """Note that the stored snapshot was still true at that time."""
        self.fresh_at = max(self.fresh_at, at)

    @property
    def known(self) -> Snapshot | None:
        """The stored snapshot, if its switch was ever readable."""
        return None if self.snapshot is None or self.snapshot.switch is None else self.snapshot

    def backend_time(self, now: float) -> float:
        """Return the time of the clock that windows and leases follow, as a Unix time."""
        return now + self._clock_offset if self.known else self._wall_clock()

    def evaluate_gate(
        self, now: float, fallback: Snapshot | None, fallback_source: str, *, watched: bool
    ) -> Gate:
        """Derive the gate. Without `watched`, nothing confirms it, and it is valid for `ttl`."""
        policy = self.policy
        since = self.confirmed_at(now)
        fresh = policy.asks_always or now - since <= policy.stale_after
        backend_now = self.backend_time(now)
        snapshot, source = self._basis(fallback, fallback_source, fresh=fresh)
        effective = evaluate_all(snapshot, backend_now)
        self.changes_at = now + min(each.until for each in effective.values()) - backend_now
        horizon = self._horizon(since if fresh else now, watched=watched)
        if not fresh and policy.on_unreachable != "last-known":
            hold = FENCED if policy.on_unreachable == "closed" else None
            closure = closure_of(hold, policy.enable_maintenance, OFF)
            return Gate(closure, hold or OFF, f"unreachable-{policy.on_unreachable}", horizon)
        states = {name: self._state_of(each) for name, each in effective.items()}
        general = states[None]
        differing = {name: state for name, state in states.items() if name and state != general}
        return Gate(
            general.closure,
            general.state,
            source,
            min(self.changes_at, horizon),
            general.upcoming,
            differing,
        )

    def _state_of(self, effective: EffectiveState) -> GateState:
        override = self.policy.enable_maintenance
        closure = closure_of(effective.hold, override, effective.switch)
        return GateState(closure, effective.state, effective.upcoming if override is None else None)

    def confirmed_at(self, now: float) -> float:
        """Return the time from which staleness is measured."""
        if self.policy.on_unreachable == "closed":
            # A fence must hold against the registry. It counts from where Redis began to count, and
            # a worker that has never registered is fenced from the start.
            return self._registered_at if self.policy.counts_from_registering else self.fresh_at
        since = max(self.fresh_at, self.begun_at)
        return now if since == -math.inf else since

    def persistent_state(self, now: float) -> MaintenanceState:
        """Return the state as a file can keep it: an active hold, or the switch with its end."""
        snapshot, backend_now = self.known or Snapshot(), now + self._clock_offset
        switch = snapshot.switch or OFF
        if (hold := evaluate(snapshot, backend_now).hold) is not None:
            return hold
        if snapshot.expires_in is None:
            return switch
        # As it will be when its window begins, so that the time to live is its end.
        begins = backend_now if switch.starts_at is None else switch.starts_at.timestamp()
        return evaluate(snapshot, max(backend_now, begins)).switch

    def _horizon(self, since: float, *, watched: bool) -> float:
        """Return until when a gate is valid that was confirmed at that time."""
        if self.policy.asks_always:
            return -math.inf
        return since + (self.policy.stale_after if watched else self.policy.ttl)

    def _basis(
        self, fallback: Snapshot | None, fallback_source: str, *, fresh: bool
    ) -> tuple[Snapshot, str]:
        """Return the snapshot to evaluate and its source: the known one, a fallback's, or none."""
        if (known := self.known) is not None:
            # The override beats every switch; one of a component must not outdo an off hold.
            if self.policy.enable_maintenance is not None and known.components:
                known = replace(known, components={})
            if fresh:
                return known, self.policy.kind
            return _unending(known, self.fresh_at + self._clock_offset), "last-known"
        snapshot = fallback or Snapshot()
        if self.snapshot is not None:  # its switch is unreadable, its holds are not
            snapshot = replace(snapshot, holds=self.snapshot.holds)
        return snapshot, fallback_source


def _unending(snapshot: Snapshot, confirmed_at: float) -> Snapshot:
    """Drop the deadlines of the on holds that were active when last confirmed.

    A disconnected worker cannot see renewals and must stay closed.
    """
    holds = (
        replace(hold, deadline=math.inf)
        if hold.state.enabled and confirmed_at < hold.deadline
        else hold
        for hold in snapshot.holds or ()
    )
    return replace(snapshot, holds=tuple(holds))
