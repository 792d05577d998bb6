"""The barrier: wait until every live worker has applied the current state and, if asked, drained."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from .._internal.logging import error_text
from .._internal.validation import positive
from ..backends import BaseStateBackend
from ..backends.base import WorkerRegistry
from ..exceptions import BackendError, DrainTimeout, UnfencedError, UnsupportedError
from ..model.evaluate import evaluate
from ..model.state import OFF, MaintenanceState
from ..model.workers import RegistrySnapshot, Worker
from ..runtime.current import current_backend

__all__ = ["Barrier", "BarrierResult", "registered_workers", "wait_until_applied"]

_FIRST_LOOK: Final = 0.01  # seconds after the beginning
_SLOWEST_LOOK: Final = 0.2
_UNHURRIED: Final = (
    1.0  # a look that had less and was cut off says nothing of the registry: it came too late
)


@dataclass(frozen=True, slots=True)
class BarrierResult:
    """Where every worker stands. Each is in one of the first four; `joined` names those that came while waiting.

    `drained` have applied the state and have nobody in flight; `applied` have requests in flight that were let in before;
    `waiting` have not applied it; `expired` the registry has lost, and of these `unfenced` could still be serving.
    `state` is the effective state when last looked at, `elapsed` is in seconds, `trouble` is why the last look failed.
    For `settles_in` seconds more there may be others: the registry is young, and those whom it has forgotten were not fenced yet.
    """

    state: MaintenanceState = OFF
    drained: tuple[Worker, ...] = ()
    applied: tuple[Worker, ...] = ()
    waiting: tuple[Worker, ...] = ()
    expired: tuple[Worker, ...] = ()
    joined: tuple[Worker, ...] = ()
    settles_in: float = 0.0
    elapsed: float = 0.0
    wants_drained: bool = False
    looked: bool = False
    trouble: str = ""

    @property
    def unfenced(self) -> tuple[Worker, ...]:
        """The expired workers of which it is not proved that they have closed themselves."""
        return tuple(worker for worker in self.expired if not worker.is_fenced)

    @property
    def pending(self) -> tuple[Worker, ...]:
        """The live workers that are still waited for."""
        return (*self.waiting, *self.applied) if self.wants_drained else self.waiting

    @property
    def is_over(self) -> bool:
        """Whether there is nobody left to wait for."""
        return self.looked and not self.pending and self.settles_in <= 0

    @property
    def ok(self) -> bool:
        """Whether it is proved: nobody is waited for, and nobody who vanished can still be serving otherwise."""
        return self.is_over and not self.unfenced

    def groups(self) -> Iterator[tuple[str, tuple[Worker, ...]]]:
        """The workers by where they stand; the unfenced ones are among the expired, too."""
        for name in ("drained", "applied", "waiting", "expired", "unfenced"):
            yield name, getattr(self, name)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values, always with the same keys."""
        groups = {name: [worker.to_json() for worker in group] for name, group in self.groups()}
        times = {"elapsed": round(self.elapsed, 3), "settles_in": round(self.settles_in, 3)}
        return {
            "ok": self.ok,
            **times,
            "state": self.state.model_dump(mode="json"),
            **groups,
            "joined": [one.id for one in self.joined],
        }

    def check(self, *, strict: bool = True) -> None:
        """Raise `DrainTimeout` or, if `strict`, `UnfencedError` unless it is proved. Both name the workers."""
        if not self.looked:
            raise DrainTimeout(
                f"The registry could not be read in time, so nothing is known of the workers. {self.trouble}".rstrip(),
                self,
            )
        cut_off = f" The registry cannot be read any more: {self.trouble}" if self.trouble else ""
        if self.pending:
            raise DrainTimeout(
                f"After {self.elapsed:.1f} s still waited for: {_names(self.pending)}.{cut_off}",
                self,
            )
        if self.settles_in > 0:
            raise DrainTimeout(
                "The registry of workers has lost its data a moment ago, or never had any; some may be serving of whom it does not know. "
                f"Wait {self.settles_in:.1f} s, and try again.{cut_off}",
                self,
            )
        if strict and self.unfenced:
            raise UnfencedError(
                f"These workers vanished and may still be serving: {_names(self.unfenced)}. Make sure that they are dead; "
                "with on_unreachable='closed' they would surely be closed by now.",
                self,
            )


