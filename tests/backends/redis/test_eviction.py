"""What workers and operators are told of a server that may evict the switch."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import pytest
from redis.exceptions import NoPermissionError

from fastapi_maintenance._internal.tasks import beside
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.eviction import EvictionCheck, eviction_warnings
from fastapi_maintenance.exceptions import BackendUnavailableError
from tests.conftest import RedisServerFactory
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

from .conftest import MakeUser
from .links import Worker, linked

SOON: Final = 20.0
ALL_KEYS: Final = {"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "maxmemory-policy" in each.getMessage()]


def info_calls(server: RedisServer) -> int:
    lines = server.cli("INFO", "commandstats").splitlines()
    (line,) = [line for line in lines if line.startswith("cmdstat_info:")] or ["=0,"]
    return int(line.split("=")[1].split(",")[0])


async def test_unreachable_server_warns_of_nothing(free_port: int) -> None:
    assert await RedisBackend(f"redis://127.0.0.1:{free_port}").warnings() == ()


# -- a worker --------------------------------------------------------------------------------------


@pytest.mark.every_redis
async def test_worker_warns_of_allkeys_eviction_once(
    own_redis_server: RedisServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    server = await asyncio.to_thread(own_redis_server, config=ALL_KEYS)
    backend = RedisBackend(server.url, ttl=0.2)
    async with linked(backend) as worker:
        await eventually(lambda: warnings_in(caplog), within=SOON)
        (status,) = [link.status for link in backend._links]
        warnings = status.warnings
        asked = await asyncio.to_thread(info_calls, server)
        await has_polled(worker)
        # The test asks, too.
        assert await asyncio.to_thread(info_calls, server) == asked + 1
        before = worker.syncs
        await server.acli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await eventually(lambda: worker.syncs > before, within=SOON)
        await eventually(lambda: asked_again(server, asked + 3), within=SOON)
        await has_polled(worker)

    assert await RedisBackend(server.url).warnings() == warnings
    (warning,) = warnings_in(caplog)
    assert warning == f"redis://127.0.0.1:{server.port}/0: {warnings[0]}"
    assert warnings[0] == (
        "maxmemory-policy must be noeviction or volatile-*, got allkeys-lru. A full server may "
        "evict the switch, which opens the service, and holds "
        "and the registry of workers."
    )


async def has_polled(worker: Worker) -> None:
    syncs = worker.syncs
    await eventually(lambda: worker.syncs > syncs + 3, within=SOON)


async def asked_again(server: RedisServer, calls: int) -> bool:
    return await asyncio.to_thread(info_calls, server) >= calls


@pytest.mark.parametrize(
    "config",
    [
        {"maxmemory": "64mb", "maxmemory-policy": "volatile-lru"},
        {"maxmemory": "64mb", "maxmemory-policy": "noeviction"},
        {"maxmemory": "0", "maxmemory-policy": "allkeys-lru"},
    ],
)
async def test_worker_does_not_warn_where_nothing_is_evicted(
    own_redis_server: RedisServerFactory,
    caplog: pytest.LogCaptureFixture,
    config: dict[str, str],
) -> None:
    caplog.set_level(logging.WARNING)
    server = await asyncio.to_thread(own_redis_server, config=config)
    async with linked(RedisBackend(server.url, ttl=0.2)) as worker:
        await eventually(lambda: asked_again(server, 1), within=SOON)
        await has_polled(worker)

    assert warnings_in(caplog) == []
    assert await RedisBackend(server.url).warnings() == ()


async def test_worker_without_the_right_serves_and_asks_once(
    redis_server: RedisServer, make_user: MakeUser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    url = (await make_user("-info")).url
    await redis_server.acli("ACL", "LOG", "RESET")
    async with linked(RedisBackend(url, ttl=0.2), Worker(reporting=True)) as worker:
        await eventually(lambda: is_refused(redis_server), within=SOON)
        await has_polled(worker)
        await redis_server.acli("SET", "maintenance", "1")
        await eventually(worker.is_on, within=SOON)

    assert (worker.errors, warnings_in(caplog)) == ([], [])
    refused = await redis_server.acli("ACL", "LOG")
    assert "count\n1\n" in refused, "the command is tried once in a worker's life"
    assert await RedisBackend(url).warnings() == ()


async def is_refused(server: RedisServer) -> bool:
    return "object\ninfo\n" in await server.acli("ACL", "LOG")


# -- the decision ----------------------------------------------------------------------------------


class Wire:
    """A connection that answers with what it is given, and fails where that is an outage."""

    def __init__(self, reply: object) -> None:
        self.reply = reply
        self.calls = 0

    async def call(self, *commands: object) -> list[Any]:
        self.calls += 1
        if isinstance(self.reply, BackendUnavailableError):
            raise self.reply
        return [self.reply]


async def calls_on(check: EvictionCheck, reply: object) -> int:
    """Return how often the check asks on one connection."""
    wire: Any = Wire(reply)
    await check.ask(wire, within=0.001)
    return int(wire.calls)


@pytest.mark.parametrize(
    "reply", [NoPermissionError("no"), BackendUnavailableError("closed by server")]
)
async def test_check_refused_or_hung_up_on_never_asks_again(reply: Exception) -> None:
    check = EvictionCheck("redis://h")
    assert [await calls_on(check, reply), await calls_on(check, b"")] == [1, 0]


async def test_check_of_another_server_asks_again(caplog: pytest.LogCaptureFixture) -> None:
    check = EvictionCheck("redis://h")
    bad = b"maxmemory:5\r\nmaxmemory_policy:allkeys-random\r\n"
    for reply in (bad, bad, b"maxmemory:5\r\nmaxmemory_policy:noeviction\r\n", bad):
        assert await calls_on(check, reply) == 1
    assert len(warnings_in(caplog)) == 2


async def test_check_ended_early_asks_nothing() -> None:
    wire: Any = Wire(b"")
    async with beside(EvictionCheck("redis://h").ask(wire, within=60)):
        pass
    assert wire.calls == 0


@pytest.mark.parametrize("reply", [b"", b"\xff", None, b"maxmemory_policy:allkeys-lru", 1, []])
def test_reply_without_limit_or_policy_warns_of_nothing(reply: object) -> None:
    assert eviction_warnings(reply) == ()
