"""RedisBackend: what callers get, with all rights and with few, and when there is nobody to ask."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis import backend as module
from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.backends.redis.replies import read_natively
from fastapi_maintenance.exceptions import (
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    InvalidStateError,
    UnsupportedError,
)
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from tests.conftest import RedisServerFactory
from tests.support.waiting import eventually

from .conftest import MakeUser
from .links import SOON, Worker, linked, took_less_than
from .scripted import scripted

NO_SCRIPTS: Final = ("-eval", "-evalsha")
DETAILED: Final = MaintenanceState(enabled=True, message="back soon")


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "a Redis URL or a client, and not both"),
        ({"url": "redis://h", "client": Redis()}, "a Redis URL or a client, and not both"),
        ({"url": "redis://h", "ttl": 0}, "ttl must be a positive number"),
        ({"url": "redis://h", "ttl": "soon"}, "ttl must be a number of seconds, not 'soon'"),
        ({"url": "redis://h", "timeout": -1}, "timeout must be a positive number"),
        ({"url": "redis://h", "timeout": [1]}, "timeout must be a number of seconds"),
        (
            {"url": "redis://h", "on_data_loss": "panic"},
            "on_data_loss must be restore or follow, not 'panic'",
        ),
        ({"url": "redis://h", "key": ""}, "key must not be empty"),
        ({"url": "redis://:s3cret@[::1"}, "The Redis URL cannot be read"),
        ({"client": object()}, "must be a redis.asyncio.Redis"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as refused:
        RedisBackend(**options)
    assert "s3cret" not in str(refused.value)


def test_an_argument_goes_before_the_same_option_in_the_url() -> None:
    backend = RedisBackend("redis://h?ttl=5&key=a&timeout=4", ttl=0.5, key="b")

    assert backend.ttl == 0.5
    assert backend.describe() == "redis://h:6379/0?key=b"


def test_a_password_is_never_shown() -> None:
    client = Redis(host="h", username="ana", password="s3cret")

    for backend in (
        RedisBackend(client=client),
        RedisBackend("redis://ana:s3cret@h?password=s3cret"),
    ):
        assert backend.describe() == "redis://h:6379/0?key=maintenance"
        assert "s3cret" not in repr(backend)


# -- commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"unix_socket": True}, {"tls": True}, {"config": {"requirepass": "s3cret"}}]
)
async def test_it_works_in_every_way_that_redis_can_be_reached(
    own_redis_server: RedisServerFactory, options: dict[str, Any]
) -> None:
    server = own_redis_server(**options)
    url = server.url.replace("://", "://:s3cret@") if "config" in options else server.url
    backend, other = RedisBackend(url, ttl=120.0), RedisBackend(url)
    async with linked(backend) as worker:
        await other.write(DETAILED)
        await eventually(lambda: worker.sees("back soon"), within=SOON)
        assert (await backend.read()).switch == DETAILED


async def test_a_database_and_a_key_of_their_own(redis_url: str) -> None:
    here = RedisBackend(redis_url.replace("/0", "/3"), key="shop:{eu}:m")
    elsewhere = [
        RedisBackend(redis_url, key="shop:{eu}:m"),
        RedisBackend(redis_url.replace("/0", "/3")),
    ]
    await here.write(ON)
    await here.acquire(Hold("a", ON), 30.0)

    assert (await here.read()).holds
    for backend in elsewhere:
        assert ((await backend.read()).switch, (await backend.read()).holds) == (OFF, ())


async def test_a_hold_is_returned_as_it_stands(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    taken = await backend.acquire(Hold("a", DETAILED, lifts=("b",)), 30.0)
    reading = await backend.read()

    (standing,) = reading.holds or ()
    assert standing.since == taken.since
    assert standing.deadline == pytest.approx(taken.deadline, abs=0.5)  # of 30; by two replies
    assert (standing.state, standing.lifts) == (taken.state, taken.lifts) == (DETAILED, ("b",))


async def test_a_hold_that_is_too_long_is_not_taken(redis_url: str) -> None:
    backend = RedisBackend(redis_url)

    with pytest.raises(InvalidStateError, match="Shorten its texts"):
        await backend.acquire(Hold("a", MaintenanceState(enabled=True, message="x" * 70_000)), 30.0)
    assert (await backend.read()).holds == ()


@pytest.mark.parametrize("seconds", [0.0001, 0.0004])
async def test_less_than_a_millisecond_is_not_for_ever(
    redis_url: str, operator: Any, seconds: float
) -> None:
    """To Redis, no time to live is written as 0."""
    backend = RedisBackend(redis_url)
    await backend.write(ON, expires_in=seconds)
    await backend.acquire(Hold("a", ON), seconds)
    await asyncio.sleep(0.01)

    assert not await operator.exists("maintenance")
    assert (await backend.read()).holds == ()


async def test_what_cannot_be_read_has_no_value(redis_url: str, operator: Any) -> None:
    await operator.set("maintenance", "perhaps")

    with pytest.raises(BackendError, match=r"key=maintenance: .*'perhaps' is not a boolean word"):
        await RedisBackend(redis_url).get_value()


async def test_the_roll_is_called_and_a_barrier_begun(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    async with linked(RedisBackend(redis_url, ttl=120.0)) as worker:
        before = await backend.read_registry()
        begun = await backend.begin_barrier()
        after = await backend.read_registry()
        assert before.reading.epoch < begun.reading.epoch == after.reading.epoch
        assert len(begun.workers) == 1
        await eventually(lambda: worker.last.epoch == begun.reading.epoch, within=SOON)


async def test_commands_leave_no_connection_and_spare_the_client(
    redis_url: str, operator: Any
) -> None:
    client: Any = Redis.from_url(redis_url)
    await operator.client_id()
    before = {entry["id"] for entry in await operator.client_list()}
    backend = RedisBackend(client=client)
    await asyncio.gather(*(backend.read() for _ in range(20)))
    await backend.write(ON)
    for pause in (0.0, 0.0005, 0.001, 0.002):
        reading = asyncio.create_task(backend.read())
        await asyncio.sleep(pause)
        reading.cancel()
        await asyncio.wait([reading])

    assert client.connection_pool._available_connections == []
    await eventually(lambda: ids_are(operator, before), within=SOON)


async def ids_are(client: Any, expected: set[str]) -> bool:
    return {entry["id"] for entry in await client.client_list()} == expected


async def test_a_command_that_is_cancelled_is_not_swallowed(redis_url: str) -> None:
    """As asyncio.wait_for may before Python 3.12, and redis-py uses it for its own timeout."""
    backend = RedisBackend(redis_url)
    for turns in range(40):
        reading = asyncio.create_task(backend.read())
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading], timeout=5)
        assert reading.done()


def test_it_works_on_both_sides_of_a_fork(redis_url: str) -> None:
    program = f"""
