"""Deployments behind Sentinels that are cut in two, and failovers to a replica that lags."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, Final

import pytest
from redis import Redis

from fastapi_maintenance import wait_until_applied
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.registration import Registration
from fastapi_maintenance.model.state import ON
from fastapi_maintenance.runtime.mode import MaintenanceMode
from tests.support.registering import register
from tests.support.servers import RedisServer
from tests.support.topologies import MASTER, Sentinel, sentinel_group
from tests.support.waiting import eventually, eventually_sync

from .bounds import BOOT, SLACK, TTL
from .island import Island

LIFETIME: Final = 3 * TTL
STALE_AFTER: Final = 2 * TTL
DOWN_AFTER: Final = 2.0
SHIPPED: Final = {"min-replicas-to-write": "1", "min-replicas-max-lag": "10"}
DEFAULTS: Final = {"min-replicas-to-write": "0"}
CONFIGURATIONS: Final = pytest.mark.parametrize(
    "config", [DEFAULTS, SHIPPED], ids=["default", "shipped"]
)

# Prints the monotonic time, which all processes of a machine share, whenever it lets a request in.
_WORKER: Final = """
import asyncio, sys, time
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.runtime.mode import MaintenanceMode

async def main():
    backend = RedisBackend(sys.argv[1], ttl=float(sys.argv[2]))
    options = {"on_unreachable": "closed", "stale_after": 2 * float(sys.argv[2])}
    async with MaintenanceMode(backend, **options) as mode:
        while True:
            if mode.evaluate_gate().closure is None:
                print(time.monotonic(), flush=True)
            await asyncio.sleep(0.01)

