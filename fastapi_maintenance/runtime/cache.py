"""What one worker knows of its backend, how sure it may be of it, and the gate that follows. No clock of its own, no I/O."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from ..model.evaluate import EffectiveState, evaluate, evaluate_all
from ..model.policy import closure_of
from ..model.snapshot import Snapshot, with_last_known, with_stable_expiry
from ..model.state import OFF, MaintenanceState
from .gate import Gate, GateState

__all__ = ["FENCED", "OutagePolicy", "SnapshotCache", "StalenessPolicy"]

OutagePolicy = Literal["last-known", "open", "closed"]


FENCED: Final = MaintenanceState(
    enabled=True,
    retry_after=2,
    reason="The backend cannot be reached, and on_unreachable is 'closed'.",
)
"""The state of a worker that closed itself. It opens as soon as the backend is back, so `retry_after` is short."""


@dataclass(frozen=True, slots=True)
class StalenessPolicy:
    """How a worker judges. Times are in seconds; `kind` is the backend's.

    `counts_from_registering` is for a fence that must hold against a registry; `asks_always` for a backend that is asked at every
    request, so that nothing it said can be stale.
    """

    kind: str
    enable_maintenance: bool | None
    on_unreachable: OutagePolicy
    stale_after: float
    ttl: float
    counts_from_registering: bool
    asks_always: bool


class SnapshotCache:
    """The last reading, and when it was asked for, learned and confirmed: local monotonic times, given by whoever calls."""

    def __init__(self, policy: StalenessPolicy, clock: Callable[[], float] = time.time) -> None:
        self._policy = policy
        self._wall_clock = clock
        self._learned_at = -math.inf
        self._registered_at = -math.inf
        self._offset_bounds = (-math.inf, math.inf)  # of the backend's clock less our monotonic one
        self.begun_at = -math.inf  # when anybody first wanted to know
        self.fresh_at = -math.inf
        self.changes_at = -math.inf
        self.reading: Snapshot | None = None

    # -- learning ------------------------------------------------------------------------------------------------------

    def store(self, reading: Snapshot, asked_at: float, arrived_at: float) -> bool:
        """Take a reading in, unless what is known is newer: learned while this one was on its way, and read later."""
        old = self.reading
        if old is not None and asked_at < self._learned_at and reading.now < old.now:
            return False
        self._tune(reading.now - arrived_at, reading.now - asked_at)
        self.reading = with_stable_expiry(with_last_known(reading, old), old)
        self._learned_at = arrived_at
        self.touch(asked_at)
        if reading.registered:
            self._registered_at = max(self._registered_at, asked_at)
        return True

    def _tune(self, low: float, high: float) -> None:
        """Each reading bounds the offset by its round trip, so one that took long need not make windows inexact.

        Together they bound it better than the last one alone, until they contradict each other: then a clock was set.
        """
        least, most = self._offset_bounds
        narrowed = max(low, least), min(high, most)
        self._offset_bounds = narrowed if narrowed[0] <= narrowed[1] else (low, high)

    @property
    def _clock_offset(self) -> float:
        low, high = self._offset_bounds
        return (low + high) / 2 if math.isfinite(low) else 0.0

    def touch(self, at: float) -> None:
        """What was learned last still held at that time."""
        self.fresh_at = max(self.fresh_at, at)

    @property
    def known(self) -> Snapshot | None:
        """The last reading, if its switch was ever readable."""
        return None if self.reading is None or self.reading.switch is None else self.reading

    def backend_time(self, now: float) -> float:
        """The time on the clock that windows and leases are judged by, in seconds since the epoch."""
        return now + self._clock_offset if self.known else self._wall_clock()

    # -- judging -------------------------------------------------------------------------------------------------------

    def evaluate_gate(
        self, now: float, fallback: Snapshot | None, fallback_source: str, *, watched: bool
    ) -> Gate:
        """The gate as of now. `watched` says whether somebody will confirm it; else it is a cached read."""
        policy = self._policy
        since = self.confirmed_at(now)
        fresh = policy.asks_always or now - since <= policy.stale_after
        backend_now = self.backend_time(now)
        reading, source = self._basis(fallback, fallback_source, fresh=fresh)
        states = evaluate_all(reading, backend_now)
        self.changes_at = now + min(each.until for each in states.values()) - backend_now
        horizon = self._horizon(since if fresh else now, watched=watched)
        if not fresh and policy.on_unreachable != "last-known":
            hold = FENCED if policy.on_unreachable == "closed" else None
            refusal = closure_of(hold, policy.enable_maintenance, OFF)
            return Gate(refusal, hold or OFF, f"unreachable-{policy.on_unreachable}", horizon)
        verdicts = {name: self._verdict(each) for name, each in states.items()}
        general = verdicts[None]
        differing = {
            name: verdict
            for name, verdict in verdicts.items()
            if name is not None and verdict != general
        }
        return Gate(
            general.closure,
            general.state,
            source,
            min(self.changes_at, horizon),
            general.upcoming,
            differing,
        )

    def _verdict(self, effective: EffectiveState) -> GateState:
        override = self._policy.enable_maintenance
        refusal = closure_of(effective.hold, override, effective.switch)
        return GateState(refusal, effective.state, effective.upcoming if override is None else None)

    def confirmed_at(self, now: float) -> float:
        """From when on staleness counts."""
        if self._policy.on_unreachable == "closed":
            # A fence must hold against the registry: it counts from where Redis began to count, and a worker that the
            # registry has never heard of is fenced from the start.
            return self._registered_at if self._policy.counts_from_registering else self.fresh_at
        since = max(self.fresh_at, self.begun_at)
        return now if since == -math.inf else since

    def persistent_state(self, now: float) -> MaintenanceState:
        """The state as a file can keep it: a standing hold, or the switch with its window and time to live."""
        reading, backend_now = self.known or Snapshot(), now + self._clock_offset
        switch = reading.switch or OFF
        if (hold := evaluate(reading, backend_now).hold) is not None:
            return hold
        if reading.expires_in is None:
            return switch
        # As it will be when its window begins: with the end that its time to live is.
        begins = backend_now if switch.starts_at is None else switch.starts_at.timestamp()
        return evaluate(reading, max(backend_now, begins)).switch

    def _horizon(self, since: float, *, watched: bool) -> float:
        """Until when a gate may speak that was confirmed, or judged without confirmation, at that time."""
        if self._policy.asks_always:
            return -math.inf
        return since + (self._policy.stale_after if watched else self._policy.ttl)

    def _basis(
        self, fallback: Snapshot | None, fallback_source: str, *, fresh: bool
    ) -> tuple[Snapshot, str]:
        """What is known, else what a fallback knows, else off; and where that comes from."""
        if (known := self.known) is not None:
            # The override goes before every switch, also those of components, and must not let one of them outdo a general off hold.
            known = (
                known
                if self._policy.enable_maintenance is None or not known.components
                else replace(known, components={})
            )
            if fresh:
                return known, self._policy.kind
            return _unending(known, self.fresh_at + self._clock_offset), "last-known"
        reading = fallback or Snapshot()
        if self.reading is not None:  # its switch is unreadable, its holds are not
            reading = replace(reading, holds=self.reading.holds)
        return reading, fallback_source


def _unending(reading: Snapshot, confirmed_at: float) -> Snapshot:
    """Without an end to the on holds that stood when last confirmed: whoever cannot see them renewed must not open under them."""
    holds = (
        replace(hold, deadline=math.inf)
        if hold.state.enabled and confirmed_at < hold.deadline
        else hold
        for hold in reading.holds or ()
    )
    return replace(reading, holds=tuple(holds))
