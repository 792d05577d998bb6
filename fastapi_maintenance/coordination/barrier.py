"""The barrier: wait until every live worker has applied the state and, if asked, drained."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from .._internal.logging import error_text
from .._internal.validation import positive
from ..backends import BaseStateBackend
from ..backends.base import WorkerRegistry
from ..exceptions import (
    BackendError,
    BackendUnavailableError,
    DrainTimeout,
    UnfencedError,
    UnsupportedError,
)
from ..model.evaluate import evaluate
from ..model.state import OFF, MaintenanceState
from ..model.workers import RegistrySnapshot, Worker
from ..runtime.current import current_backend

_FIRST_LOOK: Final = 0.01  # seconds after the beginning
_SLOWEST_LOOK: Final = 0.2
# A look that had less and was cut off says nothing of the registry: it came too late.
_UNHURRIED: Final = 1.0


@dataclass(frozen=True, slots=True)
class BarrierResult:
    """The status of every worker.

    Each is in one of the first four; `joined` names those that came while waiting.

    `drained` have applied the state and have no request in flight; `applied` have requests in
    flight that were let in before; `waiting` have not applied it; `expired` have not reported for a
    lifetime of the registry, and of these `unfenced` may still be serving. `state` is the effective
    state when last looked at, `elapsed` is in seconds, `trouble` is why the last look failed. For
    `trusted_in` seconds more there may be others: the registry is young, and those that it has lost
    were not fenced yet.
    """

    state: MaintenanceState = OFF
    drained: tuple[Worker, ...] = ()
    applied: tuple[Worker, ...] = ()
    waiting: tuple[Worker, ...] = ()
    expired: tuple[Worker, ...] = ()
    unfenced: tuple[Worker, ...] = ()
    joined: tuple[Worker, ...] = ()
    trusted_in: float = 0.0
    elapsed: float = 0.0
    wants_drained: bool = False
    expected: int | None = None
    looked: bool = False
    trouble: str = ""

    @property
    def pending(self) -> tuple[Worker, ...]:
        """The live workers that are still waited for."""
        return (*self.waiting, *self.applied) if self.wants_drained else self.waiting

    @property
    def count(self) -> int:
        """The number of workers that are not proved gone."""
        return sum(len(group) for group in (self.drained, self.applied, self.waiting, self.expired))

    @property
    def is_over(self) -> bool:
        """Return whether there is nothing left to wait for."""
        return (
            self.looked
            and not self.pending
            and self.trusted_in <= 0
            and self.expected in (None, self.count)
        )

    @property
    def ok(self) -> bool:
        """Return whether it is proved.

        There are workers, all have followed, and none that vanished can still be serving otherwise.
        """
        return self.is_over and not self.unfenced and (self.count > 0 or self.expected == 0)

    def groups(self) -> Iterator[tuple[str, tuple[Worker, ...]]]:
        """Group the workers by status; the unfenced ones are among the expired, too."""
        for name in ("drained", "applied", "waiting", "expired", "unfenced"):
            yield name, getattr(self, name)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values, always with the same keys."""
        groups = {name: [worker.to_json() for worker in group] for name, group in self.groups()}
        return {
            "ok": self.ok,
            "elapsed": round(self.elapsed, 3),
            "trusted_in": round(self.trusted_in, 3),
            "expected": self.expected,
            "state": self.state.model_dump(mode="json"),
            **groups,
            "joined": [worker.id for worker in self.joined],
        }

    def check(self, *, strict: bool = True) -> None:
        """Raise `DrainTimeout` or, if `strict`, `UnfencedError` unless it is proved.

        Both name the workers.
        """
        trouble = f" {self.trouble}" if self.trouble else ""
        if trouble and self.looked:
            trouble = f" The registry cannot be read any more:{trouble}"
        if not self.looked:
            missing = "The registry could not be read in time, so nothing is known of the workers."
        elif self.pending:
            missing = f"After {self.elapsed:.1f} s still waited for: {names_of(self.pending)}."
        elif self.trusted_in > 0:
            missing = (
                "The registry of workers is young, has lost data a moment ago, or all of its "
                "workers have just connected; there may be "
                f"others. Wait {self.trusted_in:.1f} s, and try again."
            )
        elif self.expected not in (None, self.count):
            missing = (
                f"Expected workers: {self.expected}; registered: {self.count}. "
                "Start or stop the others."
            )
        elif not self.count and self.expected is None:
            raise UnfencedError(
                "No worker is registered, so nothing is proved. Check the backend's URL and its "
                "key; where no worker runs, say so with --expect 0 (in code: expect=0).",
                self,
            )
        elif strict and self.unfenced:
            raise UnfencedError(
                f"These workers vanished and may still be serving: {names_of(self.unfenced)}. "
                "Make sure that they are dead, then run "
                "`fastapi-maintenance workers forget` with their ids or hosts.",
                self,
            )
        else:
            return
        raise DrainTimeout(f"{missing}{trouble}", self)