asyncio.run(main())
"""


def closing(url: str) -> MaintenanceMode:
    return MaintenanceMode(
        RedisBackend(url, ttl=TTL), on_unreachable="closed", stale_after=STALE_AFTER
    )


# -- replicas that lag -----------------------------------------------------------------------------


@CONFIGURATIONS
async def test_worker_unknown_to_a_lagging_replica_is_waited_for(config: dict[str, str]) -> None:
    """It joined when the replica heard nothing any more. It closes by its fence.

    The replica's socket is full, so that the record waits in the memory of the master. Only one
    rule finds that out: a worker vouches for a registry once it has known it for a whole lifetime
    on one connection. What the replica lacks is no sign of a rollback.
    """
    with sentinel_group(replicas=2, down_after=DOWN_AFTER, config=config) as group:
        master = group.master()
        replicas = [server for server in group.servers if server is not master]
        async with closing(group.url) as mode:
            await eventually(lambda: master.cli("KEYS", "{maintenance}:w:*"), within=SLACK)
            await asyncio.sleep(LIFETIME + TTL)  # the worker has known this registry for long
            for replica in replicas:
                replica.pause()
            await asyncio.to_thread(fill_sockets, master)
            register(master, "late", fence=STALE_AFTER, lifetime=LIFETIME)
            killed_at = time.monotonic()
            await asyncio.to_thread(master.kill)
            for replica in replicas:
                replica.resume()
            await eventually(lambda: _has_master(replicas), within=150.0)
            backend = RedisBackend(group.url, ttl=TTL, timeout=5.0)
            await eventually(lambda: _closes(backend), within=30)
            # Else it is that worker that is waited for, whatever is missing in the registry.
            await eventually(lambda: _has_joined(mode, since=killed_at), within=30)
            joined_at = _registration_of(mode).begun_at
            result = await wait_until_applied(backend, timeout=60.0)
            proved_at = time.monotonic()
            assert result.ok
            assert result.count == 1, "no replica knows the late worker"
            assert proved_at - joined_at >= LIFETIME
            assert mode.evaluate_gate().closure is not None


def fill_sockets(master: RedisServer) -> None:
    with Redis.from_url(master.url) as client:
        client.set("filler", bytes(32 * 2**20))


def _registration_of(mode: MaintenanceMode) -> Registration:
    (link,) = mode.backend._links  # type: ignore[attr-defined]
    registration: Registration = link._sync._registration
    return registration


def _has_joined(mode: MaintenanceMode, *, since: float) -> bool:
    registration = _registration_of(mode)
    return registration.joined and registration.begun_at > since


async def _has_master(servers: list[RedisServer]) -> bool:
    return any([await asyncio.to_thread(_is_master, server) for server in servers])


def _is_master(server: RedisServer) -> bool:
    try:
        return server.cli("ROLE").startswith("master")
    except RuntimeError:  # it hangs up on its clients when its role changes
        return False


async def _closes(backend: RedisBackend) -> bool:
    try:
        await backend.write(ON)
    except Exception:
        return False
    return True


# -- splits ----------------------------------------------------------------------------------------


@dataclass
class Split:
    """A master, a Sentinel and a worker on an island; two replicas and Sentinels here."""

    island: Island
    replicas: list[RedisServer]
    url: str
    admitted: list[float]

    def begin(self, *, refused: bool) -> None:
        if not refused:
            self.island.lose(there=True, back=True)
            return
        self.island._ip("route", "add", "unreachable", f"{self.island.address}/32")
        here = f"{self.island._here}/32"
        self.island._ip("-n", self.island._name, "route", "add", "unreachable", here)


@contextmanager
def split(config: dict[str, str]) -> Iterator[Split]:
    with ExitStack() as stack:
        island = stack.enter_context(Island())
        island._ip("-n", island._name, "link", "set", "lo", "up")
        common = {"repl-diskless-sync-delay": "0", "protected-mode": "no", **config}
        there: dict[str, Any] = {"host": island.address, "launcher": island.launcher}
        here: dict[str, Any] = {"host": island._here}
        master = stack.enter_context(RedisServer(config=common, **there))
        following = {**common, "replicaof": f"{master.host} {master.port}"}
        replicas = [stack.enter_context(RedisServer(config=following, **here)) for _ in range(2)]
        overrides = {
            "sentinel monitor mymaster": f"{master.host} {master.port} 2",
            "sentinel down-after-milliseconds mymaster": f"{DOWN_AFTER * 1000:.0f}",
            "sentinel failover-timeout mymaster": "5000",
            "sentinel auth-user mymaster": "default",
            "sentinel auth-pass mymaster": "nobody-asks-for-it",
        }
        sentinels = [
            stack.enter_context(Sentinel(overrides, **place)) for place in (there, here, here)
        ]
        for sentinel in sentinels:
            eventually_sync(partial(_is_whole, sentinel), within=120.0)
        hosts = ",".join(f"{each.host}:{each.port}" for each in sentinels)
        url = f"redis+sentinel://{hosts}/{MASTER}/0"
        worker = [*island.launcher, sys.executable, "-c", _WORKER, url, str(TTL)]
        process = stack.enter_context(subprocess.Popen(worker, stdout=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        yield Split(island, replicas, url, _lines(process.stdout))


def _is_whole(sentinel: Sentinel) -> bool:
    words = sentinel.cli("SENTINEL", "MASTER", MASTER).split("\n")
    fields = dict(zip(words[::2], words[1::2], strict=False))
    return (fields["num-slaves"], fields["num-other-sentinels"]) == ("2", "2")


def _lines(stream: IO[str] | None) -> list[float]:
    assert stream is not None
    times: list[float] = []

    def read() -> None:
        times.extend(float(line) for line in stream)

    threading.Thread(target=read, daemon=True).start()
    return times


@CONFIGURATIONS
@pytest.mark.parametrize("refused", [False, True], ids=["silent", "refused"])
def test_split_lets_no_request_in_after_a_proof(config: dict[str, str], refused: bool) -> None:
    """Both sides are alive, and each has a worker; the other side's closes by its fence."""
    with split(config) as cut:
        eventually_sync(lambda: len(cut.admitted) > 10, within=BOOT)
        asyncio.run(_prove(cut, refused))


async def _prove(cut: Split, refused: bool) -> None:
    async with closing(cut.url) as mode:
        await eventually(lambda: mode.evaluate_gate().closure is None, within=SLACK)
        await asyncio.to_thread(cut.begin, refused=refused)
        await eventually(lambda: _has_master(cut.replicas), within=150.0)
        backend = RedisBackend(cut.url, ttl=TTL, timeout=5.0)
        await eventually(lambda: _closes(backend), within=30)
        result = await wait_until_applied(backend, timeout=60.0)
        proved_at = time.monotonic()
        assert result.ok, result
        assert len(result.expired) == 1
        assert mode.evaluate_gate().closure is not None
        await asyncio.sleep(2.0)
        assert max(cut.admitted) < proved_at