import asyncio, os
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.model.state import ON, OFF
backend = RedisBackend({redis_url!r})
asyncio.run(backend.write(ON))
child = os.fork()
assert asyncio.run(backend.read()).switch == ON
asyncio.run(backend.write(ON))
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        env=os.environ,
        cwd=Path(__file__).parents[3],
        timeout=30,
    )


# -- without scripts -------------------------------------------------------------------------------


async def test_switch_without_scripts_is_read_and_written(
    make_user: MakeUser, operator: Any
) -> None:
    backend = RedisBackend((await make_user(*NO_SCRIPTS)).url)
    worker = Worker()
    backend.subscribe(worker)

    for state in (ON, DETAILED, OFF, ON):
        await backend.write(state)
        assert worker.last.switch == state
        assert (await backend.read()).switch == state
        assert await backend.get_value() is state.enabled
    assert (await backend.read()).holds == ()
    await backend.write(ON, expires_in=60)
    assert 0 < await operator.pttl("maintenance") <= 60_000
    await backend.write(OFF, expires_in=60)
    assert not await operator.exists("maintenance")


async def test_without_scripts_a_write_is_still_told_to_everybody(make_user: MakeUser) -> None:
    mute = RedisBackend((await make_user(*NO_SCRIPTS)).url)
    deaf = await make_user("-client|tracking")
    async with linked(RedisBackend(deaf.url, ttl=120.0)) as worker:
        await mute.write(ON)
        await eventually(worker.is_on, within=SOON)


