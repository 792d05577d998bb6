"""The load of workers on Redis, beside bare `GET`s on as many links at the same rate."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any, Final

from redis import Redis

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.backends.redis.script import Script
from fastapi_maintenance.runtime.mode import MaintenanceMode
from tests.support.servers import RedisServer

from .measuring import say
from .replay import Links, Recording, record
from .workers import KEY, Switch, WorkerPool, run_workers

WORKERS: Final = 200  # real ones
_WINDOW: Final = 12.0  # seconds
LINKS: Final = 2000  # raw sockets
RATE: Final = 10_000  # polls a second
_REPLAYED: Final = 4.0  # seconds
_ROUNDS: Final = 3
FLIPPED: Final = 1000  # links
_FLIPS: Final = 5
_ESTABLISHED: Final = 20  # workers, beside those that join
_ROLL_CALLS: Final = 20
SIZES: Final = {"workers": WORKERS, "links": LINKS, "rate": RATE, "flipped": FLIPPED}
_JOINING: Final = ("hset", "hsetnx", "set")


def load() -> dict[str, Any]:
    """Measure idle workers, ten thousand, joins, flips and the roll call."""
    figures: dict[str, Any] = {}
    with RedisServer() as server, RedisServer() as beside:
        figures["idle"] = _idle(server, beside)
    with RedisServer() as server:
        recording = asyncio.run(record(server))
        figures["many"] = _many(server, recording)
    with RedisServer() as server:
        figures["join"] = asyncio.run(_join(server, recording))
    with RedisServer() as server, RedisServer() as beside:
        figures["flip"] = _flip(server, beside, recording)
    return figures


def _idle(server: RedisServer, beside: RedisServer) -> dict[str, float]:
    """Let real workers and bare links poll two servers, at the same time and rate."""
    say(f"{WORKERS} idle workers for {_WINDOW:g} s")
    before = Usage(server).connections
    with WorkerPool(run_workers, server, WORKERS), Links(beside, WORKERS, None) as bare:
        bare.turn(2.0)
        connections = Usage(server).connections - before - 1  # one is the pool's own
        ours, floor, began = Usage(server), Usage(beside), time.monotonic()
        gets = bare.polls(WORKERS, _WINDOW)
        took = time.monotonic() - began
        spent, least = Usage(server).since(ours), Usage(beside).since(floor)
    sums = {"commands": spent.calls(), "inside": spent.inside_of(), "in": spent.heard}
    sums |= {"out": spent.said, "processor": spent.processor}
    each = {name: total / took / WORKERS for name, total in sums.items()}
    return each | {"connections": connections / WORKERS, "bare": least.processor / gets}


def _many(server: RedisServer, recording: Recording) -> dict[str, float]:
    """Replay the poll at the rate of ten thousand workers, and bare reads in turn with it."""
    say(f"{RATE} polls a second on {LINKS} links")
    shares: dict[str, list[float]] = {"ours": [], "bare": []}
    empty = Usage(server)
    with Links(server, LINKS, None) as bare, Links(server, LINKS, recording) as ours:
        ours.join()
        for _ in range(_ROUNDS):
            for name, links in (("bare", bare), ("ours", ours)):
                before = Usage(server)
                sent = links.polls(RATE, _REPLAYED)
                shares[name].append(Usage(server).since(before).processor / sent * RATE)
        registered = Usage(server)
    time.sleep(1)
    left = Usage(server)
    return {
        "polls": RATE,
        "share": statistics.median(shares["ours"]),
        "bare": statistics.median(shares["bare"]),
        "connection": (registered.memory - left.memory) / (2 * LINKS),
        "registration": (left.memory - empty.memory) / LINKS,
    }


async def _join(server: RedisServer, recording: Recording) -> dict[str, float]:
    """Let many links join at once beside established workers that close in an outage."""
    say(f"{LINKS} links join at once")
    backends = [RedisBackend(server.url) for _ in range(_ESTABLISHED)]
    modes = [MaintenanceMode(backend, on_unreachable="closed") for backend in backends]
    await asyncio.gather(*(mode.start() for mode in modes))
    await asyncio.sleep(1.0)
    costs = []
    links = [await asyncio.to_thread(Links, server, LINKS // 10, recording) for _ in range(10)]
    for some in links:
        before = Usage(server)
        await asyncio.to_thread(some.join)
        costs.append(Usage(server).since(before).inside_of(*_JOINING) / (LINKS // 10))
        if len(costs) * LINKS // 10 == FLIPPED:
            roll_call = _roll_call(server)
    states = [mode.backend.link_status(mode) for mode in modes]
    reconnects = sum(state.reconnects for state in states if state is not None)
    closed = sum(mode.gate.closure is not None for mode in modes)
    for some in links:
        some.__exit__()
    for mode in modes:
        await mode.stop()
    ends = {"first": costs[0], "last": costs[-1], "roll call": roll_call}
    return ends | {"missed": reconnects + closed}


def _roll_call(server: RedisServer) -> float:
    """Return the time of the step that reads the registry, inside of Redis."""
    script, spent = Script(Keys.of(KEY)), []
    with Redis(port=server.port) as client:
        client.execute_command(*script.whole("workers"))
        for _ in range(_ROLL_CALLS):
            before = Usage(server)
            client.execute_command(*script.by_digest("workers"))
            spent.append(Usage(server).since(before).inside_of("evalsha"))
    return min(spent)  # the others were interrupted by other programs


def _flip(server: RedisServer, beside: RedisServer, recording: Recording) -> dict[str, float]:
    """Flip as many replayed links as bare ones, in turn, each on its own server."""
    say(f"flips of {FLIPPED} links")
    costs: dict[str, list[float]] = {"ours": [], "bare": []}
    lasts: dict[str, list[float]] = {"ours": [], "bare": []}
    with (
        Links(server, FLIPPED, recording) as ours,
        Links(beside, FLIPPED, None) as bare,
    ):
        switch, other = Switch(server), Switch(beside)
        ours.join()
        for links, one in ((ours, switch), (bare, other)):
            one.set(False)
            links.arm()
        for number in range(2 * _FLIPS):
            turns = ("bare", beside, bare, other), ("ours", server, ours, switch)
            for name, redis, links, one in turns:
                before = Usage(redis)
                lasts[name].append(max(links.flip(one, number % 2 == 0)))
                costs[name].append(Usage(redis).since(before).processor)
    spent, last = (
        {name: statistics.median(each) for name, each in found.items()} for found in (costs, lasts)
    )
    flip = {"processor": spent["ours"], "bare": spent["bare"]}
    return flip | {"last": last["ours"], "bare last": last["bare"]}


class Usage:
    """The counters of Redis; asking for them is not counted among the commands."""

    def __init__(self, server: RedisServer) -> None:
        lines = server.cli("INFO", "all").splitlines()
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        self.processor = float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
        self.heard = int(info["total_net_input_bytes"])
        self.said = int(info["total_net_output_bytes"])
        self.connections = int(info["connected_clients"]) - 1
        self.memory = int(info["used_memory"])
        self._commands = {
            name.removeprefix("cmdstat_"): dict(part.split("=") for part in value.split(","))
            for name, value in info.items()
            if name.startswith("cmdstat_") and name != "cmdstat_info"
        }

    def since(self, before: Usage) -> Usage:
        """Turn this into the difference from an earlier look."""
        for name in ("processor", "heard", "said"):
            setattr(self, name, getattr(self, name) - getattr(before, name))
        for command, found in self._commands.items():
            then = before._commands.get(command, {})
            for field in ("calls", "usec"):
                found[field] = str(int(found[field]) - int(then.get(field, 0)))
        return self

    def calls(self) -> int:
        """The number of commands."""
        return sum(int(found["calls"]) for found in self._commands.values())

    def inside_of(self, *commands: str) -> float:
        """Seconds inside of these commands, or of all."""
        found = (self._commands.get(command, {}) for command in commands or self._commands)
        return sum(int(each.get("usec", 0)) for each in found) / 1e6
