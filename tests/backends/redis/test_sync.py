"""One sync: what it reads, registers, remembers, and puts back; with as much as the
server permits.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ReadOnlyError

from fastapi_maintenance.backends.redis import sync as module
from fastapi_maintenance.backends.redis.connection import (
    Command,
    NotSlotOwnerError,
    RedisConnection,
    Reply,
    abort,
)
from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.backends.redis.process import Process
from fastapi_maintenance.backends.redis.replies import read_registry
from fastapi_maintenance.backends.redis.script import Script, dump_hold
from fastapi_maintenance.backends.redis.server import SingleServer
from fastapi_maintenance.backends.redis.sync import Sync
from fastapi_maintenance.exceptions import BackendError, BackendUnavailableError
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from tests.conftest import RedisServerFactory
from tests.support.servers import RedisServer

from .conftest import MakeUser
from .links import Worker

pytestmark = pytest.mark.every_redis

TTL = 2.0  # a call may take half of it
WITH_MESSAGE = '{"enabled":true,"message":"back soon","mode":"full"}'


def sync_of(worker: Worker, keys: Keys, id: str = "w1", **options: Any) -> Sync:
    return Sync(
        SingleServer.from_url("redis://"),
        keys,
        worker,
        id,
        **{"ttl": TTL, "on_data_loss": "restore", "report": worker.report, **options},
    )


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[RedisConnection]:
    connection = await SingleServer.from_url(url).connect(timeout=5.0, protocol=3)
    async with RedisConnection(connection, within=5.0) as wire:
        yield wire


@pytest.fixture
async def wire(redis_url: str) -> AsyncIterator[RedisConnection]:
    async with wire_to(redis_url) as wire:
        yield wire


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def sync(worker: Worker, keys: Keys) -> Sync:
    return sync_of(worker, keys)


def admin_of(server: RedisServer) -> Any:
    return Redis.from_url(server.url)


def is_unacknowledged(sync: Sync) -> bool:
    """Asked by a function, because mypy takes a property that was true for one that stays so."""
    return sync.is_due


async def hold(operator: Any, keys: Keys, id: str, lease: float = 30.0) -> None:
    """Somebody takes a hold."""
    await operator.execute_command(
        *Script(keys).whole("acquire", id, dump_hold(Hold(id, ON)), round(lease * 1000))
    )


def texts(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage() for record in caplog.records if record.name == "fastapi_maintenance"
    ]


# -- reading and registering -----------------------------------------------------------------------


async def test_a_sync_delivers_switch_and_holds_as_of_when_it_was_sent(
    wire: RedisConnection, sync: Sync, worker: Worker, operator: Any, keys: Keys
) -> None:
    await operator.set("maintenance", WITH_MESSAGE)
    await hold(operator, keys, "a")
    before = time.monotonic()

    await sync.poll(wire, arm=False, delivery="polling")

    assert worker.last.switch == MaintenanceState(enabled=True, message="back soon")
    assert worker.held == ["a"]
    assert before <= worker.asked_at[0] <= time.monotonic()
    assert worker.last.registered


async def test_a_sync_registers_what_the_worker_reports(
    wire: RedisConnection, sync: Sync, operator: Any, keys: Keys
) -> None:
    await sync.poll(wire, arm=True, delivery="tracking")

    (registered,) = read_registry(
        await operator.execute_command(*Script(keys).whole("workers"))
    ).workers
    assert (registered.id, registered.delivery) == ("w1", "tracking")
    assert registered.lifetime == pytest.approx(3 * TTL)


async def test_arming_is_of_switch_and_epoch_only(
    wire: RedisConnection, sync: Sync, operator: Any, keys: Keys
) -> None:
    pushes: list[str] = []

    def hear() -> None:
        pushes.append("push")
        sync.disarm()

    wire._on_event = hear
    await wire.call(("CLIENT", "TRACKING", "ON", "OPTIN"), within=5.0)
    await sync.poll(wire, arm=True, delivery="tracking")
    await sync.poll(wire, arm=True, delivery="tracking")  # the first one began a life of the data
    pushes.clear()

    await operator.hset(keys.registry, "other", "{}")
    await operator.hset(keys.holds, "other", "1 1 {}")
    await wire.call(("PING",), within=5.0)
    assert pushes == []

    for key in ("maintenance", keys.epoch):
        armed, _ = await sync.poll(wire, arm=True, delivery="tracking")
        assert armed
        await operator.append(key, "")
        await operator.set(key, await operator.get(key) or "0")
        await wire.call(("PING",), within=5.0)
        assert pushes == ["push"]
        pushes.clear()


async def test_a_refused_arming_is_told_of_and_hinders_nothing(
    wire: RedisConnection, sync: Sync, worker: Worker
) -> None:
    # CLIENT TRACKING was never switched on.
    armed, _ = await sync.poll(wire, arm=True, delivery="tracking")

    assert armed is False
    assert worker.syncs == 1


async def test_a_script_that_the_server_forgot_is_sent_again(
    wire: RedisConnection, sync: Sync, worker: Worker, operator: Any
) -> None:
    await sync.poll(wire, arm=False, delivery="polling")
    await operator.script_flush()
    await sync.poll(wire, arm=False, delivery="polling")
    await sync.poll(wire, arm=False, delivery="polling")

    assert worker.syncs == 3
    assert all(reading.registered for reading in worker.readings)


async def test_worker_that_left_has_not_vanished(
    wire: RedisConnection, sync: Sync, operator: Any, keys: Keys
) -> None:
    await sync.poll(wire, arm=False, delivery="polling")
    await operator.script_flush()
    await sync.leave(wire)

    assert (
        read_registry(await operator.execute_command(*Script(keys).whole("workers"))).workers == ()
    )
    assert await operator.exists(keys.report("w1")) == 0


async def test_leaving_over_a_dead_connection_is_no_error(
    wire: RedisConnection, sync: Sync
) -> None:
    abort(wire._connection)
    await sync.leave(wire)


async def test_a_reply_that_is_no_reading_is_an_error(
    wire: RedisConnection, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sync, "_get", lambda key: ("ECHO", "garbage") if key == "maintenance" else ("TIME",)
    )
    sync._prepare()
    await sync.poll(wire, arm=False, delivery="polling")
    monkeypatch.setattr(sync, "_get", lambda key: ("TIME",))
    sync._prepare()

    with pytest.raises(BackendError, match="something else than a value"):
        await sync.poll(wire, arm=False, delivery="polling")


async def test_an_observer_reads_the_same_and_writes_nothing(
    wire: RedisConnection, worker: Worker, sync: Sync, operator: Any, keys: Keys
) -> None:
    worker.observer = True
    await hold(operator, keys, "a")
    await sync.poll(wire, arm=False, delivery="polling")
    await sync.leave(wire)

    assert worker.held == ["a"]
    assert not worker.last.registered
    assert not await operator.exists(keys.registry, keys.report("w1"))


# -- acknowledging ---------------------------------------------------------------------------------


async def test_applied_state_is_unacknowledged_until_registered(
    wire: RedisConnection, worker: Worker, sync: Sync, operator: Any
) -> None:
    worker.reporting = True
    assert not is_unacknowledged(sync)

    await sync.poll(wire, arm=False, delivery="polling")
    assert is_unacknowledged(sync)
    await sync.report(wire, "polling")
    assert not is_unacknowledged(sync)

    await operator.set("maintenance", "1")
    await sync.poll(wire, arm=False, delivery="polling")
    assert is_unacknowledged(sync)


@pytest.mark.parametrize("missing", ["-hset", "-set"])
async def test_nothing_is_unacknowledged_without_a_registry(
    make_user: MakeUser, operator: Any, worker: Worker, sync: Sync, missing: str
) -> None:
    """Else a worker on a replica would sync again and again, without a pause."""
    worker.reporting = True
    user = await make_user(*missing.split())
    async with wire_to(user.url) as wire:
        for value in ("1", "0"):
            await operator.set("maintenance", value)
            await sync.poll(wire, arm=False, delivery="polling")
            assert not is_unacknowledged(sync)


# -- with what the server permits ------------------------------------------------------------------


async def test_a_server_that_refuses_writes_is_read_with_holds(
    own_redis_server: RedisServerFactory,
    keys: Keys,
    worker: Worker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="fastapi_maintenance")
    server = own_redis_server()
    sync = sync_of(worker, keys)
    async with wire_to(server.url) as wire, admin_of(server) as admin:
        await hold(admin, keys, "a")
        await admin.config_set("maxmemory", "1")
        for _ in range(3):
            await sync.poll(wire, arm=False, delivery="polling")
        assert worker.held == ["a"]
        assert [reading.registered for reading in worker.readings] == [False, False, False]
        assert len(texts(caplog)) == 1
        assert "OOM" in texts(caplog)[0] or "maxmemory" in texts(caplog)[0]
        assert texts(caplog)[0].endswith("so no barrier can wait for this worker")

        await admin.config_set("maxmemory", "0")
        await sync.poll(wire, arm=False, delivery="polling")
        assert worker.last.registered
        assert texts(caplog)[1:] == ["Redis registers this worker again"]


async def test_holds_that_may_not_be_read_any_more_stay_known(
    make_user: MakeUser,
    operator: Any,
    keys: Keys,
    worker: Worker,
    sync: Sync,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As when an ACL is tightened under a running worker: no migration is laid open by that."""
    caplog.set_level(logging.INFO, logger="fastapi_maintenance")
    user = await make_user()
    async with wire_to(user.url) as wire:
        await operator.set("maintenance", WITH_MESSAGE, px=60_000)
        await hold(operator, keys, "a")
        await sync.poll(wire, arm=False, delivery="polling")
        known = worker.last
        await user.change("-hgetall", "-get")
        await operator.set("maintenance", "1", px=50_000)
        for _ in range(2):
            await sync.poll(wire, arm=False, delivery="polling")

        assert worker.last.switch == ON
        assert worker.last.expires_in == pytest.approx(50, abs=2)
        assert worker.held == ["a"]
        assert (worker.last.epoch, worker.last.registered) == (known.epoch, True)