class Barrier:
    """Remembers every worker that was seen since the beginning, and says where each stands. Pure.

    Times are seconds on the observer's own clock, and only those count: no worker is over because
    of what any other clock says. `epoch` is the one that the barrier itself made: who has applied
    it, or a later one, has read a state at least as new. With a `component`, it is about the routes
    of that alone; where no live worker has any, all are waited for, as the name may be wrong.
    """

    def __init__(
        self,
        begun: RegistrySnapshot,
        *,
        drained: bool,
        component: str | None = None,
        expect: int | None = None,
    ) -> None:
        self._scope = component
        self._drained = drained
        self._expect = expect
        self._first = {worker.id for worker in begun.workers}
        # Each with since when it has not reported.
        self._known: dict[str, tuple[Worker, float]] = {}
        self._generation = ""
        self._registered: set[str] = set()  # in that generation
        self.begin(begun, 0.0)

    def begin(self, begun: RegistrySnapshot, now: float) -> None:
        """Begin, or begin anew where the data were lost."""
        self.epoch = begun.reading.epoch
        self._generation_since = now

    def observe(self, roll: RegistrySnapshot, now: float) -> BarrierResult:
        """Take a roll call into account."""
        self._remember(roll, now)
        lifetime = max([roll.lifetime, *(worker.lifetime for worker, _ in self._known.values())])
        present = [worker for worker, _ in self._known.values()]
        settled = self._is_settled(present, roll, lifetime)
        # A former owner of the switch may have kept a worker open until it saw that it was cut off.
        settling = 0.0 if settled else roll.settling
        expired = [
            worker
            for worker, since in self._known.values()
            if now - since >= max(worker.lifetime, roll.lifetime) + settling
        ]
        live = [*_without(present, expired)]
        if self._scope is not None:
            live, expired = (
                _in_component(self._scope, live),
                [worker.in_component(self._scope) for worker in expired],
            )
        state = evaluate(roll.reading, roll.reading.now, self._scope).state
        # A worker may know the state and be open all the same, if its enable_maintenance says so:
        # it has not applied it.
        applied = [worker for worker in live if self._has_applied(worker, state)]
        drained = [worker for worker in applied if worker.drained or not state.enabled]
        trusted_in = max(0.0, lifetime + roll.settling - (now - self._generation_since))
        return BarrierResult(
            state=state,
            drained=tuple(drained),
            applied=_without(applied, drained),
            waiting=_without(live, applied),
            expired=tuple(expired),
            unfenced=tuple(
                worker for worker in expired if not self._is_surely_closed(worker, state)
            ),
            joined=tuple(worker for worker in present if worker.id not in self._first),
            trusted_in=0.0 if settled else trusted_in,
            elapsed=now,
            wants_drained=self._drained,
            expected=self._expect,
            looked=True,
        )

    def _remember(self, roll: RegistrySnapshot, now: float) -> None:
        if roll.generation == self._generation:
            # Within one generation, a worker is missing only if it left, or is proved gone.
            for id in self._registered.difference(worker.id for worker in roll.workers):
                del self._known[id]
        else:
            self._generation, self._generation_since = roll.generation, now
        self._registered = {worker.id for worker in roll.workers}
        for worker in roll.workers:
            before, since = self._known.get(worker.id, (None, now))
            if before is None or not (worker.vanished or worker.sequence == before.sequence):
                self._known[worker.id] = worker, now
            elif worker.vanished:  # its last report counts for what it said
                self._known[worker.id] = replace(before, vanished=True), since

    def _has_applied(self, worker: Worker, state: MaintenanceState) -> bool:
        return worker.epoch >= self.epoch and (worker.closed or not state.enabled)

    def _is_surely_closed(self, worker: Worker, state: MaintenanceState) -> bool:
        """Return whether a worker that vanished is harmless.

        Its fence stops no request that was let in before.
        """
        if not worker.is_fenced:
            return False
        return not (self._drained and state.enabled) or (
            self._has_applied(worker, state) and worker.drained
        )

    def _is_settled(
        self, present: Iterable[Worker], roll: RegistrySnapshot, lifetime: float
    ) -> bool:
        """Return whether a worker has seen this registry for a whole lifetime.

        It says so after the barrier began: before a failover it may have been another server's
        registry that it saw.
        """
        return any(
            worker.epoch >= self.epoch
            and worker.generation == roll.generation
            and worker.known_for >= lifetime + roll.settling
            for worker in present
        )


