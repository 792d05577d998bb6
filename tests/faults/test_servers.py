"""Servers that are slow, busy, loading, refusing or restarted under a crowd; and changes that come
by themselves, or by the thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import Any, Final

import pytest

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.sync import Sync
from fastapi_maintenance.runtime.mode import MaintenanceMode
from tests.backends.redis.links import linked
from tests.conftest import RedisServerFactory
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

from .bounds import BACK, BOOT, BY_PUSH, NO_POLL, SLACK, TTL, UNREACHABLE
from .service import Service
from .watchdog import Watchdog

DEBUG: Final = {"enable-debug-command": "yes"}
CROWD: Final = 200
CHANGES: Final = 2000


# -- slow ------------------------------------------------------------------------------------------


async def test_server_busy_with_a_command_is_outlived(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server(config=DEBUG)
    async with Service(RedisBackend(server.url, ttl=TTL), on_unreachable="closed") as service:
        await eventually(lambda: service.ask() == 200, within=BY_PUSH)
        sleeping = asyncio.create_task(server.acli("DEBUG", "SLEEP", 5))
        await service.becomes(503, within=UNREACHABLE)
        await sleeping
        await service.becomes(200, within=BACK)


async def test_a_server_that_reloads_its_data_opens_nobody(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server(config=DEBUG)
    async with Service(RedisBackend(server.url, ttl=TTL)) as service:
        await server.acli("SET", "maintenance", 1)
        await service.becomes(503, within=BY_PUSH)
        closed = time.monotonic()
        await server.acli("DEBUG", "RELOAD")
        await asyncio.sleep(2 * TTL)
        assert service.answered(since=closed) == {503}
        await server.acli("DEL", "maintenance")
        await service.becomes(200, within=BY_PUSH)


async def test_a_server_that_is_still_loading_opens_nobody(
    own_redis_server: RedisServerFactory,
) -> None:
    """It accepts connections, and answers LOADING to nearly everything."""
    slowly = {
        "key-load-delay": "5000",
        "loading-process-events-interval-bytes": "1024",
        "rdbcompression": "no",
        "dbfilename": "dump.rdb",
    }
    server = own_redis_server(config=slowly, patience=90)
    await server.acli(
        "EVAL", "for i = 1, 800 do redis.call('SET', 'filler-' .. i, string.rep('x', 1000)) end", 0
    )
    async with (
        Service(RedisBackend(server.url, ttl=TTL)) as service,
        linked(RedisBackend(server.url, ttl=BACK)) as worker,
    ):
        await server.acli("SET", "maintenance", 1)
        await service.becomes(503, within=BY_PUSH)
        closed = time.monotonic()
        await server.acli("SAVE")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)  # comes back when the data is loaded, 4 s later
        await service.is_back(since=time.monotonic(), within=BACK)
        assert any("loading" in str(error) for error in worker.errors)
        assert service.answered(since=closed) == {503}
        await server.acli("DEL", "maintenance")
        await service.becomes(200, within=BY_PUSH)


# -- refusing --------------------------------------------------------------------------------------


async def test_server_that_cannot_save_is_followed(
    own_redis_server: RedisServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """MISCONF: nobody can write the switch either, but a hold that ends by itself still does;
    nothing is registered meanwhile.
    """
    server = own_redis_server(
        config={"save": "3600 1", "dbfilename": "dump.rdb", "stop-writes-on-bgsave-error": "yes"}
    )
    (server.home / "dump.rdb").mkdir()
    ttl = 3 * TTL  # so that a machine that stands still for a moment costs no connection
    async with Service(RedisBackend(server.url, ttl=ttl)) as service:
        await server.acli("SET", "maintenance", 1, "EX", 8)
        await service.becomes(503, within=BY_PUSH)
        await server.acli("BGSAVE")
        await eventually(lambda: _refuses_writes(server), within=SLACK)
        await eventually(lambda: not _registered(service), within=1.2 * ttl + SLACK)
        await service.becomes(200, within=8 + SLACK)
        assert service.mode.gate.source == "redis"
        await server.acli("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
        await eventually(lambda: _registered(service), within=12 * ttl + SLACK)
    assert [
        record.getMessage()
        for record in caplog.records
        if record.levelname == "WARNING" and "MISCONF" in record.getMessage()
    ]
    assert (
        len([record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]) == 1
    )


async def _refuses_writes(server: RedisServer) -> bool:
    with contextlib.suppress(RuntimeError):
        await server.acli("SET", "anything", 1)
        return False
    return True


def _registered(service: Service) -> bool:
    reading = service.mode.cache.snapshot
    return reading is not None and reading.registered


# -- changes that come by themselves, and many at once ---------------------------------------------


async def test_switch_among_many_volatile_keys_ends_in_time(redis_url: str, operator: Any) -> None:
    """Redis' own push for it would be about 50 s late."""
    async with operator.pipeline(transaction=False) as pipeline:
        for number in range(10_000):
            pipeline.set(f"volatile-{number}", "x", px=3_600_000)
        await pipeline.execute()
    async with Service(RedisBackend(redis_url, ttl=NO_POLL)) as service:
        began = time.monotonic()
        await operator.set("maintenance", 1, px=4000)
        await service.becomes(503, within=BY_PUSH)
        await service.becomes(200, within=4 + SLACK)
        assert time.monotonic() - began > 3.9