async def test_without_get_there_is_no_sync(make_user: MakeUser, sync: Sync) -> None:
    user = await make_user("resetkeys")
    async with wire_to(user.url) as wire:
        with pytest.raises(BackendError, match="GET failed"):
            await sync.poll(wire, arm=False, delivery="polling")


async def test_getrange_once_refused_is_sent_to_the_next_server(
    make_user: MakeUser, sync: Sync, worker: Worker
) -> None:
    user = await make_user("-getrange")
    async with wire_to(user.url) as wire:
        await sync.poll(wire, arm=False, delivery="polling")
    assert worker.syncs == 1
    refused = sync._reading.commands

    sync.begin()

    assert ("GET", "maintenance") in refused
    assert "GETRANGE" not in {name for name, *_ in refused}
    assert ("GETRANGE", "maintenance", 0, 65536) in sync._reading.commands


# -- what cannot be read ---------------------------------------------------------------------------


async def test_what_was_known_stays_where_something_cannot_be_read(
    wire: RedisConnection, sync: Sync, worker: Worker, operator: Any, keys: Keys
) -> None:
    await operator.set("maintenance", WITH_MESSAGE, px=60_000)
    await hold(operator, keys, "a")
    await sync.poll(wire, arm=False, delivery="polling")
    known = worker.last
    await operator.set("maintenance", "garbage")
    await operator.delete(keys.holds)
    await operator.set(keys.holds, "garbage")
    for _ in range(2):
        await sync.poll(wire, arm=False, delivery="polling")

        assert (worker.last.switch, worker.last.holds) == (known.switch, known.holds)
        assert worker.last.expires_in is not None
        assert worker.last.now + worker.last.expires_in == pytest.approx(
            known.now + (known.expires_in or 0)
        )
        assert "not a boolean word" in str(worker.last.error)


