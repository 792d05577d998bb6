"""The load of workers on Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from fastapi_maintenance import MaintenanceModeMiddleware
from tests.support.servers import RedisServer

from .measuring import processor_time, say
from .subjects import batch, living, make, scope_of
from .workers import Switch, WorkerPool, run_workers

WORKERS: Final = 100
_WINDOW: Final = 10.0  # seconds
_FLIPS: Final = 6
MANY: Final = 2000
MANY_TTL: Final = 10.0  # seconds: two processors cannot also be two thousand machines
PROJECTED: Final = 10_000
_REQUESTS: Final = 20_000
_OWN: Final = ("info", "hello", "auth", "select", "client|setinfo")  # of the look itself


def load() -> dict[str, Any]:
    """Idle, flipping, with requests, and many."""
    figures: dict[str, Any] = {}
    with RedisServer() as server:
        before = _look(server)
        with WorkerPool(run_workers, server, WORKERS) as workers:
            say(f"{WORKERS} idle workers for {_WINDOW:g} s")
            time.sleep(2)
            # One is the pool's own.
            figures["connections"] = (
                _look(server)["connections"] - before["connections"] - 1
            ) / WORKERS
            figures["idle"] = _over(server, _WINDOW)
            say(f"{_FLIPS} flips of {WORKERS} workers")
            start, at = _look(server), time.monotonic()
            for number in range(_FLIPS):
                workers.flip(number % 2 == 0)
                time.sleep(0.5)
            took = time.monotonic() - at
            figures["flip"] = {
                name: (count - figures["idle"][name] * took) / _FLIPS
                for name, count in _minus(_look(server), start).items()
            }
    with RedisServer() as server:
        say(f"{_REQUESTS} requests")
        figures["requests"] = asyncio.run(_requests(server))
    with RedisServer() as server:
        say(f"{MANY} workers join")
        start, at = _look(server), time.monotonic()
        with WorkerPool(run_workers, server, MANY, ttl=MANY_TTL) as workers:
            joined = _minus(_look(server), start)
            figures["join"] = {"seconds": time.monotonic() - at, "processor": joined["processor"]}
            time.sleep(MANY_TTL)
            say(f"{MANY} idle workers for {2 * MANY_TTL:g} s, ttl {MANY_TTL:g} s")
            figures["many"] = _over(server, 2 * MANY_TTL)
            at, start = time.monotonic(), _look(server)
            workers.flip(True)
            time.sleep(3)
            took = time.monotonic() - at
            figures["many flip"] = {
                name: count - figures["many"][name] * took
                for name, count in _minus(_look(server), start).items()
            }
    return figures


async def _requests(server: RedisServer) -> dict[str, float]:
    """What is sent while one worker serves requests, and in as long a time while it serves none."""
    app = make("bare")
    app.add_middleware(MaintenanceModeMiddleware, backend=server.url)
    async with living(app):
        await asyncio.sleep(1)
        start, at = _look(server), time.monotonic()
        for _ in range(_REQUESTS // 100):
            await batch(app, scope_of("/"), 100)
            await asyncio.sleep(0)
        took, busy = time.monotonic() - at, _minus(_look(server), start)
        start = _look(server)
        await asyncio.sleep(took)
        idle = _minus(_look(server), start)
    return {
        "requests": _REQUESTS,
        "seconds": took,
        "busy": busy["commands"],
        "idle": idle["commands"],
    }


def _over(server: RedisServer, seconds: float) -> dict[str, float]:
    """Per second, over so many."""
    start, at = _look(server), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - at
    return {name: count / took for name, count in _minus(_look(server), start).items()}


def _look(server: RedisServer) -> dict[str, float]:
    """Its counters; asking for them is not counted among the commands."""
    switch = Switch(server)
    info = _fields(switch.info())
    switch.close()
    calls = [
        int(value.split(",")[0].removeprefix("calls="))
        for name, value in info.items()
        if name.startswith("cmdstat_") and name.removeprefix("cmdstat_") not in _OWN
    ]
    return {
        "commands": sum(calls),
        "in": int(info["total_net_input_bytes"]),
        "out": int(info["total_net_output_bytes"]),
        "connections": int(info["connected_clients"]) - 1,
        "processor": processor_time(server.pid),
    }


def _fields(text: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _minus(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after}