USES_OF_SCRIPTS: Final[dict[str, Callable[[RedisBackend], Awaitable[object]]]] = {
    "acquire": lambda backend: backend.acquire(Hold("a", ON), 30.0),
    "renew": lambda backend: backend.renew(Hold("a", ON, since=1.0), 30.0),
    "release": lambda backend: backend.release(Hold("a", ON)),
    "clear": lambda backend: backend.clear(),
    "begin_barrier": lambda backend: backend.begin_barrier(),
    "roll_call": lambda backend: backend.read_registry(),
}


@pytest.mark.parametrize("missing", [NO_SCRIPTS, ("-hset", "-hgetall", "-hexists", "-hdel")])
@pytest.mark.parametrize("use", USES_OF_SCRIPTS)
async def test_holds_and_barriers_without_scripts_are_refused(
    make_user: MakeUser, missing: tuple[str, ...], use: str
) -> None:
    backend = RedisBackend((await make_user(*missing)).url)

    with pytest.raises(
        UnsupportedError,
        match=r"(?s)Redis does not permit this user what holds and the barrier need; ACL LOG "
        r"names it: .+",
    ):
        await USES_OF_SCRIPTS[use](backend)


async def test_write_of_a_read_only_user_is_refused(make_user: MakeUser, operator: Any) -> None:
    for rules in (("-@write", *NO_SCRIPTS), ("-@write",), ("-set", "-del")):
        backend = RedisBackend((await make_user(*rules)).url)
        for state in (ON, OFF):
            with pytest.raises(BackendError, match=r"refused to be written: .*permission"):
                await backend.write(state)
    assert not await operator.exists("maintenance")