# -- what changes by itself ------------------------------------------------------------------------


@pytest.mark.parametrize(("lease", "looks"), [(30.0, 15.0), (0.2, 0.1), (0.04, 0.04)])
async def test_sync_is_due_halfway_to_the_end_of_a_hold(
    wire: RedisConnection, sync: Sync, operator: Any, keys: Keys, lease: float, looks: float
) -> None:
    """The renewal of a hold is not pushed, so a look before its known end must find it."""
    at = math.inf
    while at == math.inf:  # a machine that hesitates looks when the shortest is over already
        began = time.monotonic()
        await hold(operator, keys, "a", lease)
        _, at = await sync.poll(wire, arm=False, delivery="polling")

    assert began + looks - 0.03 < at < time.monotonic() + looks + 0.03


async def test_with_nothing_that_ends_it_need_not_be_run_again(
    wire: RedisConnection, sync: Sync, operator: Any
) -> None:
    await operator.set("maintenance", "1")

    assert (await sync.poll(wire, arm=False, delivery="polling"))[1] == float("inf")


# -- what a report records -------------------------------------------------------------------------


async def read_bare_write(sync: Sync, wire: RedisConnection, operator: Any, value: str) -> None:
    """Read, as after a push, what somebody wrote past the package."""
    await operator.set("maintenance", value)
    await sync.read(wire, arm=True)


