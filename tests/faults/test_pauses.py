"""`CLIENT PAUSE WRITE`, as before a planned failover: reads are answered, writes wait."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from fastapi_maintenance.backends import RedisBackend
from tests.conftest import RedisServerFactory
from tests.support.servers import RedisServer
from tests.support.topologies import cluster, sentinel_group
from tests.support.waiting import eventually

from .bounds import BACK, SLACK, TTL
from .service import Service

PAUSE: Final = 16 * TTL


async def pause_writes(server: RedisServer, seconds: float = PAUSE) -> None:
    await server.acli("CLIENT", "PAUSE", round(seconds * 1000), "WRITE")


async def test_paused_writes_hold_up_no_read(own_redis_server: RedisServerFactory) -> None:
    """The switch ends by its time to live during the pause, and the worker opens then."""
    server = own_redis_server()
    async with Service(RedisBackend(server.url, ttl=TTL)) as service:
        await server.acli("SET", "maintenance", 1, "PX", round(4 * TTL * 1000))
        await service.becomes(503, within=SLACK)
        await pause_writes(server, 60.0)
        paused = time.monotonic()
        await service.is_back(since=paused + 3 * TTL, within=3 * TTL + BACK)
        await service.becomes(200, within=4 * TTL + SLACK)
        until = time.monotonic() + 6 * TTL
        while time.monotonic() < until:
            assert service.mode.gate.source == "redis"
            await asyncio.sleep(0.05)
        await server.acli("CLIENT", "UNPAUSE")


async def test_worker_registers_at_once_after_a_pause(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    options: Any = {"on_unreachable": "closed", "stale_after": 2 * TTL}
    async with Service(RedisBackend(server.url, ttl=TTL), **options) as service:
        assert service.ask() == 200
        await pause_writes(server, 60.0)
        # Another server may be promoted meanwhile, and reads alone do not tell this worker.
        await service.becomes(503, within=2 * TTL + SLACK)
        waiting = await eventually(lambda: _waiting(server), within=SLACK)
        await server.acli("CLIENT", "KILL", "ID", waiting)
        await eventually(lambda: _waiting(server, besides=waiting), within=TTL + SLACK)
        await server.acli("CLIENT", "UNPAUSE")
        await service.becomes(200, within=SLACK)


async def _waiting(server: RedisServer, besides: str = "") -> str:
    """The id of a connection whose write waits."""
    clients = (await server.acli("CLIENT", "LIST")).splitlines()
    ids = [line.split()[0].removeprefix("id=") for line in clients if "cmd=hdel" in line]
    return next((id for id in ids if id != besides), "")


async def test_worker_that_sentinels_confirm_stays_open_in_a_pause() -> None:
    with sentinel_group() as group:
        backend = RedisBackend(group.url, ttl=TTL, timeout=10.0)
        await _stays_open(backend, group.master())


async def test_worker_of_a_cluster_stays_open_in_a_pause() -> None:
    with cluster() as nodes:
        await _stays_open(RedisBackend(nodes.url, ttl=TTL, timeout=10.0), nodes.owner)


async def _stays_open(backend: RedisBackend, server: RedisServer) -> None:
    options: Any = {"on_unreachable": "closed", "stale_after": 10 * TTL}
    async with Service(backend, **options) as service:
        await eventually(lambda: service.ask() == 200, within=SLACK)
        began = time.monotonic()
        await pause_writes(server)
        await asyncio.sleep(PAUSE)
        assert service.answered(since=began) == {200}
