"""Exchanging the switch: for whoever saw it as it is, and for nobody else."""

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

NOTED = MaintenanceState(enabled=True, reason="exchanged")


async def test_what_was_seen_is_exchanged(backend: BaseStateBackend) -> None:
    for state in (NOTED, OFF, ON):
        assert await backend.exchange(await backend.read(), state)
        assert (await backend.read()).switch == state


async def test_what_somebody_else_wrote_meanwhile_stays(backend: BaseStateBackend) -> None:
    await backend.write(ON)
    seen = await backend.read()
    for other in (OFF, replace_state(ON, reason="theirs")):
        await backend.write(other)
        assert not await backend.exchange(seen, NOTED)
        assert not await backend.exchange(seen, OFF, end_holds=True)
        assert (await backend.read()).switch == other


async def test_of_many_at_once_one_wins(backend: BaseStateBackend) -> None:
    seen = await backend.read()
    states = [replace_state(ON, reason=str(number)) for number in range(8)]
    won = await asyncio.gather(*(backend.exchange(seen, state) for state in states))
    assert sum(won) == 1
    assert (await backend.read()).switch == states[won.index(True)]


async def test_every_hold_can_be_ended_in_the_same_step(backend: BaseStateBackend) -> None:
    await backend.write(ON)
    hold = await backend.acquire(Hold("a", ON), 30.0)
    assert await backend.exchange(await backend.read(), OFF, end_holds=True)
    after = await backend.read()
    assert (after.switch, after.holds) == (OFF, ())
    assert not await backend.renew(hold, 30.0)


async def test_garbage_can_be_exchanged_by_whoever_saw_garbage(tmp_path: Path, redis_url: str, redis_server: RedisServer) -> None:
    (tmp_path / "switch.json").write_text("garbage")
    redis_server.cli("SET", "maintenance", "garbage")
    for backend in (backend_from_url(f"file:{tmp_path}/switch.json"), backend_from_url(redis_url)):
        assert (seen := await backend.read()).switch is None
        assert await backend.exchange(seen, NOTED)
        assert (await backend.read()).switch == NOTED


async def test_an_old_time_to_live_is_not_inherited(redis_url: str, redis_server: RedisServer) -> None:
    redis_server.cli("SET", "maintenance", "1", "EX", "600")
    backend = backend_from_url(redis_url)
    assert await backend.exchange(await backend.read(), NOTED)
    assert redis_server.cli("TTL", "maintenance") == "-1"


async def test_a_hold_that_was_taken_meanwhile_was_not_seen_in_redis(redis_url: str) -> None:
    backend = backend_from_url(redis_url)
    seen = await backend.read()
    await backend.acquire(Hold("a", ON), 30.0)
    assert not await backend.exchange(seen, NOTED)


async def test_the_switch_of_a_scope_is_exchanged_alone(redis_url: str, redis_server: RedisServer) -> None:
    backend = backend_from_url(redis_url)
    backend.follow_scopes(["billing"])
    seen = await backend.read()
    assert await backend.exchange(seen, NOTED, scope="billing")
    assert (redis_server.cli("GET", "maintenance"), redis_server.cli("EXISTS", "maintenance:billing")) == ("", "1")
    assert not await backend.exchange(seen, OFF, scope="billing")
    assert await backend.exchange(await backend.read(), OFF, scope="billing")
    assert redis_server.cli("EXISTS", "maintenance:billing") == "0"


async def test_where_scripts_are_forbidden_it_is_compared_first(redis_server: RedisServer) -> None:
    redis_server.cli("ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-@scripting")
    try:
        backend = backend_from_url(redis_server.url_of("plain", "secret"))
        seen = await backend.read()
        assert await backend.exchange(seen, NOTED)
        assert not await backend.exchange(seen, ON)
        assert (await backend.read()).switch == NOTED
    finally:
        redis_server.cli("ACL", "DELUSER", "plain")


async def test_a_backend_with_two_methods_can_be_exchanged_too() -> None:
    board = Switchboard()
    seen = await board.read()
    assert await board.exchange(seen, ON)
    assert board.value
    assert not await board.exchange(seen, ON)
    await board.acquire(Hold("a", ON), 30.0)
    assert await board.exchange(await board.read(), OFF, end_holds=True)
    assert ((await board.read()).switch, (await board.read()).holds) == (OFF, ())


async def test_backends_say_what_they_cannot_keep(tmp_path: Path) -> None:
    board, file, environment = Switchboard(), backend_from_url(f"file:{tmp_path}/switch.json"), EnvVarBackend("UNUSED_HERE")
    with pytest.raises(UnsupportedError, match="only on or off"):
        await board.exchange(await board.read(), NOTED)
    with pytest.raises(UnsupportedError, match="no switches of scopes"):
        await file.exchange(await file.read(), NOTED, scope="billing")
    with pytest.raises(ReadOnlyBackendError):
        await environment.exchange(await environment.read(), ON)