async def test_a_write_that_reads_back_as_something_else_is_an_error(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when somebody else writes at the same time and no script makes it one step."""
    backend = RedisBackend(redis_url)

    async def write_too_late(*args: object) -> Snapshot:
        return Snapshot(OFF)

    async def refuse(*args: object, **options: object) -> object:
        raise UnsupportedError("no scripts")

    monkeypatch.setattr(backend, "_write_plainly", write_too_late)
    monkeypatch.setattr(backend._script, "run", refuse)
    with pytest.raises(BackendError, match="was written, but reads back as"):
        await backend.write(ON)


async def test_with_next_to_no_rights_reading_is_an_error(make_user: MakeUser) -> None:
    user = await make_user("-@all")

    with pytest.raises(BackendError, match=r"GET failed: .*permission"):
        await RedisBackend(user.url).read()


async def test_user_who_may_not_forget_workers_is_told_so(make_user: MakeUser) -> None:
    user = await make_user("-hdel")

    with pytest.raises(BackendError, match=r"refused to forget workers: .*permission"):
        await RedisBackend(user.url).forget(["w1"])


@pytest.mark.parametrize("changes", [1, 4])
async def test_read_without_scripts_is_tried_again_after_a_change(
    make_user: MakeUser, operator: Any, monkeypatch: pytest.MonkeyPatch, changes: int
) -> None:
    await operator.set("maintenance", "1")
    left = [None] * changes

    def read_after_changes(*args: Any) -> object:
        return left.pop() if left else read_natively(*args)

    monkeypatch.setattr(module, "read_natively", read_after_changes)
    user = await make_user(*NO_SCRIPTS)
    assert (await RedisBackend(user.url).read()).switch == ON


async def test_read_without_scripts_ends_after_too_many_changes(
    make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "read_natively", lambda *args: None)
    user = await make_user(*NO_SCRIPTS)

    with pytest.raises(BackendError, match="changed too often to be read as a whole"):
        await RedisBackend(user.url).read()


# -- when there is nobody --------------------------------------------------------------------------


async def test_nobody_there_is_an_error_at_once_that_names_the_server(free_port: int) -> None:
    backend = RedisBackend(f"redis://ana:s3cret@127.0.0.1:{free_port}")

    for use in (backend.read, backend.get_value, backend.clear, backend.read_registry):
        with (
            took_less_than(5),
            pytest.raises(
                BackendUnavailableError,
                match=f"redis://127.0.0.1:{free_port}/0.* cannot be reached",
            ) as error,
        ):
            await use()
        assert "s3cret" not in str(error.value)


async def test_a_frozen_server_is_an_error_after_the_timeout(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    backend = RedisBackend(server.url, timeout=0.3)
    server.pause()
    began = time.monotonic()
    with pytest.raises(BackendUnavailableError):
        await backend.read()
    assert 0.25 < time.monotonic() - began < 30
    server.resume()
    assert (await backend.read()).switch == OFF


async def test_a_server_that_freezes_between_connecting_and_answering(
    own_redis_server: RedisServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own_redis_server()
    backend = RedisBackend(server.url, timeout=0.3)
    connect = type(backend._server).connect

    async def connect_and_freeze(*args: Any, **options: Any) -> Any:
        connection = await connect(*args, **options)
        server.pause()
        return connection

    monkeypatch.setattr(type(backend._server), "connect", connect_and_freeze)
    with (
        took_less_than(1.5),
        pytest.raises(BackendUnavailableError, match=r"no reply within 0\.3 s"),
    ):
        await backend.write(ON)
    server.resume()


async def test_a_wrong_password_is_an_error_without_it(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server(config={"requirepass": "right"})

    with pytest.raises(BackendUnavailableError, match=r"(?i)password") as error:
        await RedisBackend(server.url.replace("://", "://:s3cret@")).read()
    assert "s3cret" not in str(error.value)


async def test_a_server_that_takes_no_writes_says_so(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server(config={"min-replicas-to-write": "1"})
    backend = RedisBackend(server.url)

    assert (await backend.read()).switch == OFF
    for use in (
        lambda: backend.write(ON),
        lambda: backend.acquire(Hold("a", ON), 30.0),
        backend.clear,
    ):
        with pytest.raises(BackendError, match=r"Redis refused: .*replicas") as error:
            await use()
        assert not isinstance(error.value, UnsupportedError)


async def test_values_of_the_wrong_type_are_healed_by_a_write(
    redis_url: str, operator: Any, keys: Keys
) -> None:
    backend = RedisBackend(redis_url)
    for key in keys.all:
        await operator.zadd(key, {"x": 1})
    await backend.write(ON)
    assert (await backend.read()).switch == ON
    with pytest.raises(BackendError, match="WRONGTYPE"):
        await backend.acquire(Hold("a", ON), 30.0)
    await backend.clear()
    await backend.acquire(Hold("a", ON), 30.0)
    assert [hold.id for hold in (await backend.read()).holds or ()] == ["a"]


@pytest.mark.parametrize("verdict", [b"", b"soon", b"9" * 400])
async def test_a_hold_whose_beginning_is_garbage_is_refused(verdict: bytes) -> None:
    fields = (
        b"$16\r\n1700000000000000\r\n$4\r\ntext\r\n$-1\r\n:-2\r\n*0\r\n"
        b"*3\r\n:1\r\n:1\r\n:1\r\n$1\r\nf\r\n"
    )
    reply = b"*11\r\n%s$%d\r\n%s\r\n*0\r\n*0\r\n$0\r\n\r\n" % (fields, len(verdict), verdict)

    async with scripted(lambda heard: reply if b"EVALSHA" in heard else b"+OK\r\n") as server:
        with pytest.raises(BackendError, match="something else than when the hold begins"):
            await RedisBackend(f"redis://127.0.0.1:{server.port}").acquire(Hold("a", ON), 30.0)