class Barrier:
    """Remembers every worker that was seen since the beginning, and says where each stands. Pure.

    `epoch` is the one that the barrier itself made: who has applied it, or a later one, has read a state at least as new.
    With a `component`, it is about the routes of that alone; where no live worker has any, all are waited for, as the name may be wrong.
    """

    def __init__(
        self, begun: RegistrySnapshot, *, drained: bool, component: str | None = None
    ) -> None:
        self._scope = component
        self.epoch = begun.reading.epoch
        self._drained = drained
        self._first = {worker.id for worker in begun.workers}
        self._known: dict[str, Worker] = {}

    def observe(self, roll: RegistrySnapshot, elapsed: float) -> BarrierResult:
        """Take a roll call into account."""
        now = roll.reading.now
        # A worker that leaves says so, and keeps its place for a while. One that is simply missing was lost with the
        # registry's data; it will register again, or its last known deadline decides.
        self._known |= {worker.id: worker for worker in roll.workers}
        present = [worker for worker in self._known.values() if not worker.left]
        live = [worker for worker in present if now < worker.deadline]
        if self._scope is not None:
            live = _in_component(self._scope, live)
        state = evaluate(roll.reading, now, self._scope).state
        # A worker may know the state and be open all the same, if its enable_maintenance says so: it has not applied it.
        applied = [
            worker
            for worker in live
            if worker.epoch >= self.epoch and (worker.closed or not state.enabled)
        ]
        drained = [worker for worker in applied if worker.drained or not state.enabled]
        return BarrierResult(
            state=state,
            drained=tuple(drained),
            applied=_without(applied, drained),
            waiting=_without(live, applied),
            expired=_without(present, live),
            joined=tuple(worker for worker in present if worker.id not in self._first),
            settles_in=roll.settles_in,
            elapsed=elapsed,
            wants_drained=self._drained,
            looked=True,
        )


async def wait_until_applied(
    backend: str | BaseStateBackend | None = None,
    *,
    component: str | None = None,
    drained: bool = False,
    timeout: float = 30.0,
    progress: Callable[[BarrierResult], None] | None = None,
) -> BarrierResult:
    """Wait until every live worker has applied the current state, on or off, whoever made it and however.

    With `drained`, also until no request is in flight that a closed service would refuse. Workers that start meanwhile are
    waited for too. With `component`, all this is about its routes alone, which some live worker must have.
    `timeout` is in seconds; `progress` is called whenever something has changed.
    The result's `ok` says whether it is proved, its `check()` raises if not. Raises `UnsupportedError` where the backend has
    no registry of workers; a backend that cannot be reached is tried again until the time is over.
    """
    registry = _registry(backend, component)
    started = time.monotonic()
    deadline = started + positive("timeout", timeout)
    barrier: Barrier | None = None
    result = BarrierResult(wants_drained=drained)
    pause = _FIRST_LOOK
    while True:
        left = max(0.05, deadline - time.monotonic())
        try:
            roll = await asyncio.wait_for(_look(registry, barrier), left)
        except UnsupportedError:
            raise
        except (BackendError, TimeoutError) as error:
            too_late = isinstance(error, TimeoutError) and result.looked and left < _UNHURRIED
            result = replace(
                result,
                trouble=result.trouble if too_late else error_text(error),
                elapsed=time.monotonic() - started,
            )
        else:
            barrier = barrier or Barrier(roll, drained=drained, component=component)
            before, result = result, barrier.observe(roll, time.monotonic() - started)
            if progress is not None and _standings(result) != _standings(before):
                progress(result)
        if result.is_over or time.monotonic() + pause >= deadline:
            return result
        await asyncio.sleep(pause)
        pause = min(_SLOWEST_LOOK, pause * 1.5)


async def registered_workers(backend: str | BaseStateBackend | None = None) -> tuple[Worker, ...]:
    """The live workers. Raises `UnsupportedError` where the backend has no registry, `BackendError` where it fails."""
    roll = await _registry(backend).read_registry()
    return tuple(
        worker for worker in roll.workers if not worker.left and roll.reading.now < worker.deadline
    )


async def _look(registry: WorkerRegistry, barrier: Barrier | None) -> RegistrySnapshot:
    """Begin a barrier or call the roll; begin anew where the epoch was lost, or rolled back beyond where the barrier began."""
    if barrier is None:
        return await registry.begin_barrier()
    roll = await registry.read_registry()
    if roll.reading.epoch < barrier.epoch:
        roll = await registry.begin_barrier()
        barrier.epoch = roll.reading.epoch
    return roll


def _registry(
    backend: str | BaseStateBackend | None, component: str | None = None
) -> WorkerRegistry:
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


def _standings(result: BarrierResult) -> object:
    groups = result.drained, result.applied, result.waiting, result.expired, result.joined
    return (
        result.state,
        result.settles_in > 0,
        [[(worker.id, worker.http, worker.websockets) for worker in group] for group in groups],
    )


def _names(workers: Iterable[Worker]) -> str:
    return ", ".join(
        f"{worker.name} ({worker.http} requests, {worker.websockets} WebSockets)"
        if worker.http or worker.websockets
        else worker.name
        for worker in workers
    )
