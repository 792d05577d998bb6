"""The history: what every change leaves there, once, and nothing of what cannot be read."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance import maintenance_mode_on
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.history import read_entry
from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.coordination.barrier import registered_workers
from fastapi_maintenance.exceptions import BackendError, ConfigurationError, UnsupportedError
from fastapi_maintenance.model.history import Change
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from tests.conftest import RedisServerFactory
from tests.support.servers import RedisServer
from tests.support.topologies import cluster, sentinel_group
from tests.support.waiting import eventually, eventually_sync
from tests.support.workers import Workers

from .conftest import MakeUser
from .links import Worker, linked
from .scripted import scripted

SOON: Final = 30.0
TTL: Final = 0.3
HERE: Final = (socket.gethostname(), os.getpid())
ON_WITH_REASON: Final = MaintenanceState(enabled=True, by="ana", reason="OPS-417")


async def kinds(backend: RedisBackend) -> list[str]:
    return [change.kind for change in await backend.history()]


async def has_kinds(backend: RedisBackend, *expected: str) -> None:
    async def equal() -> bool:
        assert await kinds(backend) == list(expected)
        return True

    await eventually(equal, within=SOON)


async def end_of_the_hold(backend: RedisBackend) -> float:
    (hold,) = (await backend.read()).holds or ()
    return hold.deadline


async def is_renewed(backend: RedisBackend, first: float) -> bool:
    return await end_of_the_hold(backend) > first


@asynccontextmanager
async def workers(
    url: str, count: int = 1, *, ttl: float = TTL, components: tuple[str, ...] = (), **options: Any
) -> AsyncIterator[list[Worker]]:
    """So many, each with a backend and a link of its own."""
    async with AsyncExitStack() as stack:
        linked_ones = []
        for _ in range(count):
            backend = RedisBackend(url, ttl=ttl, **options)
            backend.follow_components(components)
            linked_ones.append(
                await stack.enter_async_context(linked(backend, Worker(reporting=True)))
            )
        yield linked_ones


async def another_sync_of(crew: list[Worker]) -> None:
    """Every one of them has looked again, and could have recorded what it saw."""
    before = [worker.syncs for worker in crew]
    for worker, syncs in zip(crew, before, strict=True):
        await eventually(lambda worker=worker, syncs=syncs: worker.syncs > syncs + 1, within=SOON)  # type: ignore[misc]


# -- what is done through the package --------------------------------------------------------------


@pytest.mark.every_redis
@pytest.mark.as_worker
async def test_a_switch_that_is_set_says_when_who_where_what_and_why(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    before = time.time()

    await backend.write(ON_WITH_REASON)
    await backend.as_operator("ben").write(OFF)
    on, off = await backend.history()

    assert (on.kind, on.state, on.by, on.reason, on.host, on.pid) == (
        "set",
        ON_WITH_REASON,
        "ana",
        "OPS-417",
        *HERE,
    )
    assert before - 1 < on.at.timestamp() <= off.at.timestamp() < time.time() + 1
    assert (off.kind, off.state, off.by) == ("set", OFF, "ben")


async def test_what_changes_nothing_is_no_change(redis_url: str) -> None:
    backend = RedisBackend(redis_url)

    await backend.write(OFF)
    await backend.write(ON)
    await backend.write(ON, expires_in=60)
    await backend.write_component("billing", OFF)

    assert await kinds(backend) == ["set"]


async def test_a_scope_is_named_and_can_be_asked_for_alone(redis_url: str) -> None:
    backend = RedisBackend(redis_url)

    await backend.write(ON)
    await backend.write_component("billing", ON_WITH_REASON)
    await backend.acquire(Hold("a", ON, component="billing"), 30)
    await backend.acquire(Hold("b", ON), 30)

    assert [change.component for change in await backend.history()] == [
        None,
        "billing",
        "billing",
        None,
    ]
    assert [change.kind for change in await backend.history(component="billing")] == [
        "set",
        "taken",
    ]
    assert [change.kind for change in await backend.history(component="billing", limit=1)] == [
        "taken"
    ]


async def test_the_newest_come_last_and_no_more_than_asked_for(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    for number in range(5):
        await backend.write(MaintenanceState(enabled=True, reason=str(number)))

    assert [change.reason for change in await backend.history(limit=2)] == ["3", "4"]
    with pytest.raises(ConfigurationError, match="at least 1"):
        await backend.history(limit=0)


@pytest.mark.every_redis
@pytest.mark.as_worker
async def test_history_of_a_hold_has_no_renewals(redis_url: str) -> None:
    backend = RedisBackend(redis_url)

    async with maintenance_mode_on(backend, reason="OPS-417", lease=6.0) as block:
        first = await end_of_the_hold(backend)
        await eventually(partial(is_renewed, backend, first), within=SOON)  # after a second
        block.check()
    taken, released = await backend.history()

    assert (taken.kind, released.kind) == ("taken", "released")
    assert taken.hold == released.hold is not None
    assert (taken.reason, taken.host, taken.pid) == ("OPS-417", *HERE)
    assert (released.state, released.host) == (taken.state, HERE[0])


async def test_a_hold_that_is_released_twice_is_released_once(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    held = await backend.acquire(Hold("a", ON), 30)

    await backend.release(held)
    await backend.release(held)

    assert await kinds(backend) == ["taken", "released"]


async def test_state_kept_by_a_failed_block_is_a_change(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    held = await backend.acquire(Hold("a", ON), 30)

    await backend.release(held, keep=ON_WITH_REASON)
    _, kept, released = await backend.history()

    assert (kept.kind, kept.state, kept.by, kept.pid) == ("set", ON_WITH_REASON, "ana", HERE[1])
    assert (released.kind, released.hold) == ("released", "a")


async def test_force_is_one_entry(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    await backend.write(ON)
    await backend.acquire(Hold("a", ON), 30)

    await backend.as_operator("ana").clear()

    cleared = (await backend.history())[-1]
    assert await kinds(backend) == ["set", "taken", "cleared"]
    assert (cleared.by, cleared.state, cleared.host) == ("ana", OFF, HERE[0])


async def test_an_amendment_says_what_became_of_the_switch(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    await backend.write(ON)

    assert await backend.compare_and_set(await backend.read(), ON_WITH_REASON, keep_ttl=True)

    assert (await backend.history())[-1].state == ON_WITH_REASON


async def test_an_exchange_is_recorded_if_it_happens(redis_url: str) -> None:
    backend = RedisBackend(redis_url).as_operator("ana")
    seen = await backend.read()

    assert await backend.compare_and_set(seen, ON)
    assert not await backend.compare_and_set(seen, OFF)
    assert await backend.compare_and_set(await backend.read(), OFF, end_holds=True)
    switched, cleared = await backend.history()

    assert (switched.kind, switched.state, switched.by) == ("set", ON, "ana")
    assert (cleared.kind, cleared.by) == ("cleared", "ana")


async def test_expired_lease_is_recorded_once(redis_url: str, operator: Any, keys: Keys) -> None:
    backend = RedisBackend(redis_url)
    async with workers(redis_url, 3) as crew:
        await backend.acquire(
            Hold("a", MaintenanceState(enabled=True, by="ana"), component="billing"), 0.2
        )
        await has_kinds(backend, "taken", "lapsed")
        await another_sync_of(crew)

    lapsed = (await backend.history())[-1]
    assert await kinds(backend) == ["taken", "lapsed"]
    assert (lapsed.hold, lapsed.by, lapsed.component) == ("a", "ana", "billing")
    assert not await operator.exists(keys.holds)


async def test_expired_lease_without_rights_is_recorded_once(
    redis_url: str, make_user: MakeUser
) -> None:
    backend = RedisBackend(redis_url)
    user = await make_user("-hdel")
    await backend.acquire(Hold("a", ON), 0.01)
    async with workers(user.url, 2) as crew:
        await another_sync_of(crew)

    assert await kinds(backend) == ["taken"]


async def test_lease_expired_unseen_is_recorded_by_the_first_worker(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    await backend.acquire(Hold("a", ON), 0.01)
    await asyncio.sleep(0.05)
    async with workers(redis_url):
        await has_kinds(backend, "taken", "lapsed")

    assert [change.hold for change in await backend.history()] == ["a", "a"]


async def test_a_hold_that_is_renewed_too_late_stands_again(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    async with workers(redis_url):
        held = await backend.acquire(Hold("a", ON), 0.01)
        await has_kinds(backend, "taken", "lapsed")
        assert await backend.renew(held, 30)

    assert await kinds(backend) == ["taken", "lapsed", "restored"]


# -- what is written past it -----------------------------------------------------------------------


@pytest.mark.every_redis
@pytest.mark.as_worker
async def test_four_workers_record_a_bare_write_once(redis_url: str, operator: Any) -> None:
    backend = RedisBackend(redis_url)
    async with workers(redis_url, 4) as crew:
        await another_sync_of(crew)
        await operator.set("maintenance", "1")
        await has_kinds(backend, "noticed")
        await another_sync_of(crew)
        await operator.set("maintenance", '{"enabled": true, "by": "ana", "reason": "OPS-417"}')
        await has_kinds(backend, "noticed", "noticed")
        await operator.delete("maintenance")
        await has_kinds(backend, "noticed", "noticed", "noticed")
        await another_sync_of(crew)
    bare, described, gone = await backend.history()

    assert (bare.state, bare.by, bare.pid) == (ON, None, HERE[1])
    assert (described.state, described.by, described.reason) == (ON_WITH_REASON, "ana", "OPS-417")
    assert gone.state == OFF


async def test_workers_record_nothing_that_is_recorded_already(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    async with workers(redis_url, 2, components=("billing",)) as crew:
        await backend.write(ON_WITH_REASON)
        await backend.write_component("billing", ON)
        await another_sync_of(crew)
        await backend.write_component("billing", OFF)
        await backend.clear()
        await another_sync_of(crew)

    assert await kinds(backend) == ["set", "set", "set", "cleared"]


async def test_workers_of_other_scopes_do_not_confuse_each_other(
    redis_url: str, operator: Any
) -> None:
    backend = RedisBackend(redis_url)
    async with (
        workers(redis_url, components=("billing",)) as some,
        workers(redis_url, components=("search",)) as others,
        workers(redis_url) as more,
    ):
        await operator.set("maintenance:billing", "1")
        await operator.set("maintenance:search", "1")
        await has_kinds(backend, "noticed", "noticed")
        await another_sync_of(some + others + more)
        assert sorted(str(change.component) for change in await backend.history()) == [
            "billing",
            "search",
        ]


@pytest.mark.parametrize("bare", [True, False])
async def test_a_time_to_live_that_is_over_is_no_write(
    bare: bool, redis_url: str, operator: Any
) -> None:
    backend = RedisBackend(redis_url)
    async with workers(redis_url, 2) as crew:
        if bare:
            await operator.set("maintenance", "1", px=1500)
        else:
            await backend.write(ON, expires_in=1.5)
        await has_kinds(backend, "noticed" if bare else "set", "expired")
        await another_sync_of(crew)

    expired = (await backend.history())[-1]
    assert (expired.kind, expired.state) == ("expired", OFF)


async def test_a_switch_that_is_deleted_before_its_time_is_deleted(
    redis_url: str, operator: Any
) -> None:
    backend = RedisBackend(redis_url)
    async with workers(redis_url):
        await operator.set("maintenance", "1", ex=600)
        await has_kinds(backend, "noticed")
        await operator.delete("maintenance")
        await has_kinds(backend, "noticed", "noticed")


async def test_a_longer_time_to_live_is_remembered_and_no_entry(
    redis_url: str, operator: Any, keys: Keys
) -> None:
    backend = RedisBackend(redis_url)
    async with workers(redis_url):
        await operator.set("maintenance", "1", ex=600)
        await has_kinds(backend, "noticed")
        await operator.expire("maintenance", 6000)

        async def is_remembered() -> bool:
            end = int((await operator.hget(keys.recorded, "")).split()[0])
            return end / 1000 - time.time() > 5000

        await eventually(is_remembered, within=SOON)
    assert await kinds(backend) == ["noticed"]


async def test_unseen_bare_write_is_recorded_before_the_next(redis_url: str, operator: Any) -> None:
    backend = RedisBackend(redis_url)
    await operator.set("maintenance", '{"enabled": true, "reason": "by hand"}')

    await backend.as_operator("ana").write(OFF)
    seen, done = await backend.history()

    assert (seen.kind, seen.reason, seen.by, seen.pid) == ("noticed", "by hand", None, HERE[1])
    assert (done.kind, done.state, done.by) == ("set", OFF, "ana")


@pytest.mark.parametrize(
    ("value", "error"),
    [("maybe", "not a boolean word"), ("x" * 70_000, "too long"), ("1" + " " * 3000, "too long")],
)
async def test_a_value_that_cannot_be_read_or_kept_is_noticed_too(
    redis_url: str, operator: Any, value: str, error: str
) -> None:
    backend = RedisBackend(redis_url)
    async with workers(redis_url, 2) as crew:
        await operator.set("maintenance", value)
        await has_kinds(backend, "noticed")
        await another_sync_of(crew)
        await backend.write(OFF)
        await another_sync_of(crew)
    noticed, off = await backend.history()

    assert noticed.state is None
    assert error in str(noticed.error)
    assert off.kind == "set"


async def test_a_switch_of_the_wrong_type_is_noticed_too(redis_url: str, operator: Any) -> None:
    backend = RedisBackend(redis_url)
    async with workers(redis_url) as crew:
        await operator.rpush("maintenance", "1")
        await has_kinds(backend, "noticed")
        await another_sync_of(crew)

    (noticed,) = await backend.history()
    assert (noticed.state, noticed.error) == (None, "wrong type")


async def test_an_idle_worker_writes_nothing(redis_url: str, operator: Any, keys: Keys) -> None:
    async with workers(redis_url, 2) as crew:
        await another_sync_of(crew)
        assert await operator.exists(keys.history) == 0
        assert await operator.hkeys(keys.recorded) == [b"!epochs"]


# -- a cap, and untrusted entries ------------------------------------------------------------------


@pytest.mark.every_redis
async def test_the_stream_stays_small(redis_url: str, operator: Any, keys: Keys) -> None:
    backend = RedisBackend(redis_url)
    pipe = operator.pipeline(transaction=False)
    for _ in range(3000):
        pipe.xadd(keys.history, {"kind": "set"})
    await pipe.execute()

    await backend.write(ON)

    assert 1000 <= await operator.xlen(keys.history) <= 1100
    assert len(await backend.history(limit=5000)) <= 1100


async def test_a_long_message_is_not_kept(redis_url: str, operator: Any, keys: Keys) -> None:
    backend = RedisBackend(redis_url)
    await backend.write(MaintenanceState(enabled=True, message="x" * 60_000))
    await backend.acquire(Hold("a", MaintenanceState(enabled=True, message="x" * 60_000)), 0.01)
    async with workers(redis_url):
        await has_kinds(backend, "set", "taken", "lapsed")

    assert await operator.memory_usage(keys.history) < 10_000
    assert (await backend.history())[-1].error == "too long to be kept here"


async def test_garbage_in_the_stream_is_passed_over(
    redis_url: str, operator: Any, keys: Keys
) -> None:
    backend = RedisBackend(redis_url)
    garbage: list[dict[str | bytes, str | bytes]] = [
        {"x": "y"},
        {"kind": "of a newer version"},
        {b"\xff": b"\xff"},
        {"kind": b"\xff"},
        {"kind": "set", "note": "{"},
        {"kind": "set", "note": '{"pid": "many"}'},
    ]
    for fields in garbage:
        await operator.xadd(keys.history, fields)
    await backend.write(ON)
    await operator.xadd(keys.history, {"kind": "set"}, id="99999999999999999-0")

    assert [change.state for change in await backend.history()] == [ON]
    assert [change.state async for change in first(backend, 1)] == [ON]


@given(
    st.dictionaries(
        st.sampled_from([b"kind", b"note", b"scope", b"hold", b"value", b"error"]),
        st.binary(max_size=60),
    ),
    st.binary(),
)
def test_any_entry_is_read_or_passed_over(fields: dict[bytes, bytes], id: bytes) -> None:
    for each in (
        fields,
        fields | {b"kind": b"noticed"},
        fields | {b"kind": b"lapsed", b"note": b"{}"},
    ):
        for name in (b"1700000000000-0", id):
            change = read_entry(name, each)
            assert change is None or json.dumps(change.to_json())


def test_entry_of_a_hold_without_a_value_has_no_state() -> None:
    change = read_entry(b"1700000000000-0", {b"kind": b"lapsed", b"hold": b"a"})

    assert change is not None
    assert (change.kind, change.hold, change.state) == ("lapsed", "a", None)


@pytest.mark.parametrize(
    "reply",
    [
        b":1\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n*2\r\n$3\r\n1-0\r\n*1\r\n$1\r\na\r\n",
        b"*1\r\n*2\r\n:1\r\n*0\r\n",
        b"+OK\r\n",
    ],
)
async def test_a_reply_that_is_no_history_is_a_backend_error(reply: bytes) -> None:
    async with scripted(lambda heard: reply if b"XREVRANGE" in heard else b"+OK\r\n") as server:
        with pytest.raises(BackendError, match="something else than a history"):
            await RedisBackend(f"redis://127.0.0.1:{server.port}").history()


# -- the change counts more than its record --------------------------------------------------------


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    return lambda: [
        record
        for record in caplog.records
        if getattr(record, "maintenance_event", "") == "unrecorded"
    ]


@pytest.mark.every_redis
async def test_history_without_the_right_is_logged_once(
    operator: Any, make_user: MakeUser, complaints: Callable[[], list[logging.LogRecord]]
) -> None:
    user = await make_user("-xadd")
    backend = RedisBackend(user.url)

    await backend.write(ON)
    held = await backend.acquire(Hold("a", ON), 30)
    await backend.release(held, keep=ON_WITH_REASON)
    assert (await backend.read()).switch == ON_WITH_REASON
    assert len(complaints()) == 1
    async with workers(user.url) as crew:
        await operator.set("maintenance", "0")
        await eventually(crew[0].is_off, within=SOON)
        await eventually(lambda: crew[0].last.registered, within=SOON)
        await operator.set("maintenance", "1")
        await eventually(crew[0].is_on, within=SOON)
        await another_sync_of(crew)
        # The caller's and the worker's.
        await eventually(lambda: len(complaints()) == 2, within=SOON)

    assert "lacks them" in complaints()[0].getMessage()
    assert "any@" not in complaints()[0].getMessage()
    assert await backend.history() == ()


@pytest.mark.parametrize("key", ["history", "recorded"])
async def test_keys_of_the_wrong_type_cost_the_record_and_nothing_else(
    key: str,
    redis_url: str,
    operator: Any,
    keys: Keys,
    complaints: Callable[[], list[logging.LogRecord]],
) -> None:
    await operator.set(getattr(keys, key), "mine")
    backend = RedisBackend(redis_url)
    async with workers(redis_url) as crew:
        await backend.write(ON)
        await eventually(crew[0].is_on, within=SOON)
        await operator.delete("maintenance")
        await eventually(crew[0].is_off, within=SOON)
        await eventually(lambda: crew[0].last.registered, within=SOON)
        await eventually(lambda: len(complaints()) == 2, within=SOON)

    assert "WRONGTYPE" in complaints()[0].getMessage()
    if key == "history":
        with pytest.raises(BackendError, match=r"history.* cannot be read: WRONGTYPE"):
            await backend.history()
    else:
        assert await kinds(backend) == ["set"]


async def test_full_server_can_be_turned_off_and_refuses_on(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    backend = RedisBackend(server.url)
    await backend.write(ON)
    held = await backend.acquire(Hold("a", ON), 60)
    server.cli("CONFIG", "SET", "maxmemory", "1")

    with pytest.raises(BackendError, match="maxmemory"):
        await backend.write(ON_WITH_REASON)
    assert (await backend.read()).switch == ON
    await backend.write(OFF)
    await backend.release(held)
    reading = await backend.read()
    assert (reading.switch, reading.holds) == (OFF, ())


async def test_who_may_not_read_it_is_told_so(make_user: MakeUser) -> None:
    user = await make_user("-xrevrange", "-xread")

    with pytest.raises(UnsupportedError, match="does not permit this user to read the history"):
        await RedisBackend(user.url).history()
    with pytest.raises(UnsupportedError, match="does not permit this user to read the history"):
        await anext(RedisBackend(user.url).follow_history())


# -- losses ----------------------------------------------------------------------------------------


async def test_what_is_put_back_after_a_loss_is_said_once(redis_url: str, operator: Any) -> None:
    backend = RedisBackend(redis_url)
    async with workers(redis_url, 3, components=("billing",)) as crew:
        await backend.write(ON_WITH_REASON)
        await backend.write_component("billing", ON)
        await backend.acquire(Hold("a", MaintenanceState(enabled=True, by="ben")), 60)
        await another_sync_of(crew)
        await operator.flushall()
        await has_kinds(backend, "restored", "restored", "restored")
        await another_sync_of(crew)
    changes = await backend.history()

    assert {(change.component, change.hold, change.by) for change in changes} == {
        (None, None, "ana"),
        ("billing", None, None),
        (None, "a", "ben"),
    }
    assert all(change.pid == HERE[1] for change in changes)


async def test_a_loss_of_nothing_is_said_too(redis_url: str, operator: Any) -> None:
    backend = RedisBackend(redis_url)
    async with workers(redis_url, 3) as crew:
        await another_sync_of(crew)
        await operator.flushall()
        await has_kinds(backend, "lost")
        await another_sync_of(crew)

    (lost,) = await backend.history()
    assert (lost.kind, lost.state, lost.pid) == ("lost", None, HERE[1])


async def test_a_loss_that_is_followed_is_said_once(redis_url: str, operator: Any) -> None:
    backend = RedisBackend(redis_url)
    async with workers(redis_url, 3, on_data_loss="follow") as crew:
        await backend.write(ON)
        await another_sync_of(crew)
        await operator.flushall()
        await eventually(lambda: all(worker.is_off() for worker in crew), within=SOON)
        await another_sync_of(crew)

    assert await kinds(backend) == ["lost"]


# -- following -------------------------------------------------------------------------------------


async def first(backend: RedisBackend, count: int, after: str = "") -> AsyncIterator[Change]:
    """So many changes that come."""
    left = count
    async for change in backend.follow_history(after):
        yield change
        left -= 1
        if left == 0:
            return


async def gathered(changes: AsyncIterator[Change]) -> list[str | None]:
    return [change.reason async for change in changes]


def on(reason: str) -> MaintenanceState:
    return MaintenanceState(enabled=True, reason=reason)


@pytest.mark.every_redis
@pytest.mark.as_worker
async def test_changes_are_followed_as_they_come(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    await backend.write(on("before"))
    (last,) = await backend.history()
    following = asyncio.create_task(gathered(first(backend, 2, last.id)))
    await asyncio.sleep(1.2)  # longer than it waits at a time

    await backend.write(on("one"))
    await backend.write(on("two"))

    assert await asyncio.wait_for(following, SOON) == ["one", "two"]


async def test_an_outage_does_not_end_the_following(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server()
    backend = RedisBackend(server.url, ttl=TTL)
    following = asyncio.create_task(gathered(first(backend, 2)))
    await backend.write(on("one"))
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(TTL)
    await asyncio.to_thread(server.start)

    async def written() -> bool:
        try:
            await backend.write(on("two"))
        except BackendError:
            return False
        return True

    await eventually(written, within=SOON)
    assert (await asyncio.wait_for(following, 2 * SOON))[-1] == "two"


@pytest.mark.parametrize("reply", [b"+OK\r\n", b"*1\r\n*2\r\n$1\r\nk\r\n:1\r\n"])
async def test_garbage_does_not_end_the_following_nor_make_it_busy(reply: bytes) -> None:
    asked: list[bytes] = []

    def answer(heard: bytes) -> bytes:
        asked.extend([heard] * heard.count(b"XREAD"))
        return reply if b"XREAD" in heard else b"+OK\r\n"

    async with scripted(answer) as server:
        following = asyncio.ensure_future(
            anext(RedisBackend(f"redis://127.0.0.1:{server.port}", ttl=0.2).follow_history())
        )
        await eventually(lambda: len(asked) > 1, within=SOON)
        assert not following.done()
        assert len(asked) < 20
        following.cancel()
        await asyncio.wait([following])


# -- topologies ------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
async def test_a_cluster_has_a_history_on_the_node_of_the_switch() -> None:
    with cluster() as nodes:
        await recorded_in(
            nodes.url + "?key=%7Bmaintenance%7D",
            lambda: nodes.owner.acli("SET", "{maintenance}", "1"),
        )


@pytest.mark.timeout(180)
async def test_a_master_behind_sentinels_has_a_history() -> None:
    with sentinel_group(down_after=1.0) as group:
        await recorded_in(group.url, lambda: group.master().acli("SET", "maintenance", "1"))


async def recorded_in(url: str, write_by_hand: Callable[[], Awaitable[Any]]) -> None:
    backend = RedisBackend(url, ttl=TTL, timeout=10.0)
    following = asyncio.create_task(gathered(first(backend, 2)))
    async with workers(url, 2, components=("billing",), timeout=10.0) as crew:
        await backend.write_component("billing", on("by us"))
        await write_by_hand()
        await has_kinds(backend, "set", "noticed")
        await another_sync_of(crew)

    assert await asyncio.wait_for(following, SOON) == ["by us", None]
    assert await kinds(backend) == ["set", "noticed"]


# -- processes -------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_of_four_processes_one_records_a_bare_write(redis_server: RedisServer) -> None:
    env = {"FASTAPI_MAINTENANCE_BACKEND": redis_server.url}
    with Workers("tests.apps.switched:app", count=4, env=env) as processes:

        def all_are(status: int) -> bool:
            return all(answer.status == status for answer in processes.get_all("/").values())

        def all_have_read() -> bool:
            return len(asyncio.run(registered_workers(redis_server.url))) == 4

        eventually_sync(all_have_read, within=30)
        for value, status in (
            ("1", 503),
            ("0", 200),
            ('{"enabled": true, "reason": "OPS-417"}', 503),
        ):
            redis_server.cli("SET", "maintenance", value)
            eventually_sync(partial(all_are, status), within=30)
        time.sleep(3)  # and each of them has looked again, by its poll
        pids = set(processes.pids)
    changes = asyncio.run(RedisBackend(redis_server.url).history())

    assert [change.kind for change in changes] == ["noticed"] * 3
    assert {change.pid for change in changes} <= pids


async def test_operator_writing_a_component_is_recorded(redis_url: str) -> None:
    backend = RedisBackend(redis_url).as_operator("ana")

    await backend.write_component("billing", ON)

    (change,) = await backend.history(component="billing")
    assert (change.state, change.by) == (ON, "ana")
