"""4. What workers ask of Redis, and what follows for ten thousand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from fastapi_maintenance import MaintenanceModeMiddleware
from tests.support.servers import RedisServer

from .crew import Crew, Switch, ours
from .processes import processor_time
from .progress import say
from .subjects import batch, living, make, scope_of
from .table import milliseconds, table

__all__ = ["TITLE", "measure", "plots", "report"]

TITLE: Final = "Load on Redis"
_WORKERS: Final = 100
_WINDOW: Final = 10.0  # seconds
_FLIPS: Final = 6
_MANY: Final = 2000
_MANY_TTL: Final = 10.0  # seconds: two processors cannot also be two thousand machines
_PROJECTED: Final = 10_000
_REQUESTS: Final = 20_000
_SENT: Final = ("eval", "evalsha", "client|caching", "exists", "ping")


def measure() -> dict[str, Any]:
    """Idle, flipping, with requests, and many."""
    figures: dict[str, Any] = {}
    with RedisServer() as server:
        before = _look(server)
        with Crew(ours, server, _WORKERS) as crew:
            say(f"{_WORKERS} idle workers for {_WINDOW:g} s")
            time.sleep(2)
            figures["connections"] = (
                _look(server)["connections"] - before["connections"] - 1
            ) / _WORKERS  # one is the crew's own
            figures["idle"] = _over(server, _WINDOW)
            say(f"{_FLIPS} flips of {_WORKERS} workers")
            start, at = _look(server), time.monotonic()
            for number in range(_FLIPS):
                crew.flip(number % 2 == 0)
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
        say(f"{_MANY} workers join")
        start, at = _look(server), time.monotonic()
        with Crew(ours, server, _MANY, ttl=_MANY_TTL) as crew:
            joined = _minus(_look(server), start)
            figures["join"] = {"seconds": time.monotonic() - at, "processor": joined["processor"]}
            time.sleep(_MANY_TTL)
            say(f"{_MANY} idle workers for {2 * _MANY_TTL:g} s, ttl {_MANY_TTL:g} s")
            figures["many"] = _over(server, 2 * _MANY_TTL)
            at, start = time.monotonic(), _look(server)
            crew.flip(True)
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
    calls = {
        name: int(info[f"cmdstat_{name}"].split(",")[0].removeprefix("calls="))
        for name in _SENT
        if f"cmdstat_{name}" in info
    }
    return {
        "commands": sum(calls.values()),
        "in": int(info["total_net_input_bytes"]),
        "out": int(info["total_net_output_bytes"]),
        "connections": int(info["connected_clients"]) - 1,
        "processor": processor_time(server.pid),
    }


def _fields(text: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _minus(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after}


def report(figures: Mapping[str, Any]) -> str:
    """The tables, and what the model says."""
    idle, many = figures["idle"], figures["many"]
    flip, many_flip, requests, join = (
        figures["flip"],
        figures["many flip"],
        figures["requests"],
        figures["join"],
    )
    each = idle["processor"] / _WORKERS
    predicted = each * _MANY / _MANY_TTL
    rows = [
        ["an idle worker, per second (`ttl` = 1 s)", *_row(idle, _WORKERS)],
        [
            "a worker, per flip",
            *_row({**flip, "processor": many_flip["processor"] * _WORKERS / _MANY}, _WORKERS),
        ],
        ["a request", "0", "0", "0", "0"],
    ]
    projected = [
        [
            f"{_PROJECTED:,} workers, `ttl` = {ttl} s",
            *_row({name: value * _PROJECTED / _WORKERS / ttl for name, value in idle.items()}, 1),
        ]
        for ttl in (1, 2, 5)
    ]
    return "\n\n".join(
        [
            (
                f"Counted by Redis (`INFO`), from {_WORKERS} workers. Connections of a worker: **{figures['connections']:.2f}**. "
                f"While one worker answered {requests['requests']:,} requests in {requests['seconds']:.1f} s it sent {requests['busy']:.0f} commands, "
                f"and {requests['idle']:.0f} in as long a time without any request."
            ),
            table(["", "commands", "bytes in", "bytes out", "processor"], rows),
            (
                f"The model: every worker syncs once a `ttl`, so load is workers ÷ `ttl` times the first line. Checked by simulation with {_MANY:,} links, "
                f"`ttl` = {_MANY_TTL:g} s: it predicts {predicted:.1%} of one processor, measured were **{many['processor']:.1%}**, and "
                f"{many['commands']:.0f} commands a second against {idle['commands'] / _WORKERS * _MANY / _MANY_TTL:.0f} predicted (beyond a `ttl` of 1 s, a "
                f"PING each half `ttl` comes with it). A flip of {_MANY:,} took {milliseconds(many_flip['processor'])} of Redis' processor. To join took "
                f"{_MANY:,} workers at once {join['processor']:.1f} s of it, {milliseconds(join['processor'] / _MANY)} each: whoever is new looks through "
                "the whole registry for those who have vanished."
            ),
            table(
                ["projected, per second", "commands", "bytes in", "bytes out", "processor"],
                projected,
            ),
            (
                f"One Redis has one processor for all this. Half of one is full with {workers_at(figures, share=0.5, ttl=1):,} workers at a `ttl` of 1 s, "
                f"with {workers_at(figures, share=0.5, ttl=5):,} at 5 s. What to do then is in [docs/scale.md](../docs/scale.md)."
            ),
        ]
    )


def workers_at(figures: Mapping[str, Any], *, share: float, ttl: float) -> int:
    """How many workers take that share of one processor, rounded to hundreds."""
    each: float = figures["idle"]["processor"] / _WORKERS
    return round(share * ttl / each / 100) * 100


def _row(counts: Mapping[str, float], workers: int) -> list[str]:
    seconds = counts["processor"] / workers
    return [
        f"{counts['commands'] / workers:,.{0 if workers == 1 else 1}f}",
        f"{counts['in'] / workers:,.0f}",
        f"{counts['out'] / workers:,.0f}",
        f"{seconds * 1e6:.0f} µs" if seconds < 0.01 else f"{seconds:.2f} s",
    ]


def plots(figures: Mapping[str, Any]) -> dict[str, str]:
    """None."""
    return {}
