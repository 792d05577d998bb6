from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from fastapi_maintenance.backends import backend_from_url
from fastapi_maintenance.demo import embedded
from fastapi_maintenance.demo.embedded import EmbeddedRedis, start_embedded_redis
from fastapi_maintenance.demo.errors import DemoError
from fastapi_maintenance.demo.writes import Write
from fastapi_maintenance.mode import MaintenanceMode
from fastapi_maintenance.state import OFF, ON

from ..waiting import eventually

pytestmark = pytest.mark.may_block  # the demo is a program and no part of anybody's service: its start-up may block


async def test_it_runs_in_a_thread_until_its_block_ends() -> None:
    before = threading.active_count()
    async with start_embedded_redis() as redis:
        assert await redis.run("PING") in (True, "PONG")
        assert "fakeredis" in redis.describe()
        assert f"port {redis.port}" in redis.describe()
        assert threading.active_count() > before
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", redis.port)
    await eventually(lambda: not any(thread.name == "embedded redis" for thread in threading.enumerate()), within=10)


async def test_workers_follow_it_by_messages_and_by_polling() -> None:
    async with start_embedded_redis() as redis:
        backend = backend_from_url(redis.url)
        async with MaintenanceMode(backend_from_url(redis.url)) as mode:
            await eventually(lambda: hears_by_messages(redis), within=20)
            await redis.run("SET", "maintenance", "1")
            await eventually(lambda: mode.gate.closing is not None, within=20)
            await backend.write(OFF)
            await eventually(lambda: mode.gate.closing is None, within=20)
            await backend.write(ON)
            await eventually(lambda: mode.gate.closing is not None, within=20)


async def hears_by_messages(redis: EmbeddedRedis) -> bool:
    return set((await redis.rungs()).values()) == {"message"}


async def test_an_error_does_not_end_a_connection() -> None:
    async with start_embedded_redis() as redis:
        identity = await redis.run("CLIENT", "ID")
        with pytest.raises(DemoError, match="unknown command"):
            await redis.run("NONSENSE")
        with pytest.raises(DemoError, match="bad luck"):
            await redis.run("EVAL", "error('bad\\nluck')", "0")
        assert await redis.run("CLIENT", "ID") == identity


async def test_it_does_not_claim_to_speak_resp3() -> None:
    async with start_embedded_redis() as redis:
        client = Redis(port=redis.port, protocol=3)
        with pytest.raises(Exception, match="HELLO"):
            await client.execute_command("PING")  # type: ignore[no-untyped-call]
        await client.aclose()


async def hear(redis: EmbeddedRedis, heard: list[Write]) -> None:
    async for write in redis.writes():
        heard.append(write)  # noqa: PERF401 - one by one, to be looked at meanwhile


async def test_writes_are_noticed_soon_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    run = EmbeddedRedis.run

    async def look(redis: EmbeddedRedis, *words: str) -> Any:
        nonlocal looks
        reply = await run(redis, *words)
        looks += 1
        return reply

    async with start_embedded_redis() as redis:
        heard: list[Write] = []

        monkeypatch.setattr(EmbeddedRedis, "run", look)
        listening = asyncio.create_task(hear(redis, heard))
        await eventually(lambda: looks >= 3, within=20)
        assert heard == []
        before = time.monotonic()
        await redis.run("SET", "maintenance", "1")
        await eventually(lambda: len(heard) == 1, within=20)
        await redis.run("DEL", "maintenance")
        await eventually(lambda: len(heard) == 2, within=20)
        assert [write.text for write in heard] == ["maintenance = 1", "maintenance gone"]
        assert before - 0.1 < heard[0].at < heard[1].at
        listening.cancel()
        await asyncio.wait([listening])


async def test_a_port_that_is_taken_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        monkeypatch.setattr(embedded, "free_port", lambda: holder.getsockname()[1])
        with pytest.raises(DemoError, match=r"cannot listen on port \d+: .*in use"):
            await start_embedded_redis().__aenter__()


@pytest.mark.parametrize("missing", ["fakeredis", "lupa"])
async def test_without_what_it_needs_it_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(DemoError, match=r"Install redis-server .* or pip install 'fastapi-maintenance-cluster\[demo\]'"):
        await start_embedded_redis().__aenter__()
