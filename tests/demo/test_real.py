from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest

from fastapi_maintenance.backends import backend_from_url
from fastapi_maintenance.demo import real
from fastapi_maintenance.demo.errors import DemoError
from fastapi_maintenance.demo.real import RealRedis, start_real_redis
from fastapi_maintenance.demo.server import KEYS
from fastapi_maintenance.demo.writes import Write
from fastapi_maintenance.mode import MaintenanceMode

from ..conftest import RedisServerFactory
from ..servers import RedisServer
from ..waiting import eventually
from .test_program import is_running

pytestmark = pytest.mark.may_block  # the demo is a program and no part of anybody's service: its start-up may block


async def test_a_server_of_its_own_runs_until_its_block_ends(tmp_path: Path) -> None:
    program = shutil.which("redis-server")
    assert program is not None
    async with start_real_redis(program, tmp_path) as redis:
        pid = int((await redis.client.info("server"))["process_id"])
        assert [(await redis.client.config_get(name))[name] for name in ("save", "appendonly", "dir")] == ["", "no", str(tmp_path)]
        assert redis.describe().startswith(f"redis-server {redis.version} on port {redis.port}: ")
        assert redis.version[0].isdigit()
        assert redis.url == f"redis://127.0.0.1:{redis.port}/0"
    assert not is_running(pid)


async def test_a_server_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho 'Fatal: bad luck'\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(DemoError, match=r"^redis-server ended with exit code 1\. It last said: Fatal: bad luck$"):
        await start_real_redis(str(broken), tmp_path).__aenter__()


async def test_a_server_that_does_not_answer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "_PATIENCE", 0.1)
    mute = tmp_path / "redis-server"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o755)
    with pytest.raises(DemoError, match=r"^redis-server does not answer on port \d+ after 0\.1 s"):
        await start_real_redis(str(mute), tmp_path).__aenter__()


async def test_somebody_elses_server_is_never_taken_for_the_demos_own(redis: RealRedis, redis_server: RedisServer) -> None:
    await redis.meet(redis_server.pid)
    with pytest.raises(DemoError, match="Another Redis answers"):
        await redis.meet(os.getpid())


async def test_writes_are_heard_of_with_their_time(redis: RealRedis) -> None:
    heard: list[Write] = []

    async def listen() -> None:
        async for write in redis.writes():
            heard.append(write)  # noqa: PERF401 - one by one, to be looked at meanwhile

    listening = asyncio.create_task(listen())
    await eventually(lambda: is_monitored(redis), within=10)
    before = time.monotonic()
    await redis.run("SET", "somebody:elses", "1")
    await redis.run("SET", "maintenance", "1")
    await redis.run("DEL", "maintenance")
    after = time.monotonic()
    await eventually(lambda: len(heard) == 2, within=10)
    assert [write.text for write in heard] == ["SET maintenance 1", "DEL maintenance"]
    assert before - 0.01 < heard[0].at < heard[1].at < after + 0.01
    listening.cancel()
    await asyncio.wait([listening])


async def is_monitored(redis: RealRedis) -> bool:
    return any(client["cmd"] == "monitor" for client in await redis.client.client_list())


async def test_the_writes_end_with_the_server(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server()
    redis = RealRedis(server.port)
    listening = asyncio.create_task(anext(redis.writes(), None))
    await eventually(lambda: is_monitored(redis), within=10)
    server.kill()
    assert await listening is None
    await redis.aclose()


async def test_a_command_that_fails_is_an_error_with_redis_own_words(redis: RealRedis) -> None:
    with pytest.raises(DemoError, match=rf"^Redis, on port {redis.port}, failed at NONSENSE: unknown command"):
        await redis.run("NONSENSE")


async def test_the_registry_says_how_each_worker_hears_of_changes(redis: RealRedis, redis_url: str) -> None:
    assert await redis.rungs() == {}
    async with MaintenanceMode(backend_from_url(redis_url)):
        await redis.run("HSET", KEYS.workers, "odd", "not a report", "old", '17 {"pid": 1}')
        assert await redis.rungs() == {os.getpid(): "tracking"}
