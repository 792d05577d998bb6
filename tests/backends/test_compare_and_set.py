"""compare_and_set: never over a value that another writer changed meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend, backend_from_url
from fastapi_maintenance.exceptions import ReadOnlyBackendError, UnsupportedError
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState

from ..support.doubles import Switchboard
from ..support.servers import RedisServer

NOTED = MaintenanceState(enabled=True, reason="changed")

keeping_or_not = pytest.mark.parametrize("keep_ttl", [False, True])


@keeping_or_not
async def test_expected_switch_is_replaced(backend: BaseStateBackend, keep_ttl: bool) -> None:
    await backend.write(ON)
    for state in (NOTED, ON.replace(message="Back soon"), ON):
        assert await backend.compare_and_set(await backend.read(), state, keep_ttl=keep_ttl)
        assert (await backend.read()).switch == state


async def test_off_can_be_set_and_expected(backend: BaseStateBackend) -> None:
    for state in (NOTED, OFF, ON):
        assert await backend.compare_and_set(await backend.read(), state)
        assert (await backend.read()).switch == state


@keeping_or_not
async def test_other_switch_is_left_alone(backend: BaseStateBackend, keep_ttl: bool) -> None:
    await backend.write(ON)
    seen = await backend.read()
    for other in (OFF, ON.replace(reason="theirs")):
        await backend.write(other)
        assert not await backend.compare_and_set(seen, NOTED, keep_ttl=keep_ttl)
        assert not await backend.compare_and_set(seen, OFF, end_holds=True)
        assert (await backend.read()).switch == other


async def test_one_of_many_concurrent_calls_wins(backend: BaseStateBackend) -> None:
    seen = await backend.read()
    states = [ON.replace(reason=str(number)) for number in range(8)]
    won = await asyncio.gather(*(backend.compare_and_set(seen, state) for state in states))
    assert sum(won) == 1
    assert (await backend.read()).switch == states[won.index(True)]


async def test_retried_concurrent_changes_are_all_kept(backend: BaseStateBackend) -> None:
    async def add(entry: str) -> None:
        while True:
            seen = await backend.read()
            assert seen.switch is not None
            longer = seen.switch.replace(allow=(*(seen.switch.allow or ()), entry))
            if await backend.compare_and_set(seen, longer, keep_ttl=True):
                return

    await backend.write(ON)
    await asyncio.gather(*(add(f"/{number}") for number in range(6)))
    switch = (await backend.read()).switch
    assert switch is not None
    assert sorted(switch.allow or ()) == [f"/{number}" for number in range(6)]


async def test_end_holds_ends_them_in_the_same_step(backend: BaseStateBackend) -> None:
    await backend.write(ON)
    hold = await backend.acquire(Hold("a", ON), 30.0)
    assert await backend.compare_and_set(await backend.read(), OFF, end_holds=True)
    after = await backend.read()
    assert (after.switch, after.holds) == (OFF, ())
    assert not await backend.renew(hold, 30.0)


async def test_expected_garbage_is_replaced(
    tmp_path: Path, redis_url: str, redis_server: RedisServer
) -> None:
    (tmp_path / "switch.json").write_text("garbage")
    redis_server.cli("SET", "maintenance", "garbage")
    for backend in (backend_from_url(f"file:{tmp_path}/switch.json"), backend_from_url(redis_url)):
        assert (seen := await backend.read()).switch is None
        assert await backend.compare_and_set(seen, NOTED)
        assert (await backend.read()).switch == NOTED


@keeping_or_not
async def test_unexpected_type_in_redis_is_left_alone(
    redis_url: str, redis_server: RedisServer, keep_ttl: bool
) -> None:
    backend = backend_from_url(redis_url)
    redis_server.cli("SET", "maintenance", "1")
    seen = await backend.read()
    redis_server.cli("DEL", "maintenance")
    redis_server.cli("LPUSH", "maintenance", "1")
    assert not await backend.compare_and_set(seen, NOTED, keep_ttl=keep_ttl)


@pytest.mark.parametrize(
    ("ttl", "keep_ttl", "expected"), [(600, False, -1), (600, True, 600), (None, True, -1)]
)
async def test_ttl_in_redis_is_kept_on_request(
    redis_url: str, redis_server: RedisServer, ttl: int | None, keep_ttl: bool, expected: int
) -> None:
    redis_server.cli("SET", "maintenance", "1", *(() if ttl is None else ("EX", str(ttl))))
    backend = backend_from_url(redis_url)
    assert await backend.compare_and_set(await backend.read(), NOTED, keep_ttl=keep_ttl)
    assert expected - 60 < int(redis_server.cli("TTL", "maintenance")) <= expected


@keeping_or_not
async def test_hold_taken_since_the_read_refuses_in_redis(redis_url: str, keep_ttl: bool) -> None:
    backend = backend_from_url(redis_url)
    await backend.write(ON)
    seen = await backend.read()
    await backend.acquire(Hold("a", ON), 30.0)
    assert not await backend.compare_and_set(seen, NOTED, keep_ttl=keep_ttl)


async def test_scope_is_set_alone(redis_url: str, redis_server: RedisServer) -> None:
    backend = backend_from_url(redis_url)
    backend.follow_components(["billing"])
    seen = await backend.read()
    assert await backend.compare_and_set(seen, NOTED, component="billing")
    assert redis_server.cli("GET", "maintenance") == ""
    assert redis_server.cli("EXISTS", "maintenance:billing") == "1"
    assert not await backend.compare_and_set(seen, OFF, component="billing")
    assert await backend.compare_and_set(await backend.read(), OFF, component="billing")
    assert redis_server.cli("EXISTS", "maintenance:billing") == "0"


async def test_scope_keeps_its_ttl_on_request(redis_url: str, redis_server: RedisServer) -> None:
    redis_server.cli("SET", "maintenance:billing", "1", "EX", "600")
    backend = backend_from_url(redis_url)
    backend.follow_components(["billing"])
    seen = await backend.read()
    assert await backend.compare_and_set(seen, NOTED, component="billing", keep_ttl=True)
    assert not await backend.compare_and_set(seen, ON, component="billing", keep_ttl=True)
    reading = await backend.read()
    assert reading.switch == OFF
    assert reading.components is not None
    assert reading.components["billing"].switch == NOTED
    assert 540 < int(redis_server.cli("TTL", "maintenance:billing")) <= 600
    await backend.write(ON)
    assert not await backend.compare_and_set(reading, ON, component="billing", keep_ttl=True)


async def test_without_scripts_it_compares_first(redis_server: RedisServer) -> None:
    rights = ("on", ">secret", "~*", "&*", "+@all", "-@scripting")
    redis_server.cli("ACL", "SETUSER", "plain", *rights)
    try:
        backend = backend_from_url(redis_server.url_of("plain", "secret"))
        seen = await backend.read()
        assert await backend.compare_and_set(seen, NOTED)
        assert not await backend.compare_and_set(seen, ON)
        with pytest.raises(UnsupportedError):
            await backend.compare_and_set(await backend.read(), ON, keep_ttl=True)
        assert (await backend.read()).switch == NOTED
    finally:
        redis_server.cli("ACL", "DELUSER", "plain")


async def test_custom_backend_has_it_too() -> None:
    board = Switchboard()
    seen = await board.read()
    assert await board.compare_and_set(seen, ON)
    assert board.value
    assert not await board.compare_and_set(seen, ON)
    await board.acquire(Hold("a", ON), 30.0)
    assert await board.compare_and_set(await board.read(), OFF, end_holds=True)
    assert ((await board.read()).switch, (await board.read()).holds) == (OFF, ())


@keeping_or_not
async def test_unsupported_states_are_refused(tmp_path: Path, keep_ttl: bool) -> None:
    board, file = Switchboard(), backend_from_url(f"file:{tmp_path}/switch.json")
    environment = EnvVarBackend("UNUSED_HERE")
    with pytest.raises(UnsupportedError, match="only on or off"):
        await board.compare_and_set(await board.read(), NOTED, keep_ttl=keep_ttl)
    for without_scopes in (board, file):
        with pytest.raises(UnsupportedError, match="no switches of components"):
            await without_scopes.compare_and_set(
                await without_scopes.read(), NOTED, component="billing"
            )
    with pytest.raises(ReadOnlyBackendError):
        await environment.compare_and_set(await environment.read(), ON, keep_ttl=keep_ttl)
