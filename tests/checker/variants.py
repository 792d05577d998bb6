"""Broken variants: each takes one rule of the proof away, and the checker must notice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from fastapi_maintenance.backends.redis import backend as redis_backend
from fastapi_maintenance.backends.redis.replies import ScriptReply
from fastapi_maintenance.backends.redis.sentinel import SentinelServer
from fastapi_maintenance.coordination.barrier import Barrier, BarrierResult
from fastapi_maintenance.model.workers import RegistrySnapshot, Worker
from fastapi_maintenance.runtime.gate import SnapshotCache
from fastapi_maintenance.runtime.mode import MaintenanceMode
from fastapi_maintenance.runtime.requests import InFlightRequest

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Variant:
    """A rule that is taken away by `patch`: from the workers, or from the observer.

    `favours` multiplies the weights of the actions that show it.
    """

    rule: str
    patch: Patch
    favours: Mapping[str, float] = field(default_factory=dict)
    observer: bool = False
    sentinels: bool = False

    def apply(self) -> None:
        """Break a worker, for the life of its process."""
        if not self.observer:
            self.patch(pytest.MonkeyPatch())

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Break the observer, in this process."""
        with pytest.MonkeyPatch.context() as patch:
            if self.observer:
                self.patch(patch)
            yield


# -- of workers ------------------------------------------------------------------------------------


def _fence_never_closes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SnapshotCache, "confirmed_at", lambda self, now: now)


def _open_without_rights(patch: pytest.MonkeyPatch) -> None:
    confirmed_at = SnapshotCache.confirmed_at

    def without_fence(self: SnapshotCache, now: float) -> float:
        at = confirmed_at(self, now)
        return now if self.known and at == -math.inf else at

    patch.setattr(SnapshotCache, "confirmed_at", without_fence)


def _reports_ahead(patch: pytest.MonkeyPatch) -> None:
    report = MaintenanceMode.report
    ahead = {"closed": True, "drained": True, "epoch": 10**17}
    patch.setattr(MaintenanceMode, "report", lambda self: {**report(self), **ahead})


def _follows_lost_data(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ScriptReply, "is_lost_in", lambda self, later: False)


def _first_restorer_decides(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ScriptReply, "is_restored_since", lambda self, earlier: False)


def _components_do_not_drain(patch: pytest.MonkeyPatch) -> None:
    counts = MaintenanceMode._counts

    def of_no_component(self: MaintenanceMode, gate: Any, component: Any = None) -> Any:
        found = counts(self, gate, component)
        return found if component is None else {**found, "drained": found["closed"], "http": 0}

    patch.setattr(MaintenanceMode, "_counts", of_no_component)


def _strays_do_not_drain(patch: pytest.MonkeyPatch) -> None:
    blocks = InFlightRequest.blocks_drain

    def only_found(self: InFlightRequest, gate: Any, component: Any = None) -> bool:
        return blocks(self, gate, component) and (self.route is None or self.route.found)

    patch.setattr(InFlightRequest, "blocks_drain", only_found)


def _minority_confirms(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SentinelServer, "confirmed_at", lambda self, peer: float("inf"))


# -- of the observer -------------------------------------------------------------------------------


def _silence_is_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    observe = Barrier.observe

    def hastily(self: Barrier, roll: RegistrySnapshot, now: float) -> BarrierResult:
        return observe(self, roll, now * 50)

    patch.setattr(Barrier, "observe", hastily)


def _first_sight_counts(patch: pytest.MonkeyPatch) -> None:
    remember = Barrier._remember

    def trusting(self: Barrier, roll: RegistrySnapshot, now: float) -> None:
        remember(self, roll, now)
        for id, (worker, _) in self._known.items():
            if worker.vanished:
                self._known[id] = worker, now - 60

    patch.setattr(Barrier, "_remember", trusting)


def _vanished_counts_as_drained(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Barrier, "_is_surely_closed", lambda self, worker, state: worker.is_fenced)


