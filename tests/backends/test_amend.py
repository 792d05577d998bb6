"""Amending the switch: never over what somebody else wrote meanwhile, and without touching its time to live."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend, backend_from_url
from fastapi_maintenance.exceptions import ReadOnlyBackendError, UnsupportedError
from fastapi_maintenance.snapshot import Hold, replace_state
from fastapi_maintenance.state import OFF, ON, MaintenanceState

from ..doubles import Switchboard
from ..servers import RedisServer

NOTED = MaintenanceState(enabled=True, reason="amended")


async def test_what_was_seen_is_amended(backend: BaseStateBackend) -> None:
    await backend.write(ON)
    assert await backend.amend(await backend.read(), NOTED)
    assert (await backend.read()).switch == NOTED


async def test_what_somebody_else_wrote_meanwhile_stays(backend: BaseStateBackend) -> None:
    await backend.write(ON)
    seen = await backend.read()
    for other in (OFF, replace_state(ON, reason="theirs")):
        await backend.write(other)
        assert not await backend.amend(seen, NOTED)
        assert (await backend.read()).switch == other


async def test_of_many_who_amend_at_once_each_sees_what_the_one_before_wrote(backend: BaseStateBackend) -> None:
    async def add(entry: str) -> None:
        while True:
            seen = await backend.read()
            assert seen.switch is not None
            if await backend.amend(seen, replace_state(seen.switch, allow=(*(seen.switch.allow or ()), entry))):
                return

    await backend.write(ON)
    await asyncio.gather(*(add(f"/{number}") for number in range(6)))
    switch = (await backend.read()).switch
    assert switch is not None
    assert sorted(switch.allow or ()) == [f"/{number}" for number in range(6)]


async def test_a_value_that_cannot_be_read_is_not_amended(tmp_path: Path, redis_url: str, redis_server: RedisServer) -> None:
    (tmp_path / "switch.json").write_text("garbage")
    file = backend_from_url(f"file:{tmp_path}/switch.json")
    assert not await file.amend(await file.read(), NOTED)
    assert (tmp_path / "switch.json").read_text() == "garbage"

    redis = backend_from_url(redis_url)
    redis_server.cli("SET", "maintenance", "1")
    seen = await redis.read()
    redis_server.cli("DEL", "maintenance")
    redis_server.cli("LPUSH", "maintenance", "1")
    assert not await redis.amend(seen, NOTED)


@pytest.mark.parametrize(("ttl", "expected"), [(None, -1), (600, 600)])
async def test_the_time_to_live_in_redis_stays(redis_url: str, redis_server: RedisServer, ttl: int | None, expected: int) -> None:
    redis_server.cli("SET", "maintenance", "1", *(() if ttl is None else ("EX", str(ttl))))
    backend = backend_from_url(redis_url)
    assert await backend.amend(await backend.read(), NOTED)
    assert expected - 60 < int(redis_server.cli("TTL", "maintenance")) <= expected


async def test_a_hold_that_was_taken_meanwhile_was_not_seen_in_redis(redis_url: str) -> None:
    backend = backend_from_url(redis_url)
    await backend.write(ON)
    seen = await backend.read()
    await backend.acquire(Hold("a", ON), 30.0)
    assert not await backend.amend(seen, NOTED)


async def test_the_switch_of_a_scope_is_amended_alone_and_keeps_its_time_to_live(redis_url: str, redis_server: RedisServer) -> None:
    redis_server.cli("SET", "maintenance:billing", "1", "EX", "600")
    backend = backend_from_url(redis_url)
    backend.follow_scopes(["billing"])
    seen = await backend.read()
    assert await backend.amend(seen, NOTED, scope="billing")
    assert not await backend.amend(seen, ON, scope="billing"), "it is another one by now"
    reading = await backend.read()
    assert reading.switch == OFF
    assert reading.scopes is not None
    assert reading.scopes["billing"].switch == NOTED
    assert 540 < int(redis_server.cli("TTL", "maintenance:billing")) <= 600
    await backend.write(ON)
    assert not await backend.amend(reading, ON, scope="billing"), "nor did the caller see the general one as it is"


async def test_backends_without_details_or_scopes_say_so(tmp_path: Path) -> None:
    board = Switchboard()
    with pytest.raises(UnsupportedError, match="nothing to amend"):
        await board.amend(await board.read(), NOTED)
    for keeps_none in (board, backend_from_url(f"file:{tmp_path}/switch.json")):
        with pytest.raises(UnsupportedError, match="keeps no switches of scopes"):
            await keeps_none.amend(await keeps_none.read(), NOTED, scope="billing")
    environment = EnvVarBackend("UNUSED_HERE")
    with pytest.raises(ReadOnlyBackendError):
        await environment.amend(await environment.read(), NOTED)
