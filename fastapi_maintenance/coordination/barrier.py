"""The barrier: wait until every live worker has applied the state, and drained if asked to."""

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
# A read that had less time and was cut off is no sign of an unreachable registry.
_UNHURRIED: Final = 1.0


@dataclass(frozen=True, slots=True)
class BarrierResult:
    """The status of every worker at the end of a wait, or during it.

    Each worker is in one of four groups. `drained` workers have applied the state and have no
    request in flight. `applied` workers have applied it, with earlier requests in flight. `waiting`
    workers have not applied it. `expired` workers have not reported for a lifetime of the registry;
    `unfenced` are those of them that may still be serving. `joined` are the workers that started
    during the wait.

    `state` is the effective state, as last read. `elapsed` is in seconds. `trouble` is the error of
    the last read, if it failed. In `trusted_in` seconds, the registry will be complete: a young one
    may not list every worker yet.
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
        """The live workers that the wait is waiting for."""
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
        """Return whether it is proved that every worker has followed.

        Workers are registered, all have followed, and no vanished worker may still be serving.
        """
        return self.is_over and not self.unfenced and (self.count > 0 or self.expected == 0)

    def groups(self) -> Iterator[tuple[str, tuple[Worker, ...]]]:
        """Yield the workers by status. The unfenced ones are among the expired, too."""
        for name in ("drained", "applied", "waiting", "expired", "unfenced"):
            yield name, getattr(self, name)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values, always with the same keys."""
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
        """Raise `DrainTimeout`, or `UnfencedError` if `strict`, unless the result is `ok`.

        Both errors name the workers.
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
    """Knows every worker since the beginning of a wait, and its status. Pure.

    Times are seconds on the observer's own clock; no other clock proves that a worker is gone.
    `epoch` is that of the barrier: a worker that has applied it, or a later one, has read a state
    at least as new. With a `component`, only its routes count. If no live worker has any, the name
    may be wrong, so the wait does not end.
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
        # Each worker with the time of its last report.
        self._known: dict[str, tuple[Worker, float]] = {}
        self._generation = ""
        self._registered: set[str] = set()  # in that generation
        self.begin(begun, 0.0)

    def begin(self, begun: RegistrySnapshot, now: float) -> None:
        """Begin, or begin again after the data were lost."""
        self.epoch = begun.reading.epoch
        self._generation_since = now

    def observe(self, roll: RegistrySnapshot, now: float) -> BarrierResult:
        """Take a snapshot of the registry into account, and return the result so far."""
        self._remember(roll, now)
        lifetime = max([roll.lifetime, *(worker.lifetime for worker, _ in self._known.values())])
        present = [worker for worker, _ in self._known.values()]
        settled = self._is_settled(present, roll, lifetime)
        # A former owner of the switch may have kept a worker open until it noticed the partition.
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
        # A worker may have read the state and be open because of its enable_maintenance.
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
            elif worker.vanished:  # its last report still counts
                self._known[worker.id] = replace(before, vanished=True), since

    def _has_applied(self, worker: Worker, state: MaintenanceState) -> bool:
        return worker.epoch >= self.epoch and (worker.closed or not state.enabled)

    def _is_surely_closed(self, worker: Worker, state: MaintenanceState) -> bool:
        """Return whether a vanished worker cannot be serving.

        Its fence stops no request that was admitted before.
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

        Only a report after the beginning of the barrier counts. An earlier one may be about the
        registry of another server, before a failover.
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

    With `drained`, the wait also lasts until no request is in flight that a closed service refuses.
    It includes workers that start during the wait. With `component`, only the routes of that
    component count, and a live worker must have some. With `expect`, exactly this number of workers
    must be registered; otherwise at least one. `timeout` is in seconds. `progress` is called with
    the result so far whenever something has changed.

    Check the result with `ok`, or with `check()`, which raises. An unreachable backend is read
    again until the timeout. Raises `UnsupportedError` if the backend has no registry of workers.
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
    """Return the live workers. Raises `BackendError`."""
    roll = await registry_of(backend).read_registry()
    return tuple(worker for worker in roll.workers if not worker.vanished)


async def forget_workers(registry: WorkerRegistry, names: Collection[str]) -> tuple[Worker, ...]:
    """Forget the vanished workers with these ids or hosts, and return them.

    Raises `BackendError`.
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
    """Begin a barrier, or read the registry.

    Begin again if the epoch is lost, or rolled back to one before the barrier.
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
    """Return the backend if workers register in it. Raises `UnsupportedError` otherwise."""
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
