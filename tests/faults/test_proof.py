"""What a barrier proves, and what it does not: each of these was "proved" once, while requests went
on or were let in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from redis import Redis

from fastapi_maintenance import wait_until_applied
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.exceptions import UnfencedError
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import ON
from fastapi_maintenance.runtime.mode import MaintenanceMode
from tests.checker.crew import Crew, Nursery, ask_slowly, is_at_work, ready
from tests.conftest import RedisServerFactory
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

from .proxy import Proxy

TTL: Final = 0.5
LIFETIME: Final = 3 * TTL
_HOLD: Final = Hold("migration", ON)


@pytest.fixture(scope="module")
async def nursery() -> AsyncIterator[Nursery]:
    async with Nursery() as nursery:
        yield nursery


def at(url: str) -> RedisBackend:
    return RedisBackend(url, ttl=TTL)


def closing(url: str) -> MaintenanceMode:
    """A worker that closes itself when it is cut off."""
    return MaintenanceMode(at(url), on_unreachable="closed", stale_after=2 * TTL)


def registry_keys(server: RedisServer) -> list[str]:
    """The keys of workers, in whichever format."""
    return [
        key
        for key in server.cli("KEYS", "{maintenance}:*").splitlines()
        if ":w" in key or ":registry" in key
    ]


async def test_request_that_outlives_the_fence_is_not_proved_drained(
    nursery: Nursery, redis_server: RedisServer, tmp_path: Path
) -> None:
    with Proxy(redis_server.port) as proxy:
        async with Crew(nursery, f"{proxy.url}?ttl={TTL}", tmp_path, stale_after=2 * TTL) as crew:
            await ready(worker := await crew.start())
            slow = asyncio.create_task(ask_slowly(worker, 6.0))
            await eventually(lambda: is_at_work(worker, redis_server.url), within=30)
            proxy.stall(up=True, down=True)
            await redis_server.acli("SET", "maintenance", "1")

            result = await wait_until_applied(at(redis_server.url), drained=True, timeout=4.0)

            assert not slow.done(), "the test proves nothing on so slow a machine"
            assert not result.ok
            assert [one.pid for one in result.unfenced] == [worker.pid]
            assert (await wait_until_applied(at(redis_server.url), timeout=4.0)).ok, (
                "its fence has closed it to new ones"
            )
            await slow


async def test_mistyped_key_proves_nothing(redis_server: RedisServer) -> None:
    """All workers serve, and none of them is in the registry of that key."""
    async with closing(redis_server.url):
        result = await wait_until_applied(
            RedisBackend(redis_server.url, key="maintenence", ttl=TTL), timeout=4.0
        )

    assert not result.ok
    with pytest.raises(UnfencedError, match="No worker is registered"):
        result.check()


@pytest.mark.parametrize("silent", [True, False])
async def test_lost_registry_proves_nothing_before_a_lifetime(
    redis_server: RedisServer, silent: bool
) -> None:
    """Evicted, or deleted: a worker that is cut off cannot register again, and serves until its
    fence.
    """
    with Proxy(redis_server.port) as proxy:
        async with closing(redis_server.url) as healthy, closing(proxy.url) as other:
            await asyncio.sleep(2 * LIFETIME)
            if silent:
                proxy.stall(up=True, down=True)
            await redis_server.acli("DEL", *await asyncio.to_thread(registry_keys, redis_server))
            began = time.monotonic()
            await redis_server.acli("SET", "maintenance", "1")

            result = await wait_until_applied(at(redis_server.url), timeout=6.0)

            assert result.ok
            assert time.monotonic() - began >= LIFETIME - 0.1
            assert len(result.drained) == 2 - silent, "who is there writes itself again"
            assert other.evaluate_gate().closure is not None
            assert healthy.evaluate_gate().closure is not None


async def test_worker_that_vanished_long_ago_is_not_forgotten(redis_server: RedisServer) -> None:
    """It may be cut off and serve for as long as it likes; the registry used to forget it after a
    minute.
    """
    with Proxy(redis_server.port) as proxy:
        async with MaintenanceMode(at(proxy.url)) as cut_off, closing(redis_server.url):
            await asyncio.sleep(LIFETIME)
            proxy.stall(up=True, down=True)
            keys = await asyncio.to_thread(registry_keys, redis_server)
            lives = [int(await redis_server.acli("PTTL", key)) for key in keys if ":w:" not in key]
            assert lives == [-1]
            await asyncio.sleep(LIFETIME)
            await redis_server.acli("SET", "maintenance", "1")

            result = await wait_until_applied(at(redis_server.url), timeout=6.0)

            assert len(result.unfenced) == 1
            assert not result.ok
            assert cut_off.evaluate_gate().closure is None, "it does serve"


async def test_worker_without_rights_to_register_is_closed_and_says_so(
    own_redis_server: RedisServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis_server()
    server.cli("ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all", "-@write")
    async with closing(server.url_of("reader", "secret")) as mode:
        await asyncio.sleep(2 * LIFETIME)
        assert mode.evaluate_gate().closure is not None
        result = await wait_until_applied(at(server.url), timeout=4.0)
    assert not result.ok
    assert (
        len(
            [
                one
                for one in caplog.messages
                if "refuses to register this worker" in one and "no barrier can wait" in one
            ]
        )
        == 1
    )


async def test_holds_and_registry_survive_eviction_under_pressure(
    own_redis_server: RedisServerFactory,
) -> None:
    """Under volatile-lru, what has a time to live is evicted: holds had one, and 234 requests were
    let in under one.
    """
    server = own_redis_server(
        config={"maxmemory": "4mb", "maxmemory-policy": "volatile-lru", "maxmemory-samples": "10"}
    )
    async with MaintenanceMode(at(server.url)) as mode:
        hold = await at(server.url).acquire(_HOLD, 60.0)
        await eventually(lambda: mode.gate.closure is not None, within=30)

        def fill() -> int:
            with Redis.from_url(server.url) as client:
                for number in range(3000):
                    client.set(f"cache:{number}", "x" * 4000, ex=3600)
                return int(client.info("stats")["evicted_keys"])

        assert await asyncio.to_thread(fill) > 100
        await asyncio.sleep(2 * TTL)
        assert server.cli("HLEN", "{maintenance}:holds") == "1"
        assert server.cli("PTTL", "{maintenance}:holds") == "-1"
        assert mode.evaluate_gate().closure is not None
        await at(server.url).release(hold)


@pytest.mark.parametrize("policy", ["closed", "last-known"])
async def test_demoted_primary_is_left_and_its_name_resolved_again(
    own_redis_server: RedisServerFactory, policy: str
) -> None:
    """Behind one name, as of a VIP or a Kubernetes Service; workers used to stay on the demoted one
    for ever.
    """
    old, new = own_redis_server(), own_redis_server()
    mode = MaintenanceMode(at(old.url), on_unreachable=policy, stale_after=2 * TTL)  # type: ignore[arg-type]
    async with mode:
        await eventually(lambda: registry_keys(old), within=30)
        await old.acli("REPLICAOF", "127.0.0.1", new.port)
        await asyncio.sleep(4 * TTL)
        status = mode.backend.link_status(mode)
        assert status is not None
        assert status.reconnects >= 1
        await old.acli("REPLICAOF", "NO", "ONE")
        began = time.monotonic()
        await eventually(lambda: any(":w:" in key for key in registry_keys(old)), within=30)
        assert time.monotonic() - began < 30
        await old.acli("SET", "maintenance", "1")
        await eventually(lambda: mode.evaluate_gate().closure is not None, within=30)
        await old.acli("DEL", "maintenance")
        await eventually(lambda: mode.evaluate_gate().closure is None, within=30)