async def test_bare_write_is_recorded_by_the_next_report(
    wire: RedisConnection, sync: Sync, operator: Any, keys: Keys
) -> None:
    await sync.poll(wire, arm=True, delivery="tracking")
    await read_bare_write(sync, wire, operator, "1")
    assert is_unacknowledged(sync)
    for _ in range(2):
        await sync.report(wire, "tracking")
        assert await operator.xlen(keys.history) == 1
    assert not is_unacknowledged(sync)


async def test_bare_write_is_recorded_by_one_worker_alone(
    wire: RedisConnection, sync: Sync, operator: Any, keys: Keys
) -> None:
    other = sync_of(Worker(), keys, "w2")
    for each in (sync, other):
        await each.poll(wire, arm=True, delivery="tracking")
    await operator.set("maintenance", "1")
    for each in (sync, other):
        await each.read(wire, arm=True)
    for each in (sync, other):
        await each.report(wire, "tracking")
    assert await operator.xlen(keys.history) == 1


async def test_bare_write_is_recorded_once_the_server_takes_writes(
    own_redis_server: RedisServerFactory, sync: Sync, keys: Keys
) -> None:
    server = own_redis_server()
    async with wire_to(server.url) as wire, admin_of(server) as admin:
        await sync.poll(wire, arm=True, delivery="tracking")
        await read_bare_write(sync, wire, admin, "1")
        await admin.config_set("min-replicas-to-write", 1)
        await sync.report(wire, "tracking")
        await admin.config_set("min-replicas-to-write", 0)
        assert await admin.xlen(keys.history) == 0
        await sync.poll(wire, arm=True, delivery="tracking")
        await sync.report(wire, "tracking")
        assert await admin.xlen(keys.history) == 1


async def test_record_of_the_wrong_type_is_left_to_the_script(
    wire: RedisConnection, sync: Sync, operator: Any, keys: Keys
) -> None:
    await sync.poll(wire, arm=True, delivery="tracking")
    await operator.set(keys.recorded, "garbage")
    await read_bare_write(sync, wire, operator, "1")
    await sync.report(wire, "tracking")
    assert not is_unacknowledged(sync)


async def test_hold_over_on_this_clock_is_removed_by_a_poll(
    wire: RedisConnection, sync: Sync, worker: Worker, operator: Any, keys: Keys
) -> None:
    await hold(operator, keys, "a", lease=0.2)
    await sync.poll(wire, arm=True, delivery="tracking")
    assert worker.last.holds
    await asyncio.sleep(0.3)
    await sync.poll(wire, arm=True, delivery="tracking")
    assert await operator.hlen(keys.holds) == 0


