"""8. What a worker does from a flip on, by function."""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from types import FunctionType
from typing import Any, Final, cast

from redis.asyncio.connection import AbstractConnection

from fastapi_maintenance import MaintenanceMode, MaintenanceModeMiddleware
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.connection import RedisConnection
from fastapi_maintenance.backends.redis.replies import read_natively
from fastapi_maintenance.backends.redis.sync import Sync
from tests.support.servers import RedisServer

from .crew import Switch
from .progress import say
from .subjects import living, make
from .table import table

__all__ = ["TITLE", "measure", "plots", "report"]

TITLE: Final = "A worker in a flip"
_LINKS: Final = 40
_FLIPS: Final = 40
_PAUSE: Final = 0.15  # seconds, in which the second sync of all of them is over too
_TTL: Final = 60.0  # seconds: no poll is profiled
_WHAT: Final = f"""\
{_LINKS} workers in one process, over {_FLIPS} flips by a bare `SET`, with the second sync that tells the barrier; no requests and no polls. Shares of the
processor time of that process, each with what it calls, by cProfile, under which whatever calls a lot looks dearer than it is."""
_PIECES: Final[Mapping[str, tuple[Callable[..., object], ...]]] = {
    "the report, and packing it": (
        cast("Callable[..., object]", Sync._registering),
        AbstractConnection.pack_commands,
    ),
    "sending (redis-py, asyncio)": (AbstractConnection.send_packed_command,),
    "taking and parsing the reply (redis-py, asyncio)": (RedisConnection._read_one,),
    "reading a state out of it": (read_natively,),
    "learning it, and judging": (MaintenanceMode.update,),
}


def measure() -> dict[str, Any]:
    """Profile, once."""
    say(f"{_LINKS} workers, {_FLIPS} flips")
    with RedisServer() as server:
        return {"shares": asyncio.run(_shares(server))}


async def _shares(server: RedisServer) -> dict[str, float]:
    switch = Switch(server)
    workers = [
        MaintenanceModeMiddleware(make("bare"), backend=RedisBackend(server.url, ttl=_TTL))
        for _ in range(_LINKS)
    ]
    profile = cProfile.Profile(time.thread_time)  # in which waiting takes no time
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(living(worker)) for worker in workers))
        await asyncio.sleep(1)
        profile.enable()
        for number in range(_FLIPS):
            on = number % 2 == 0
            switch.set(on)
            while any((worker.mode.gate.closure is not None) is not on for worker in workers):
                await asyncio.sleep(0.01)
            await asyncio.sleep(_PAUSE)
        profile.disable()
    switch.close()
    stats: Any = pstats.Stats(profile)
    return {
        name: sum(_cumulative(stats, function) for function in functions) / stats.total_tt
        for name, functions in _PIECES.items()
    }


def _cumulative(stats: Any, function: Callable[..., object]) -> float:
    """Seconds in a function and in what it calls. Raises `KeyError` where it was never called."""
    code = cast("FunctionType", function).__code__
    seconds: float = stats.stats[code.co_filename, code.co_firstlineno, code.co_name][3]
    return seconds


def report(figures: Mapping[str, Any]) -> str:
    """The table."""
    shares = figures["shares"]
    rows = [
        [name, f"{share:.0%}"]
        for name, share in [
            *shares.items(),
            ("asyncio's turns, and all else", 1 - sum(shares.values())),
        ]
    ]
    return "\n\n".join([_WHAT, table(["", "of its processor time"], rows)])


def plots(figures: Mapping[str, Any]) -> dict[str, str]:
    """None."""
    return {}