async def test_thousand_changes_a_second_are_read_one_at_a_time(
    redis_url: str, operator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = most = runs = 0
    run = Sync.read

    async def count(sync: Sync, *args: Any, **options: Any) -> tuple[bool, float]:
        nonlocal running, most, runs
        running, runs = running + 1, runs + 1
        most = max(most, running)
        try:
            return await run(sync, *args, **options)
        finally:
            running -= 1

    monkeypatch.setattr(Sync, "read", count)
    async with Service(RedisBackend(redis_url, ttl=NO_POLL)) as service:
        began, flips, blocks = time.monotonic(), 0, 0
        while flips < CHANGES:
            due = min(round((time.monotonic() - began) * 1000), CHANGES)
            async with operator.pipeline(transaction=False) as pipeline:
                for flip in range(flips, due):
                    pipeline.set("maintenance", flip % 2)
                await pipeline.execute()
            flips = due
            if flips < CHANGES / 2:
                blocks = sys.getallocatedblocks()
            await asyncio.sleep(0.002)
        grown = sys.getallocatedblocks() - blocks
        await operator.set("maintenance", '{"enabled": true, "message": "the last one"}')
        await service.becomes(503, message="the last one", within=BY_PUSH)
    assert runs < CHANGES
    assert most == 1
    assert grown < 10 * CHANGES / 2, "of those in the second half, not ten blocks each are left"


# -- a crowd ---------------------------------------------------------------------------------------


async def test_two_hundred_workers_reconnect_once_after_a_restart(
    own_redis_server: RedisServerFactory, watchdog: Watchdog
) -> None:
    # They share this event loop, which no real ones do: each has to wait for the others.
    watchdog.bound = SLACK
    server = own_redis_server(config={"appendonly": "yes", "appendfsync": "always"})
    crowd = [MaintenanceMode(RedisBackend(server.url, ttl=2 * BACK)) for _ in range(CROWD)]
    async with contextlib.AsyncExitStack() as lives:
        await asyncio.gather(*(lives.enter_async_context(mode) for mode in crowd))
        await server.acli("SET", "maintenance", 1)
        await eventually(lambda: all(mode.gate.closure for mode in crowd), within=BOOT)
        await asyncio.to_thread(server.kill)
        gone = time.monotonic()
        await asyncio.sleep(1)  # by now they wait for up to a second between two tries
        await asyncio.to_thread(server.start)  # some are back before this says that it is up
        await eventually(lambda: all(mode.cache.fresh_at > gone for mode in crowd), within=3 * BACK)
        assert all(mode.gate.closure for mode in crowd)
        assert await _accepted(server) <= 1.1 * CROWD
        await server.acli("DEL", "maintenance")
        await eventually(lambda: not any(mode.gate.closure for mode in crowd), within=BOOT)


async def _accepted(server: RedisServer) -> int:
    """How many connections it has accepted since it was started."""
    stats = await server.acli("INFO", "stats")
    return int(stats.split("total_connections_received:")[1].split()[0])