async def test_registry_of_the_wrong_type_proves_no_loss(
    wire: RedisConnection, sync: Sync, worker: Worker, operator: Any, keys: Keys
) -> None:
    await sync.poll(wire, arm=True, delivery="tracking")
    await operator.set(keys.registry, "garbage")
    await sync.poll(wire, arm=True, delivery="tracking")
    assert worker.is_off()
    assert not worker.errors


async def test_primary_that_becomes_a_replica_is_left(
    own_redis_server: RedisServerFactory, sync: Sync
) -> None:
    server = own_redis_server()
    async with wire_to(server.url) as wire, admin_of(server) as admin:
        await sync.poll(wire, arm=True, delivery="tracking")
        await admin.replicaof("127.0.0.1", "1")
        with pytest.raises(NotSlotOwnerError, match="a replica, not the primary"):
            await sync.poll(wire, arm=True, delivery="tracking")
        sync.begin()
        with pytest.raises(BackendUnavailableError, match="a replica, not the primary"):
            await sync.poll(wire, arm=True, delivery="tracking")


# -- data that was lost ----------------------------------------------------------------------------


async def test_lost_data_is_put_back_and_off_is_never_delivered(
    wire: RedisConnection,
    sync: Sync,
    worker: Worker,
    operator: Any,
    keys: Keys,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await operator.set("maintenance", WITH_MESSAGE, px=60_000)
    await hold(operator, keys, "a")
    await sync.poll(wire, arm=False, delivery="polling")
    await operator.flushall()
    for _ in range(2):
        await sync.poll(wire, arm=False, delivery="polling")

    assert not worker.was_ever_off()
    assert worker.last.switch == MaintenanceState(enabled=True, message="back soon")
    assert worker.held == ["a"]
    assert await operator.get("maintenance") == WITH_MESSAGE.encode()
    assert 50_000 < await operator.pttl("maintenance") <= 60_000
    assert await operator.hkeys(keys.holds) == [b"a"]
    assert texts(caplog) == ["Redis lost its data; the last known state: restored"]


async def test_a_switch_whose_time_is_up_is_not_put_back(
    wire: RedisConnection, sync: Sync, worker: Worker, operator: Any
) -> None:
    await operator.set("maintenance", "1", px=30)
    await sync.poll(wire, arm=False, delivery="polling")
    await operator.flushall()
    await asyncio.sleep(0.05)
    await sync.poll(wire, arm=False, delivery="polling")

    assert worker.last.switch == OFF
    assert await operator.exists("maintenance") == 0


@pytest.mark.parametrize(
    ("value", "there"), [("0", 0), ('{"enabled":false,"message":"open"}', 1), (None, 0)]
)
async def test_off_is_put_back_only_where_it_says_more_than_off(
    wire: RedisConnection, sync: Sync, operator: Any, value: str | None, there: int
) -> None:
    if value is not None:
        await operator.set("maintenance", value)
    await sync.poll(wire, arm=False, delivery="polling")
    await operator.flushall()
    await sync.poll(wire, arm=False, delivery="polling")

    assert await operator.exists("maintenance") == there


async def test_a_switch_that_was_never_readable_is_not_put_back(
    wire: RedisConnection, sync: Sync, operator: Any
) -> None:
    await operator.set("maintenance", "garbage")
    await sync.poll(wire, arm=False, delivery="polling")
    await operator.flushall()
    await sync.poll(wire, arm=False, delivery="polling")

    assert await operator.exists("maintenance") == 0


async def test_a_delete_is_no_loss(
    wire: RedisConnection,
    sync: Sync,
    worker: Worker,
    operator: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await operator.set("maintenance", "1")
    await sync.poll(wire, arm=False, delivery="polling")
    await operator.delete("maintenance")
    await sync.poll(wire, arm=False, delivery="polling")

    assert worker.last.switch == OFF
    assert await operator.exists("maintenance") == 0
    assert texts(caplog) == []


async def test_data_loss_can_be_followed(
    wire: RedisConnection,
    worker: Worker,
    keys: Keys,
    operator: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sync = sync_of(worker, keys, on_data_loss="follow")
    await operator.set("maintenance", "1")
    await sync.poll(wire, arm=False, delivery="polling")
    await operator.flushall()
    for _ in range(3):
        await sync.poll(wire, arm=False, delivery="polling")

    assert worker.last.switch == OFF
    assert await operator.exists("maintenance") == 0
    assert texts(caplog) == ["Redis lost its data; following it, as on_data_loss='follow' says"]


async def test_what_cannot_be_put_back_yet_stays_known_until_it_can(
    own_redis_server: RedisServerFactory, keys: Keys, worker: Worker
) -> None:
    server = own_redis_server()
    sync = sync_of(worker, keys)
    async with wire_to(server.url) as wire, admin_of(server) as admin:
        await admin.set("maintenance", WITH_MESSAGE)
        await hold(admin, keys, "a")
        await sync.poll(wire, arm=False, delivery="polling")
        await admin.flushall()
        await admin.config_set("min-replicas-to-write", "1")
        for _ in range(3):
            await sync.poll(wire, arm=False, delivery="polling")
            assert worker.last.switch == MaintenanceState(enabled=True, message="back soon")
            assert worker.held == ["a"]
            assert "cannot be written again yet: Redis refused" in str(worker.last.error)
        assert not worker.was_ever_off()
        assert await admin.exists("maintenance") == 0

        await admin.config_set("min-replicas-to-write", "0")
        await sync.poll(wire, arm=False, delivery="polling")
        assert worker.last.error is None
        assert await admin.get("maintenance") == WITH_MESSAGE.encode()
        assert worker.held == ["a"]


async def test_a_rollback_that_cannot_be_mended_yet_is_mended_later(
    own_redis_server: RedisServerFactory, keys: Keys, worker: Worker
) -> None:
    server = own_redis_server()
    sync = sync_of(worker, keys)
    async with wire_to(server.url) as wire, admin_of(server) as admin:
        await admin.execute_command(*Script(keys).whole("barrier"))
        earlier = await admin.get(keys.epoch)
        await admin.execute_command(*Script(keys).whole("write", WITH_MESSAGE, 0))
        await sync.poll(wire, arm=False, delivery="polling")
        await admin.set(keys.epoch, earlier)
        await admin.delete("maintenance")
        await admin.config_set("min-replicas-to-write", "1")
        for _ in range(2):
            await sync.poll(wire, arm=False, delivery="polling")
            assert worker.sees("back soon")
        await admin.config_set("min-replicas-to-write", "0")
        await sync.poll(wire, arm=False, delivery="polling")

        assert worker.sees("back soon")
        assert await admin.get("maintenance") == WITH_MESSAGE.encode()


async def lose_the_switch_as_a_failover_does(admin: Any, keys: Keys, registration: bytes) -> None:
    """To a replica that lacks a bare SET, and so the registrations that came after it."""
    await admin.set(keys.report("w1"), registration)
    await admin.delete("maintenance")


async def test_switch_lost_without_trace_in_the_epoch_is_restored(
    own_redis_server: RedisServerFactory,
    keys: Keys,
    worker: Worker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = own_redis_server()
    sync = sync_of(worker, keys)
    async with wire_to(server.url) as wire, admin_of(server) as admin:
        await sync.poll(wire, arm=False, delivery="polling")
        earlier = await admin.get(keys.report("w1"))
        await admin.set("maintenance", WITH_MESSAGE)
        for _ in range(2):
            await sync.poll(wire, arm=False, delivery="polling")
        await lose_the_switch_as_a_failover_does(admin, keys, earlier)
        sync.begin()  # as every failover ends the connection
        await admin.config_set("min-replicas-to-write", "1")
        for _ in range(2):
            await sync.poll(wire, arm=False, delivery="polling")
            assert worker.sees("back soon")
            assert "cannot be written again yet" in str(worker.last.error)
        await admin.config_set("min-replicas-to-write", "0")
        await sync.poll(wire, arm=False, delivery="polling")
        assert await admin.get("maintenance") == WITH_MESSAGE.encode()
        assert not worker.was_ever_off(1)
        await sync.poll(wire, arm=False, delivery="polling")
        assert worker.last.registered
        assert len([text for text in texts(caplog) if text.endswith(": restored")]) == 1

        await admin.delete("maintenance")  # which is none, whatever was lost before
        await sync.poll(wire, arm=False, delivery="polling")
        assert worker.last.switch == OFF
        assert worker.last.registered


async def test_of_two_who_find_a_switch_lost_one_puts_it_back(
    wire: RedisConnection, operator: Any, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    """And somebody who deletes it then is not overruled by the second."""
    first, second = Worker(), Worker()
    syncs = [sync_of(first, keys), sync_of(second, keys, "w2")]
    for sync in syncs:
        await sync.poll(wire, arm=False, delivery="polling")
    earlier = {key: await operator.get(key) for key in map(keys.report, ("w1", "w2"))}
    await operator.set("maintenance", WITH_MESSAGE)
    for sync in syncs * 2:
        await sync.poll(wire, arm=False, delivery="polling")
    await operator.mset(earlier)
    await operator.delete("maintenance")
    for sync in syncs:
        sync.begin()

    await syncs[0].poll(wire, arm=False, delivery="polling")
    assert first.sees("back soon")
    await operator.delete("maintenance")
    await syncs[1].poll(wire, arm=False, delivery="polling")
    assert second.last.switch == OFF
    await syncs[1].poll(wire, arm=False, delivery="polling")
    assert second.last.registered
    assert [text.rsplit(": ", 1)[1] for text in texts(caplog)] == ["restored"]


async def test_old_registration_in_a_restored_life_is_renewed(
    wire: RedisConnection,
    sync: Sync,
    worker: Worker,
    operator: Any,
    keys: Keys,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await sync.poll(wire, arm=False, delivery="polling")
    earlier = await operator.get(keys.report("w1"))
    await operator.set("maintenance", "1")
    await sync.poll(wire, arm=False, delivery="polling")
    await operator.set(keys.report("w1"), earlier)
    await operator.delete("maintenance")
    sync.begin()
    await operator.set(keys.epoch, f"{time.time_ns() // 1000} 5 {worker.last.epoch} 0 0")
    for _ in range(2):
        await sync.poll(wire, arm=False, delivery="polling")

    assert worker.last.switch == OFF
    assert worker.last.registered
    assert texts(caplog) == []


async def test_while_nothing_can_be_put_back_a_new_switch_counts(
    own_redis_server: RedisServerFactory, keys: Keys, worker: Worker
) -> None:
    server = own_redis_server()
    sync = sync_of(worker, keys)
    async with wire_to(server.url) as wire, admin_of(server) as admin:
        await admin.set("maintenance", WITH_MESSAGE)
        await sync.poll(wire, arm=False, delivery="polling")
        await admin.flushall()
        await admin.set("maintenance", '{"enabled":true,"message":"new"}')
        await admin.config_set("min-replicas-to-write", "1")
        await sync.poll(wire, arm=False, delivery="polling")

        assert worker.sees("new")


async def test_connection_lost_while_restoring_forgets_nothing(
    redis_url: str,
    sync: Sync,
    worker: Worker,
    operator: Any,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await operator.set("maintenance", WITH_MESSAGE)
    async with wire_to(redis_url) as wire:
        await sync.poll(wire, arm=False, delivery="polling")
        await operator.flushall()

        async def end(*args: Any, **options: Any) -> object:
            raise BackendUnavailableError("gone")

        with monkeypatch.context() as patch:
            patch.setattr(sync._script, "run", end)
            with pytest.raises(BackendUnavailableError, match="gone"):
                await sync.poll(wire, arm=False, delivery="polling")
    assert worker.syncs == 1
    assert not await operator.exists(keys.epoch)  # who remembers a life begins no other one
    async with wire_to(redis_url) as wire:
        sync.begin()
        await sync.poll(wire, arm=False, delivery="polling")

    assert worker.sees("back soon")
    assert await operator.get("maintenance") == WITH_MESSAGE.encode()


async def test_scripts_that_are_forbidden_for_a_while_are_no_loss(
    make_user: MakeUser, operator: Any, sync: Sync, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    user = await make_user()
    async with wire_to(user.url) as wire:
        await operator.set("maintenance", "1")
        await sync.poll(wire, arm=False, delivery="polling")
        await user.change("-eval", "-evalsha")
        await operator.delete("maintenance")
        await sync.poll(wire, arm=False, delivery="polling")
        assert worker.last.switch == OFF
        await user.change("+eval", "+evalsha")
        sync.begin()
        await sync.poll(wire, arm=False, delivery="polling")

    assert worker.last.switch == OFF
    assert not any("lost" in text for text in texts(caplog))


async def test_loss_while_scripts_are_forbidden_is_noticed_later(
    make_user: MakeUser, operator: Any, sync: Sync, worker: Worker
) -> None:
    user = await make_user()
    async with wire_to(user.url) as wire:
        await operator.set("maintenance", "1")
        await sync.poll(wire, arm=False, delivery="polling")
        await user.change("-eval", "-evalsha")
        await sync.poll(wire, arm=False, delivery="polling")
        await operator.flushall()
        await user.change("+eval", "+evalsha")
        sync.begin()
        await sync.poll(wire, arm=False, delivery="polling")

    assert worker.last.switch == ON
    assert await operator.get("maintenance") == b"1"


# -- with replies that seldom come -----------------------------------------------------------------


async def test_switch_that_changes_during_every_read_is_an_error(
    wire: RedisConnection, sync: Sync, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "read_natively", lambda *args: None)

    with pytest.raises(BackendError, match="changed too often"):
        await sync.poll(wire, arm=False, delivery="polling")
    assert worker.syncs == 0


async def test_worker_beside_earlier_versions_is_seen_by_them(
    wire: RedisConnection, sync: Sync, operator: Any, keys: Keys
) -> None:
    await operator.hset(keys.workers, "old", "1 {}")
    await sync.poll(wire, arm=False, delivery="polling")
    deadline, _, report = (await operator.hget(keys.workers, "w1")).partition(b" ")
    assert int(deadline) > time.time() * 1e6
    assert b'"rung": "polling"' in report

    await sync.leave(wire)
    assert (await operator.hget(keys.workers, "w1")).endswith(b" left")


async def test_replica_that_stays_one_is_left_for_the_primary(
    wire: RedisConnection, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[Reply] = [ReadOnlyError("You can't write against a read only replica.")]
    sync.begin()
    assert not sync._accept(wire, refused)

    monkeypatch.setattr(sync._registration, "begun_at", time.monotonic() - 11 * TTL)
    with pytest.raises(NotSlotOwnerError, match="a replica, not the primary"):
        sync._accept(wire, refused)


class Asked:
    """Stands in for the calls of a sync: notes the commands, and answers each with one reply."""

    def __init__(self, reply: Reply) -> None:
        self.commands: list[Command] = []
        self._reply = reply

    async def __call__(self, *commands: Command) -> list[Reply]:
        self.commands += commands
        return [self._reply for _ in commands]


@pytest.mark.parametrize(
    ("reply", "removes"),
    [
        ([b'{"boot": "b0", "start": "7", "instance": "web-1"}'], True),
        ([b'{"boot": "b1", "start": "9", "instance": "web-1"}'], False),
        (NoPermissionError("no HMGET"), False),
    ],
)
async def test_vanished_worker_is_removed_where_its_death_is_proved(
    sync: Sync, keys: Keys, reply: Reply, removes: bool
) -> None:
    call = Asked(reply)
    registration = sync._registration
    registration._process = Process(1, "b1", "pid:[1]", "8", "web-1")
    registration.vanished = b"w2 1"

    await registration.prove_gone(call)

    asked, *removed = call.commands
    assert asked == ("HMGET", keys.registry, b"w2")
    assert removed == ([("HDEL", keys.registry, "w2")] if removes else [])