async def wait_until_applied(
    backend: str | BaseStateBackend | None = None,
    *,
    component: str | None = None,
    drained: bool = False,
    timeout: float = 30.0,
    expect: int | None = None,
    progress: Callable[[BarrierResult], object] | None = None,
) -> BarrierResult:
    """Wait until every live worker has applied the current state, on or off.

    With `drained`, also until no request is in flight that a closed service would refuse. Workers
    that start meanwhile are waited for too. With `component`, all this is about its routes alone,
    which some live worker must have. With `expect`, also until there are exactly so many workers;
    without it there must be one at least. `timeout` is in seconds; `progress` is called whenever
    something has changed. The result's `ok` says whether it is proved, its `check()` raises if not.
    Raises `UnsupportedError` where the backend has no registry of workers; a backend that cannot be
    reached is tried again until the time is over.
    """
    registry = registry_of(backend, component)
    started = time.monotonic()
    deadline = started + positive("timeout", timeout)
    barrier: Barrier | None = None
    result = BarrierResult(wants_drained=drained)
    pause = _FIRST_LOOK
    while True:
        left = max(0.05, deadline - time.monotonic())
        try:
            async with asyncio.timeout(left):  # wait_for may swallow a cancellation before 3.12
                roll = await _look(registry, barrier, started)
        except UnsupportedError:
            raise
        except (BackendError, TimeoutError) as error:
            too_late = (
                isinstance(error, TimeoutError)
                and (result.looked or bool(result.trouble))
                and left < _UNHURRIED
            )
            result = replace(
                result,
                trouble=result.trouble if too_late else error_text(error),
                elapsed=time.monotonic() - started,
            )
        else:
            barrier = barrier or Barrier(roll, drained=drained, component=component, expect=expect)
            before, result = result, barrier.observe(roll, time.monotonic() - started)
            if progress is not None and _statuses(result) != _statuses(before):
                progress(result)
        if result.is_over or time.monotonic() + pause >= deadline:
            return result
        await asyncio.sleep(pause)
        pause = min(_SLOWEST_LOOK, pause * 1.5)


async def registered_workers(backend: str | BaseStateBackend | None = None) -> tuple[Worker, ...]:
    """Return the live workers.

    Raises `UnsupportedError` for a backend without registry, else `BackendError`.
    """
    roll = await registry_of(backend).read_registry()
    return tuple(worker for worker in roll.workers if not worker.vanished)


async def forget_workers(registry: WorkerRegistry, names: Collection[str]) -> tuple[Worker, ...]:
    """Forget the workers of these ids or hosts that vanished, and return them.

    Raises `BackendError` where that fails.
    """
    roll = await registry.read_registry()
    gone = tuple(
        worker
        for worker in roll.workers
        if worker.vanished and not {worker.id, worker.host}.isdisjoint(names)
    )
    if gone:
        await registry.forget([worker.id for worker in gone])
    return gone


async def _look(
    registry: WorkerRegistry, barrier: Barrier | None, started: float
) -> RegistrySnapshot:
    """Begin a barrier or call the roll.

    Begin anew where the epoch was lost, or rolled back beyond where the barrier began.
    """
    roll = await (registry.begin_barrier() if barrier is None else registry.read_registry())
    if barrier is not None and roll.reading.epoch < barrier.epoch:
        roll = await registry.begin_barrier()
        barrier.begin(roll, time.monotonic() - started)
    if not roll.confirmed:
        raise BackendUnavailableError(
            "Only a minority of the Sentinels names this server, so another one may own the switch."
        )
    return roll


def registry_of(
    backend: str | BaseStateBackend | None, component: str | None = None
) -> WorkerRegistry:
    """Return the backend, if workers register there. Raises `UnsupportedError` if they do not."""
    registry = current_backend(backend)
    if not isinstance(registry, WorkerRegistry):
        raise UnsupportedError(
            f"{registry.describe()} has no registry of workers; the barrier needs Redis."
        )
    if component is not None:
        registry.follow_components([component])
    return registry


def _in_component(component: str, live: Sequence[Worker]) -> list[Worker]:
    if any(component in worker.components for worker in live):
        return [worker.in_component(component) for worker in live]
    return [replace(worker, closed=False, epoch=0) for worker in live]


def _without(workers: Iterable[Worker], others: Iterable[Worker]) -> tuple[Worker, ...]:
    ids = {worker.id for worker in others}
    return tuple(worker for worker in workers if worker.id not in ids)


def _statuses(result: BarrierResult) -> object:
    groups = result.drained, result.applied, result.waiting, result.expired, result.joined
    return (
        result.state,
        result.trusted_in > 0,
        [[(worker.id, worker.http, worker.websockets) for worker in group] for group in groups],
    )


def names_of(workers: Iterable[Worker]) -> str:
    """Return the names of workers, with the number of requests in flight where there are any."""
    return ", ".join(map(_name_with_load, workers))


def _name_with_load(worker: Worker) -> str:
    counts = (worker.http, "requests"), (worker.websockets, "WebSockets")
    load = ", ".join(f"{count} {noun}" for count, noun in counts if count)
    return f"{worker.name} ({load})" if load else worker.name