def _every_fence_is_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Worker, "is_fenced", property(lambda self: self.fence is not None))


def _lost_registry_is_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Barrier, "_is_settled", lambda self, *seen: True)


def _empty_registry_proves(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        BarrierResult, "ok", property(lambda result: result.is_over and not result.unfenced)
    )


def _vanished_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    call_roll = redis_backend.RedisBackend._call_roll

    async def forgetful(self: Any, step: str) -> RegistrySnapshot:
        roll = await call_roll(self, step)
        return replace(roll, workers=tuple(one for one in roll.workers if not one.vanished))

    patch.setattr(redis_backend.RedisBackend, "_call_roll", forgetful)


def _silence_proves_death(patch: pytest.MonkeyPatch) -> None:
    async def all_of_them(workers: Any, process: Any = None) -> list[str]:
        return [worker.id for worker in workers if worker.vanished]

    patch.setattr(redis_backend, "proved_gone", all_of_them)


_CUT: Final = {"cut off": 20.0, "barrier": 5.0}
_DRAINING: Final = {"cut off": 15.0, "request": 15.0, "drained barrier": 5.0}
_OUTLIVING: Final = {"cut off": 40.0, "request": 40.0, "drained barrier": 20.0, "hold": 0.1}

VARIANTS: Final = {
    "fence": Variant("a worker closes itself when cut off", _fence_never_closes, _CUT),
    "silence": Variant(
        "silence is waited for, longer than a fence takes",
        _silence_is_not_waited_for,
        _CUT,
        observer=True,
    ),
    "first sight": Variant(
        "silence counts from when the observer first saw it",
        _first_sight_counts,
        {"barrier": 5.0, "cut off": 15.0, "lose reports": 40.0},
        observer=True,
    ),
    "long fence": Variant(
        "a fence longer than the registry's lifetime is none",
        _every_fence_is_believed,
        {"barrier": 5.0, "start with a long fence": 30.0, "cut off": 15.0},
        observer=True,
    ),
    "vanished": Variant(
        "a worker that vanished has drained only if it said so",
        _vanished_counts_as_drained,
        _OUTLIVING,
        observer=True,
    ),
    "forgotten": Variant(
        "a worker that vanished stays known", _vanished_are_forgotten, _OUTLIVING, observer=True
    ),
    "dead": Variant(
        "only a process that is dead is gone", _silence_proves_death, _DRAINING, observer=True
    ),
    "ahead": Variant("a report says what was read before it", _reports_ahead, _CUT),
    "rights": Variant(
        "a worker that may not register closes itself",
        _open_without_rights,
        {"barrier": 5.0, "start without rights": 30.0, "cut off": 15.0},
    ),
    "empty": Variant(
        "an empty registry proves nothing",
        _empty_registry_proves,
        {"mistyped barrier": 20.0},
        observer=True,
    ),
    "lost": Variant(
        "a lost registry is waited for",
        _lost_registry_is_believed,
        {"barrier": 5.0, "lose registry": 20.0, "cut off": 15.0},
        observer=True,
    ),
    "data": Variant(
        "workers restore lost data",
        _follows_lost_data,
        {"flush": 10.0, "restart redis": 4.0, "roll back redis": 10.0},
    ),
    "newest": Variant(
        "newer knowledge corrects a restored state",
        _first_restorer_decides,
        {"strand": 30.0, "barrier": 5.0},
    ),
    "component": Variant(
        "requests of a component are counted for it",
        _components_do_not_drain,
        {"drained component barrier": 5.0, "close component": 10.0, "request": 10.0},
    ),
    "stray": Variant(
        "requests without a route are counted",
        _strays_do_not_drain,
        {"drained barrier": 5.0, "cut off": 0.2, "request": 10.0},
    ),
    "minority": Variant(
        "only a majority of the Sentinels confirms a report",
        _minority_confirms,
        {"isolate master": 20.0, "cut off": 20.0, "barrier": 5.0},
        sentinels=True,
    ),
}
