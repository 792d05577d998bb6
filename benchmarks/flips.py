"""How fast a flip reaches workers, what a worker does in one, and when the barrier has proved it."""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from types import FunctionType
from typing import Any, Final, cast

from fastapi_maintenance import MaintenanceModeMiddleware
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.connection import Batch, RedisConnection
from fastapi_maintenance.backends.redis.registration import Registration
from fastapi_maintenance.backends.redis.replies import read_natively
from fastapi_maintenance.coordination.barrier import wait_until_applied
from fastapi_maintenance.runtime.mode import MaintenanceMode
from tests.support.servers import RedisServer

from .measuring import say, spread_of
from .replay import run_floor
from .subjects import living, make
from .workers import Stamps, Switch, WorkerPool, run_workers

_FLIPS: Final = {1: 50, 4: 35, 10: 25, 100: 8, 1000: 3}  # in each block, by the number of links
_BLOCKS: Final = 3
_MANY: Final = 1000  # links
_SLOW_TTL: Final = 10.0  # seconds
_BARRIERS: Final = {4: 20, 20: 12, 100: 6}  # flips, by the number of workers
_PROFILED_LINKS: Final = 40
_PROFILED_FLIPS: Final = 40
_PROFILED_TTL: Final = 60.0  # seconds: no poll is profiled


# -- propagation -----------------------------------------------------------------------------------


def propagation() -> dict[str, Any]:
    """Measure alternating blocks of workers and of the floor."""
    figures: dict[str, Any] = {"links": []}
    with RedisServer() as server:
        for links, flips in _FLIPS.items():
            figures["links"].append({"links": links, **_alternate(server, links, flips)})
    return figures


def _alternate(server: RedisServer, links: int, flips: int) -> dict[str, Any]:
    taken: dict[str, list[Stamps]] = {"ours": [], "floor": []}
    work = {"ours": (0.0, 0.0), "floor": (0.0, 0.0)}
    for block in range(_BLOCKS if links < _MANY else 2):
        say(f"{links} links, block {block + 1}")
        for name, target in (("floor", run_floor), ("ours", run_workers)):
            options = {"ttl": _SLOW_TTL} if name == "ours" and links >= _MANY else {}
            server.cli("SET", "maintenance", "0")
            with WorkerPool(target, server, links, **options) as workers:
                before = workers.processor_time()
                taken[name] += _flip_times(workers, flips)
                after = workers.processor_time()
            redis, all_workers = work[name]
            work[name] = (redis + after[0] - before[0], all_workers + after[1] - before[1])
    share = {name: [spent / 2 / len(taken[name]) for spent in both] for name, both in work.items()}
    return {**{name: _shape(blocks) for name, blocks in taken.items()}, "work": share}


def _flip_times(workers: WorkerPool, count: int) -> list[Stamps]:
    """Return the seconds that each worker took at each closing."""
    taken = []
    for _ in range(count):
        _settle(workers)
        taken.append(workers.flip(True))
        _settle(workers)
        workers.flip(False)
    return taken


def _settle(workers: WorkerPool) -> None:
    """Let workers report to the registry what they have applied."""
    time.sleep(random.uniform(0.02, 0.06) + 0.0015 * workers.links)


def _shape(taken: list[Stamps]) -> dict[str, float]:
    each = spread_of(seconds for flip in taken for seconds in flip)
    everyone = spread_of(max(flip) for flip in taken)
    ends = {"all": everyone.median, "worst": everyone.high, "fastest": everyone.low}
    return {"median": each.median, "p99": each.p99, **ends}


# -- the barrier -----------------------------------------------------------------------------------


def barrier() -> dict[str, Any]:
    """Measure by the number of workers."""
    rows = []
    with RedisServer() as server:
        for number, flips in _BARRIERS.items():
            say(f"{number} workers")
            with WorkerPool(run_workers, server, number) as workers:
                asyncio.run(_wait(server))  # a young registry has to settle first
                proved, applied = [], []
                for _ in range(flips):
                    time.sleep(0.05 + 0.002 * number)
                    sent = workers.switch(True)
                    asyncio.run(_wait(server))
                    proved.append(time.monotonic() - sent)
                    applied.append(max(workers.gather()) - sent)
                    time.sleep(0.05 + 0.002 * number)
                    workers.flip(False)
            rows.append({"workers": number, "proved": _ends(proved), "applied": _ends(applied)})
    return {"rows": rows}


async def _wait(server: RedisServer) -> None:
    result = await wait_until_applied(RedisBackend(server.url), timeout=60)
    if not result.is_over:
        raise RuntimeError(f"the barrier did not end: {result}")


def _ends(seconds: Stamps) -> dict[str, float]:
    spread = spread_of(seconds)
    return {"median": spread.median, "fastest": spread.low, "worst": spread.high}


# -- the profile of a worker -----------------------------------------------------------------------

_PIECES: Final[Mapping[str, tuple[Callable[..., object], ...]]] = {
    "the report, and packing it": (Registration.commands, cast("Callable[..., object]", Batch.of)),
    "sending": (RedisConnection.send,),
    "taking and parsing the replies": (RedisConnection.data_received,),
    "reading a state out of it": (read_natively,),
    "learning it, and judging": (MaintenanceMode.update,),
}


def profile() -> dict[str, Any]:
    """Profile workers in one process."""
    say(f"{_PROFILED_LINKS} workers, {_PROFILED_FLIPS} flips")
    with RedisServer() as server:
        return {"shares": asyncio.run(shares(server))}


async def shares(
    server: RedisServer, *, links: int = _PROFILED_LINKS, flips: int = _PROFILED_FLIPS
) -> dict[str, float]:
    """Return the share of the processor time of each piece, with its callees."""
    switch = Switch(server)
    backends = [RedisBackend(server.url, ttl=_PROFILED_TTL) for _ in range(links)]
    workers = [MaintenanceModeMiddleware(make("bare"), backend=one) for one in backends]
    profiler = cProfile.Profile(time.thread_time)  # in which waiting takes no time
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(living(worker)) for worker in workers))
        await asyncio.sleep(1)
        profiler.enable()
        for number in range(flips):
            on = number % 2 == 0
            switch.set(on)
            while any((worker.mode.gate.closure is not None) is not on for worker in workers):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.15)  # in which the reports are over, too
        profiler.disable()
    switch.close()
    stats: Any = pstats.Stats(profiler)
    codes = {
        name: [cast("FunctionType", function).__code__ for function in functions]
        for name, functions in _PIECES.items()
    }
    return {
        name: sum(stats.stats[c.co_filename, c.co_firstlineno, c.co_name][3] for c in found)
        / stats.total_tt
        for name, found in codes.items()
    }
