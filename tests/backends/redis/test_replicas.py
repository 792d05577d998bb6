"""A write that is waited for until the replicas have it, on a real master with real replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.base import ReplicaAck
from fastapi_maintenance.backends.redis.connection import RedisConnection
from fastapi_maintenance.backends.redis.replies import count_replicas
from fastapi_maintenance.exceptions import BackendUnavailableError
from fastapi_maintenance.model.state import OFF, ON
from tests.conftest import RedisServerFactory
from tests.support.servers import RedisServer
from tests.support.waiting import eventually_sync

from .links import took_less_than
from .test_rights import rule_of

MakeReplicated = Callable[[int], tuple[RedisServer, list[RedisServer]]]


@pytest.fixture
def make_replicated(own_redis_server: RedisServerFactory) -> MakeReplicated:
    """Makes a master with so many replicas that are up."""

    def make(number: int) -> tuple[RedisServer, list[RedisServer]]:
        master = own_redis_server(config={"repl-diskless-sync-delay": "0"})
        replicas = [own_redis_server() for _ in range(number)]
        for replica in replicas:
            replica.cli("REPLICAOF", "127.0.0.1", master.port)
        eventually_sync(
            lambda: master.cli("INFO", "replication").count("state=online") == number, within=30
        )
        return master, replicas

    return make


@pytest.mark.every_redis
async def test_it_says_how_many_replicas_have_what_was_written(
    make_replicated: MakeReplicated,
) -> None:
    master, replicas = await asyncio.to_thread(make_replicated, 2)
    backend = RedisBackend(master.url)

    with took_less_than(5):  # and not after the hundred seconds that it would be given
        assert await backend.write_replicated(ON, within=100) == ReplicaAck(2, 2)
    assert [await replica.acli("GET", "maintenance") for replica in replicas] == ["1", "1"]

    replicas[0].pause()
    try:
        began = time.monotonic()
        assert await backend.write_replicated(OFF, within=0.3) == ReplicaAck(1, 2)
        assert time.monotonic() - began >= 0.3
    finally:
        replicas[0].resume()


async def test_with_no_replicas_nobody_is_waited_for(redis_url: str) -> None:
    with took_less_than(5):
        assert await RedisBackend(redis_url).write_replicated(ON, within=100) is None
    assert await RedisBackend(redis_url).get_value() is True


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ([], ReplicaAck(1, 1)),
        (["-role"], ReplicaAck(1, None)),
        (["-wait"], None),
        (["-role", "-wait"], None),
    ],
)
async def test_operator_with_less_rights_writes_and_learns_less(
    make_replicated: MakeReplicated, missing: list[str], told: ReplicaAck | None
) -> None:
    master, _ = await asyncio.to_thread(make_replicated, 1)
    await master.acli("ACL", "SETUSER", "less", "on", ">secret", *rule_of("operator"), *missing)
    backend = RedisBackend(master.url_of("less", "secret"))

    assert await backend.write_replicated(ON, within=5) == told
    assert await master.acli("GET", "maintenance") == "1"


async def test_without_role_no_answer_is_not_taken_for_a_replica(redis_server: RedisServer) -> None:
    await redis_server.acli(
        "ACL", "SETUSER", "less", "on", ">secret", *rule_of("operator"), "-role"
    )

    assert (
        await RedisBackend(redis_server.url_of("less", "secret")).write_replicated(ON, within=0.1)
        is None
    )


async def test_connection_lost_while_waiting_undoes_no_write(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = RedisConnection.call

    async def cut(
        wire: RedisConnection, *commands: tuple[Any, ...], within: float | None = None
    ) -> list[Any]:
        if commands[0][0] == "ROLE":
            raise BackendUnavailableError("gone")
        return await call(wire, *commands, within=within)

    monkeypatch.setattr(RedisConnection, "call", cut)

    assert await RedisBackend(redis_url).write_replicated(ON, within=1) is None
    assert await RedisBackend(redis_url).get_value() is True


@pytest.mark.parametrize(
    ("role", "number"),
    [
        ([b"master", 7, []], 0),
        ([b"master", 7, [[b"127.0.0.1", b"6380", b"7"]]], 1),
        ([b"slave", b"127.0.0.1", 6379, b"connected", 7], None),
        ([b"master", 7], None),
        (RuntimeError("NOPERM"), None),
        (None, None),
    ],
)
def test_only_a_master_says_how_many_replicas_it_has(role: object, number: int | None) -> None:
    assert count_replicas(role) == number
