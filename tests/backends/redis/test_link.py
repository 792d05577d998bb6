"""A worker's link to a real server: what arrives, how soon, and what every fault costs."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import AsyncMock, Mock

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis import link as link_module
from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.backends.redis.link import Delivery, Link
from fastapi_maintenance.backends.redis.script import Script, dump_hold
from fastapi_maintenance.backends.redis.sync import Sync
from fastapi_maintenance.exceptions import BackendUnavailableError
from fastapi_maintenance.model.evaluate import evaluate
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from fastapi_maintenance.model.workers import Worker as RegisteredWorker
from tests.conftest import RedisServerFactory
from tests.support.clock import Clock
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

from .conftest import MakeUser
from .links import (
    SOON,
    Worker,
    linked,
    open_files,
    recorded_commands,
    settled,
    sync_now,
    took_less_than,
)
from .parsers import PARSERS

pytestmark = pytest.mark.every_redis

TTL: Final = 0.5  # of the tests in which polls, pings or deadlines count
# Of masters: replicas get the data without a wait of five seconds.
AT_ONCE: Final = {"repl-diskless-sync-delay": "0"}
NO_POLL: Final = 120.0  # ttl of those in which only what is pushed can be noticed in time
QUIET: Final = 0.1  # after which what a change has caused is over
WITH_MESSAGE: Final = '{"enabled":true,"message":"back soon","mode":"full"}'


@pytest.fixture
def make_server(
    own_redis_server: RedisServerFactory, tmp_path: Path
) -> Callable[[int], RedisServer]:
    """For servers that know RESP3 or only RESP2."""
    without_hello = tmp_path / "resp2.conf"
    without_hello.write_text('rename-command HELLO ""\n')

    def make(resp: int) -> RedisServer:
        return own_redis_server(config={"include": str(without_hello)} if resp == 2 else {})

    return make


def admin_of(server: RedisServer) -> Any:
    """Somebody's client to a server of the test's own."""
    return Redis.from_url(server.url, socket_timeout=30)


def texts(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "fastapi_maintenance" and record.levelno >= level
    ]


async def take_hold(
    client: Any, keys: Keys, id: str, lease: float = 30.0, state: MaintenanceState = ON
) -> None:
    """Somebody takes a hold, or renews it for that."""
    await client.execute_command(
        *Script(keys).whole("acquire", id, dump_hold(Hold(id, state)), round(lease * 1000))
    )


async def registered(url: str) -> list[RegisteredWorker]:
    return sorted((await RedisBackend(url).read_registry()).workers, key=lambda worker: worker.id)


@asynccontextmanager
async def remembered_connections(
    backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Any]]:
    """Every connection that is opened meanwhile."""
    connections: list[Any] = []
    connect = type(backend._server).connect

    async def remember(*args: Any, **options: Any) -> Any:
        connections.append(connection := await connect(*args, **options))
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(type(backend._server), "connect", remember)
        yield connections


async def link_ids(client: Any) -> set[str]:
    """The connections of links that a server has."""
    return {
        entry["id"]
        for entry in await client.client_list()
        if entry["name"].startswith("fastapi-maintenance:")
    }


# -- what arrives ----------------------------------------------------------------------------------

Change = Callable[[Any], Awaitable[Any]]


async def in_a_transaction(client: Any, *commands: tuple[str, ...]) -> None:
    async with client.pipeline(transaction=True) as transaction:
        for command in commands:
            transaction.execute_command(*command)
        await transaction.execute()


CHANGES: Final[dict[str, tuple[str | None, Change, bool]]] = {
    "SET": (None, lambda client: client.set("maintenance", "1"), True),
    "SET the same": ("1", lambda client: client.set("maintenance", "1"), True),
    "SET off": ("1", lambda client: client.set("maintenance", "off"), False),
    "SET EX": (None, lambda client: client.set("maintenance", "1", ex=600), True),
    "SET NX": (None, lambda client: client.set("maintenance", "1", nx=True), True),
    "DEL": ("1", lambda client: client.delete("maintenance"), False),
    "UNLINK": ("1", lambda client: client.unlink("maintenance"), False),
    "GETDEL": ("1", lambda client: client.getdel("maintenance"), False),
    "GETSET": (None, lambda client: client.getset("maintenance", "1"), True),
    "INCR": (None, lambda client: client.incr("maintenance"), True),
    "DECR": ("1", lambda client: client.decr("maintenance"), False),
    "APPEND": (None, lambda client: client.append("maintenance", "on"), True),
    "MSET": (None, lambda client: client.mset({"a": "b", "maintenance": "1", "c": "d"}), True),
    "RENAME in": (None, lambda client: client.rename("there", "maintenance"), True),
    "RENAME out": ("1", lambda client: client.rename("maintenance", "elsewhere"), False),
    "COPY": (None, lambda client: client.copy("there", "maintenance"), True),
    "MOVE": ("1", lambda client: client.move("maintenance", 1), False),
    "EXPIRE": ("1", lambda client: client.expire("maintenance", -1), False),
    "MULTI": (
        None,
        lambda c: in_a_transaction(
            c, ("SET", "maintenance", "1"), ("DEL", "maintenance"), ("SET", "maintenance", "1")
        ),
        True,
    ),
    "Lua": (
        None,
        lambda c: c.eval(
            "redis.call('SET', KEYS[1], '0') return redis.call('SET', KEYS[1], '1')",
            1,
            "maintenance",
        ),
        True,
    ),
}


@pytest.mark.as_worker
@pytest.mark.parametrize("name", CHANGES)
async def test_a_bare_change_arrives_at_once_and_costs_one_sync(
    redis_url: str, operator: Any, name: str
) -> None:
    before, change, on = CHANGES[name]
    await operator.set("there", "1")
    if before is not None:
        await operator.set("maintenance", before)
    backend = RedisBackend(redis_url, ttl=NO_POLL)
    async with linked(backend) as worker:
        syncs = await settled(backend, worker)
        await change(operator)
        await eventually(lambda: worker.syncs > syncs, within=SOON)
        assert worker.is_on() is on
        assert await settled(backend, worker) == syncs + 1


@pytest.mark.as_worker
@pytest.mark.parametrize("parser", PARSERS)
async def test_changes_arrive_one_after_the_other(
    redis_url: str, operator: Any, parser: Any
) -> None:
    client = Redis.from_url(redis_url, parser_class=parser)
    async with client, linked(RedisBackend(client=client, ttl=NO_POLL)) as worker:
        for number in range(10):
            await operator.set("maintenance", f'{{"enabled": true, "message": "{number}"}}')
            await eventually(partial(worker.sees, str(number)), within=SOON)
            await operator.delete("maintenance")
            await eventually(worker.is_off, within=SOON)


@pytest.mark.as_worker
async def test_worker_reports_what_it_has_applied_without_another_read(
    redis_url: str, operator: Any
) -> None:
    backend = RedisBackend(redis_url, ttl=NO_POLL)
    async with linked(backend, Worker(reporting=True)) as worker:
        syncs = await settled(backend, worker)
        await operator.set("maintenance", "1")
        await eventually(worker.is_on, within=SOON)

        assert await settled(backend, worker) == syncs + 1
        (mine,) = await registered(redis_url)
        assert mine.applied == worker.last.fingerprint


@pytest.mark.as_worker
async def test_holds_and_writes_of_others_arrive_at_once(redis_url: str) -> None:
    other = RedisBackend(redis_url)
    backend = RedisBackend(redis_url, ttl=NO_POLL)
    async with linked(backend) as worker:
        syncs = await settled(backend, worker)
        first = await other.acquire(Hold("a", ON), 30.0)
        await eventually(lambda: worker.held == ["a"], within=SOON)
        second = await other.acquire(Hold("b", OFF, lifts=("a",)), 30.0)
        await eventually(worker.is_off, within=SOON)
        await other.release(second)
        await eventually(worker.is_on, within=SOON)
        await other.release(first, keep=MaintenanceState(enabled=True, message="kept"))
        await eventually(lambda: worker.sees("kept"), within=SOON)
        await other.clear()
        await eventually(worker.is_off, within=SOON)
        await other.write(MaintenanceState(enabled=True, message="written"), expires_in=60)
        await eventually(lambda: worker.sees("written"), within=SOON)
        assert await settled(backend, worker) - syncs <= 2 * 6


@pytest.mark.as_worker
async def test_renewals_and_registrations_wake_nobody(redis_url: str) -> None:
    other = RedisBackend(redis_url)
    hold = await other.acquire(Hold("a", ON), 300.0)
    backend = RedisBackend(redis_url, ttl=NO_POLL)
    async with linked(backend) as worker:
        syncs = await settled(backend, worker)
        for _ in range(3):
            assert await other.renew(hold, 300.0)
        async with linked(RedisBackend(redis_url, ttl=NO_POLL)):
            await other.read_registry()
        assert await settled(backend, worker) == syncs


async def test_other_keys_and_other_switches_wake_nobody(redis_url: str, operator: Any) -> None:
    backend = RedisBackend(redis_url, ttl=NO_POLL)
    async with linked(backend) as worker:
        syncs = await settled(backend, worker)
        await operator.set("maintenance2", "1")
        await operator.set("{maintenance}:history", "1")
        await RedisBackend(redis_url, key="other").write(ON)
        assert await settled(backend, worker) == syncs


@pytest.mark.as_worker
async def test_no_change_is_lost_however_close_it_comes_to_a_sync(
    redis_url: str, operator: Any
) -> None:
    """Between arming and reading, between two reads, while waiting: whatever it hits, the last
    value counts.
    """
    dice = random.Random(7)
    async with linked(
        RedisBackend(redis_url, ttl=NO_POLL), Worker(reporting=True), busy=True
    ) as worker:
        for number in range(150):
            for _ in range(dice.randint(1, 4)):
                await operator.set("maintenance", "0")
                await asyncio.sleep(dice.choice([0, 0, 0.0002, 0.0005, 0.001, 0.002]))
            await operator.set("maintenance", f'{{"enabled": true, "message": "{number}"}}')
            await eventually(partial(worker.sees, str(number)), within=SOON, every=0.001)


async def test_a_push_during_a_sync_causes_exactly_one_more(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = 0
    run = Sync.read

    async def run_while_pushed_at(sync: Sync, *args: Any, **options: Any) -> tuple[bool, float]:
        nonlocal runs
        runs += 1
        outcome = await run(sync, *args, **options)
        if runs == pushed_at:
            for _ in range(3):
                (link,) = backend._links
                link._hear()
        return outcome

    backend = RedisBackend(redis_url, ttl=NO_POLL)
    monkeypatch.setattr(Sync, "read", run_while_pushed_at)
    pushed_at = 0
    async with linked(backend) as worker:
        await settled(backend, worker)
        pushed_at = runs + 1
        sync_now(backend)
        await eventually(lambda: runs > pushed_at, within=SOON)
        await settled(backend, worker)
        assert runs == pushed_at + 1


async def test_thousand_flips_a_second_cause_one_sync_at_a_time(
    redis_url: str, operator: Any
) -> None:
    async with linked(RedisBackend(redis_url, ttl=NO_POLL), busy=True) as worker:
        began, flips, syncs = time.monotonic(), 0, worker.syncs
        while (elapsed := time.monotonic() - began) < 3:
            due = round(elapsed * 1000)
            async with operator.pipeline(transaction=False) as pipeline:
                for flip in range(flips, due):
                    pipeline.set("maintenance", str(flip % 2))
                await pipeline.execute()
            flips = max(flips, due)
            await asyncio.sleep(0.002)
        await operator.set("maintenance", WITH_MESSAGE)
        await eventually(lambda: worker.sees("back soon"), within=SOON)
        assert flips >= 1000, "a machine that is too slow for a flood proves nothing"
        assert worker.syncs - syncs < flips
        assert len(worker.errors) == 0


async def test_pushed_reads_keep_a_distance(redis_url: str, operator: Any) -> None:
    async with linked(RedisBackend(redis_url, ttl=NO_POLL), busy=True) as worker:
        syncs, began = worker.syncs, time.monotonic()
        while time.monotonic() < began + 1.0:
            await operator.incr("maintenance")
            await asyncio.sleep(0.001)
        await eventually(lambda: worker.syncs > syncs, within=SOON)
        assert worker.syncs - syncs <= 10 + (time.monotonic() - began) / 0.01


@pytest.mark.parametrize(
    ("took", "pause"), [(0.0, 0.01), (0.001, 0.01), (0.02, 0.08), (0.1, 0.4), (0.3, 0.5)]
)
async def test_pause_after_a_read_grows_with_its_length(
    monkeypatch: pytest.MonkeyPatch, took: float, pause: float
) -> None:
    """Four times as long as the read, at most half a ttl; each read here is followed by a push."""
    clock, pauses = Clock(), list[float]()

    class Answering(Link):
        @asynccontextmanager
        async def _open(self) -> AsyncIterator[Any]:
            yield Mock(), Mock(), Delivery.TRACKING

        async def _sync_on(self, *_: Any, **options: Any) -> tuple[Delivery, float]:
            clock.passed += took
            self._heard = True
            return Delivery.TRACKING, math.inf

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.passed += seconds
        if len(pauses) == 3:
            raise asyncio.CancelledError

    backend = RedisBackend("redis://")
    options: Any = {"report": None, "ttl": 1.0, "on_data_loss": "restore"}
    link = Answering(backend._server, backend._keys, Worker(), **options)
    monkeypatch.setattr(link, "_eviction", AsyncMock())
    monkeypatch.setattr(link_module, "time", clock)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await link.run()
    assert pauses == pytest.approx([pause] * 3)


async def test_link_that_connects_again_sends_no_script_that_is_loaded(
    redis_url: str, operator: Any
) -> None:
    backend = RedisBackend(redis_url, ttl=NO_POLL)
    async with linked(backend) as worker:
        await operator.set("maintenance", "1")
        await eventually(worker.is_on, within=SOON)
        await settled(backend, worker)
        async with recorded_commands(operator) as commands:
            syncs = worker.syncs
            for link in await link_ids(operator):
                await operator.execute_command("CLIENT", "KILL", "ID", link)
            await eventually(lambda: worker.has_synced(syncs), within=SOON)
            await operator.set("maintenance", "0")
            await eventually(worker.is_off, within=SOON)
            await RedisBackend(redis_url).write(ON)
            await eventually(worker.is_on, within=SOON)
    sent = [command.split()[0] for _, command in commands]
    assert "EVALSHA" in sent
    assert "EVAL" not in sent


async def test_sync_requested_from_any_thread_registers_soon(
    redis_url: str,
) -> None:
    backend = RedisBackend(redis_url, ttl=NO_POLL)
    async with linked(backend) as worker:
        syncs = await settled(backend, worker)
        (before,) = await registered(redis_url)
        worker.drained = True
        await asyncio.to_thread(backend.request_sync)

        async def says_so() -> bool:
            (mine,) = await registered(redis_url)
            return mine.drained and mine.sequence == before.sequence + 1

        await eventually(says_so, within=SOON)
        backend.request_sync()
        assert await settled(backend, worker) == syncs
        assert await says_so(), "there was nothing new to say"
    backend.request_sync()


async def test_the_switch_of_a_new_scope_is_read_soon(redis_url: str, operator: Any) -> None:
    await operator.set("maintenance:billing", "1")
    backend = RedisBackend(redis_url, ttl=NO_POLL)
    async with linked(backend) as worker:
        backend.follow_components(["billing"])
        await eventually(lambda: "billing" in (worker.last.components or {}), within=SOON)


def test_a_nudge_after_the_loop_was_closed_does_nothing(redis_url: str) -> None:
    backend = RedisBackend(redis_url, ttl=NO_POLL)

    async def leave_it_running() -> Link:
        options: Any = {"report": None, "ttl": NO_POLL, "on_data_loss": "restore"}
        return Link(backend._server, backend._keys, Worker(), **options)

    asyncio.run(leave_it_running()).nudge()


# -- what changes by itself ------------------------------------------------------------------------


@pytest.mark.as_worker
async def test_expiry_is_known_before_and_read_right_after(redis_url: str, operator: Any) -> None:
    """Redis' own push for it can come minutes late: it looks at twenty volatile keys at a time."""
    async with operator.pipeline(transaction=False) as pipeline:
        for number in range(10_000):
            pipeline.set(f"volatile-{number}", "x", px=3_600_000)
        await pipeline.execute()
    async with linked(RedisBackend(redis_url, ttl=NO_POLL)) as worker:
        before = time.time()
        await operator.set("maintenance", "1", px=4000)
        after = time.time()
        await eventually(worker.is_on, within=SOON)
        ends = evaluate(worker.last, worker.last.now).until
        assert ends is not None
        assert before + 3.95 < ends < after + 4.05
        await eventually(worker.is_off, within=30, every=0.001)
        assert -0.05 < time.time() - ends < SOON
        await eventually(lambda: worker.last.now > ends - 0.01, within=SOON)


async def test_a_window_is_read_again_right_after_it_began_and_ended(
    redis_url: str, operator: Any
) -> None:
    now = time.time()
    starts, ends = (datetime.fromtimestamp(now + after, UTC) for after in (1.0, 2.0))
    await operator.set(
        "maintenance", MaintenanceState(enabled=True, starts_at=starts, ends_at=ends).dump()
    )
    async with linked(RedisBackend(redis_url, ttl=NO_POLL)) as worker:
        for changes_at, on in ((starts, True), (ends, False)):
            await eventually(
                partial(worker.has_read, changes_at.timestamp() - 0.001, on), within=30
            )
            assert worker.last.now - changes_at.timestamp() < 0.9


async def test_a_short_hold_that_is_renewed_in_time_never_seems_to_end(redis_url: str) -> None:
    other = RedisBackend(redis_url)
    hold = await other.acquire(Hold("a", ON), 1.5)
    async with linked(RedisBackend(redis_url, ttl=NO_POLL)) as worker:
        seen = []
        for _ in range(8):
            renewed = time.monotonic()
            while time.monotonic() - renewed < 0.5:
                seen.append(worker.is_on())
                await asyncio.sleep(0.005)
            assert await other.renew(hold, 1.5)
        assert all(seen)
        await eventually(worker.is_off, within=1.5 + SOON)


@pytest.mark.as_worker
async def test_a_hold_whose_holder_died_ends_with_its_lease(redis_url: str) -> None:
    ends = (await RedisBackend(redis_url).acquire(Hold("a", ON), 1.5)).deadline
    async with linked(RedisBackend(redis_url, ttl=NO_POLL)) as worker:
        await eventually(worker.is_on, within=SOON)
        await eventually(worker.is_off, within=30, every=0.001)
        assert -0.05 < time.time() - ends < SOON


# -- connections that die --------------------------------------------------------------------------


@pytest.mark.as_worker
@pytest.mark.parametrize("kind", ["normal", "pubsub"])
async def test_two_bare_changes_arrive_after_a_client_kill(
    redis_url: str, operator: Any, kind: str
) -> None:
    """The second one proves that tracking was armed again, and that it was not the reconnection
    that found the first.
    """
    backend = RedisBackend(redis_url, ttl=NO_POLL)
    async with linked(backend) as worker:
        for number in range(3):
            await operator.execute_command("CLIENT", "KILL", "TYPE", kind)
            for value in (f"{number}-a", f"{number}-b"):
                await operator.set("maintenance", f'{{"enabled": true, "message": "{value}"}}')
                await eventually(partial(worker.sees, value), within=SOON)
                await settled(backend, worker)
        assert len(worker.errors) == (3 if kind == "normal" else 0)


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
async def test_both_resp2_connections_come_back_after_a_kill(
    make_server: Callable[[int], RedisServer], kind: str
) -> None:
    """The one that listens has nothing to say, so its end must be noticed by itself."""
    server = make_server(2)
    other, backend = RedisBackend(server.url), RedisBackend(server.url, ttl=NO_POLL)
    async with linked(backend) as worker:
        for number in range(3):
            await settled(backend, worker)
            await server.acli("CLIENT", "KILL", "TYPE", kind)
            await eventually(partial(worker.has_failed, number + 1), within=SOON)
            for value in (f"{number}-a", f"{number}-b"):
                await settled(backend, worker)
                await other.write(MaintenanceState(enabled=True, message=value))
                await eventually(partial(worker.sees, value), within=SOON)


async def test_killed_connection_is_replaced_at_once(redis_url: str, operator: Any) -> None:
    async with linked(RedisBackend(redis_url, ttl=NO_POLL)) as worker:
        took = []
        for _ in range(5):
            await asyncio.sleep(0.05)
            syncs, began = worker.syncs, time.monotonic()
            for id in await link_ids(operator):
                await operator.client_kill_filter(_id=id)
            await eventually(partial(worker.has_synced, syncs), within=SOON, every=0.001)
            took.append(time.monotonic() - began)
        assert min(took) < 1.0  # the others may have waited for the machine


async def test_a_socket_that_timed_out_is_replaced_at_once(
    redis_url: str, operator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel says after a partition, and what redis-py's own reading takes for silence, in
    a hot loop.
    """
    backend = RedisBackend(redis_url, ttl=NO_POLL)
    async with (
        remembered_connections(backend, monkeypatch) as connections,
        linked(backend) as worker,
    ):
        await asyncio.sleep(QUIET)
        transport = connections[0]._writer.transport
        transport._fatal_error(OSError(errno.ETIMEDOUT, "Connection timed out"))
        await eventually(lambda: len(connections) == 2 and worker.errors, within=SOON)
        await operator.set("maintenance", "1")
        await eventually(worker.is_on, within=SOON)
        await asyncio.sleep(1)
        assert len(connections) == 2


async def test_the_links_of_two_loops_are_two_connections(redis_url: str, operator: Any) -> None:
    backend = RedisBackend(redis_url, ttl=NO_POLL)
    stop = threading.Event()
    elsewhere = Worker()

    async def watch_elsewhere() -> None:
        async with linked(backend, elsewhere):
            await asyncio.to_thread(stop.wait, 10)

    thread = threading.Thread(target=lambda: asyncio.run(watch_elsewhere()))
    thread.start()
    try:
        async with linked(backend) as here:
            await eventually(lambda: elsewhere.readings, within=30)
            await operator.set("maintenance", "1")
            await eventually(lambda: here.is_on() and elsewhere.is_on(), within=SOON)
            assert len(await link_ids(operator)) == 2
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)


# -- servers that die, hang and come back ----------------------------------------------------------


async def test_a_server_that_is_killed_and_comes_back(
    own_redis_server: RedisServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="fastapi_maintenance")
    server = own_redis_server(config={"appendonly": "yes", "appendfsync": "always"})
    backend = RedisBackend(server.url, ttl=TTL)
    async with linked(backend) as worker:
        await server.acli("SET", "maintenance", WITH_MESSAGE)
        await eventually(lambda: worker.sees("back soon"), within=SOON)
        await asyncio.to_thread(server.kill)
        await eventually(lambda: worker.errors, within=SOON)
        await asyncio.sleep(1)
        syncs = worker.syncs
        await asyncio.to_thread(server.start)
        with took_less_than(2):
            await eventually(lambda: worker.syncs > syncs, within=30)
        assert worker.sees("back soon")
        assert not worker.was_ever_off(syncs)
        # The next fault is not paid for with a long wait.
        assert [link._failures for link in backend._links] == [0]
        for value in ("off", "on"):  # two bare changes: tracking is armed again
            await server.acli("SET", "maintenance", value)
            await eventually(worker.is_on if value == "on" else worker.is_off, within=SOON)
    assert texts(caplog, logging.WARNING) == []


async def test_a_server_that_comes_back_with_another_state_is_believed(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server(config={"appendonly": "yes", "appendfsync": "always"})
    async with linked(RedisBackend(server.url, ttl=TTL)) as worker:
        await asyncio.to_thread(server.kill)
        await eventually(lambda: worker.errors, within=SOON)
        await asyncio.to_thread(server.start)
        await server.acli("SET", "maintenance", "1")
        with took_less_than(2):
            await eventually(worker.is_on, within=30)


async def test_a_server_that_comes_up_later(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server()
    server.kill()
    async with linked(RedisBackend(server.url, ttl=TTL), wait=False) as worker:
        await eventually(lambda: len(worker.errors) > 3, within=30)
        assert not worker.readings
        assert isinstance(worker.errors[0], BackendUnavailableError)
        assert server.url.removesuffix("/0") in str(worker.errors[0])
        await asyncio.to_thread(server.start)
        with took_less_than(2):
            await eventually(worker.is_off, within=30)


@pytest.mark.parametrize("resp", [2, 3])
async def test_frozen_server_is_noticed_within_two_ttl(
    make_server: Callable[[int], RedisServer], resp: int
) -> None:
    server = make_server(resp)
    async with linked(RedisBackend(server.url, ttl=TTL)) as worker:
        await asyncio.sleep(TTL)
        server.pause()
        began = time.monotonic()
        try:
            await eventually(lambda: worker.errors, within=30)
            assert time.monotonic() - began < 2 * TTL + SOON
            assert max(worker.asked_at) <= began + 0.05
            await asyncio.sleep(2 * TTL)
        finally:
            server.resume()
        await server.acli("SET", "maintenance", "1")
        with took_less_than(2):
            await eventually(worker.is_on, within=30)


async def test_a_short_freeze_costs_no_connection(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server()
    async with linked(RedisBackend(server.url, ttl=NO_POLL)) as worker:
        await asyncio.sleep(QUIET)
        server.pause()
        try:
            setting = asyncio.create_task(server.acli("SET", "maintenance", "1"))
            await asyncio.sleep(0.4)
        finally:
            server.resume()
        await eventually(worker.is_on, within=SOON)
        await setting
        assert worker.errors == []


async def test_paused_clients_are_a_fault_that_passes(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server()
    async with linked(RedisBackend(server.url, ttl=TTL)) as worker:
        await server.acli("SET", "maintenance", "1")
        await eventually(worker.is_on, within=SOON)
        await server.acli("CLIENT", "PAUSE", "1000", "ALL")
        await eventually(lambda: worker.errors, within=30)
        syncs = worker.syncs
        await eventually(lambda: worker.syncs > syncs, within=30)
        assert not worker.was_ever_off(syncs)


@pytest.mark.parametrize("moment", ["idle", "syncing"])
async def test_loop_blocked_beyond_the_deadline_keeps_the_link(redis_url: str, moment: str) -> None:
    backend = RedisBackend(redis_url, ttl=TTL)
    worker = Worker()
    watch = asyncio.create_task(backend.watch(worker))
    await eventually(lambda: worker.readings, within=SOON)
    for _ in range(3):
        await asyncio.sleep(0.03)
        if moment == "syncing":
            sync_now(backend)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        time.sleep(0.75 * TTL)  # one and a half deadlines
    await asyncio.sleep(QUIET)
    assert worker.errors == []
    watch.cancel()
    await asyncio.wait([watch])


async def test_a_server_that_drops_idle_connections_drops_no_link(
    make_server: Callable[[int], RedisServer],
) -> None:
    old, new = make_server(2), make_server(3)
    for server in (old, new):
        server.cli("CONFIG", "SET", "timeout", "3")
    async with (
        linked(RedisBackend(old.url, ttl=TTL)) as one,
        linked(RedisBackend(new.url, ttl=TTL)) as two,
    ):
        await asyncio.sleep(5)
        assert one.errors == two.errors == []


# -- data that was lost ----------------------------------------------------------------------------


async def test_after_a_flushall_switch_and_holds_are_back_at_once(
    own_redis_server: RedisServerFactory, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis_server()
    first, second = (RedisBackend(server.url, ttl=NO_POLL) for _ in range(2))
    async with admin_of(server) as admin, linked(first) as one, linked(second) as two:
        await admin.set("maintenance", WITH_MESSAGE, px=60_000)
        await take_hold(admin, keys, "a")
        await eventually(
            lambda: one.held == two.held == ["a"] and one.last.expires_in and two.last.expires_in,
            within=SOON,
        )
        syncs = one.syncs, two.syncs
        await admin.flushall()
        await eventually(lambda: one.syncs > syncs[0] and two.syncs > syncs[1], within=SOON)
        await settled(first, one)
        await settled(second, two)

        assert not one.was_ever_off(syncs[0])
        assert not two.was_ever_off(syncs[1])
        assert one.held == two.held == ["a"]
        assert await admin.get("maintenance") == WITH_MESSAGE.encode()
        assert 50_000 < await admin.pttl("maintenance") <= 60_000
        assert await admin.hkeys(keys.holds) == [b"a"]
        assert (one.syncs - syncs[0]) + (two.syncs - syncs[1]) <= 10
    assert len([text for text in texts(caplog) if text.endswith("restored")]) == 1


async def test_after_a_flushall_the_service_can_be_opened(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    backend = RedisBackend(server.url, ttl=NO_POLL)
    async with admin_of(server) as admin, linked(backend) as worker:
        await admin.set("maintenance", "1")
        await eventually(worker.is_on, within=SOON)
        await settled(backend, worker)
        await admin.flushall()
        await settled(backend, worker)
        assert worker.is_on()
        await admin.delete("maintenance")
        await eventually(worker.is_off, within=SOON)
        await settled(backend, worker)
        assert worker.is_off()


async def test_data_loss_can_be_followed(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server()
    backend = RedisBackend(server.url, ttl=NO_POLL, on_data_loss="follow")
    async with admin_of(server) as admin, linked(backend) as worker:
        await admin.set("maintenance", "1")
        await eventually(worker.is_on, within=SOON)
        await admin.flushall()
        await eventually(worker.is_off, within=SOON)
        await settled(backend, worker)
        assert not await admin.exists("maintenance")


async def test_a_server_that_comes_back_empty_gets_the_state_again(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    async with linked(RedisBackend(server.url, ttl=TTL)) as worker:
        await server.acli("SET", "maintenance", WITH_MESSAGE)
        await eventually(lambda: worker.sees("back soon"), within=SOON)
        syncs = worker.syncs
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        with took_less_than(2):
            await eventually(lambda: worker.syncs > syncs, within=30)
        assert await server.acli("GET", "maintenance") == WITH_MESSAGE
        assert not worker.was_ever_off(syncs)


async def test_write_to_an_emptied_server_is_kept(
    own_redis_server: RedisServerFactory,
) -> None:
    """Somebody who turns the service off before any worker is back has decided; that off leaves no
    key behind.
    """
    server = own_redis_server()
    async with linked(RedisBackend(server.url, ttl=TTL)) as worker:
        await server.acli("SET", "maintenance", "1")
        await eventually(worker.is_on, within=SOON)
        await asyncio.to_thread(server.kill)
        # By now it waits for longer between two tries.
        await eventually(lambda: len(worker.errors) > 5, within=30)
        await asyncio.to_thread(server.start)
        await RedisBackend(server.url).write(OFF)
        await eventually(worker.is_off, within=30)
        await asyncio.sleep(2 * TTL)
        assert worker.is_off()


async def test_data_that_was_rolled_back_is_noticed(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server()
    async with linked(RedisBackend(server.url, ttl=TTL)) as worker:
        await eventually(lambda: worker.last.epoch, within=SOON)
        await server.acli("SAVE")
        other = RedisBackend(server.url)
        await other.write(MaintenanceState(enabled=True, message="after the snapshot"))
        await other.acquire(Hold("a", ON), 30.0)
        await eventually(lambda: worker.held == ["a"], within=SOON)
        syncs = worker.syncs
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await eventually(lambda: worker.syncs > syncs, within=30)

        assert not worker.was_ever_off(syncs)
        restored = await other.read()
        assert restored.switch == MaintenanceState(enabled=True, message="after the snapshot")
        assert [hold.id for hold in restored.holds or ()] == ["a"]


async def test_swapped_databases_are_noticed_by_the_poll(
    own_redis_server: RedisServerFactory,
) -> None:
    """No push tells of them."""
    server = own_redis_server()
    async with admin_of(server) as admin, linked(RedisBackend(server.url, ttl=TTL)) as worker:
        await asyncio.sleep(TTL)
        other: Any = Redis.from_url(server.url.replace("/0", "/1"))
        async with other:
            await other.set("maintenance", "1")
        began = time.monotonic()
        await admin.swapdb(0, 1)
        await eventually(worker.is_on, within=30)
        assert time.monotonic() - began < 1.5 * TTL + SOON


# -- with less rights ------------------------------------------------------------------------------

# Redis 6.2 knows no rule that forbids a subcommand, only such as permit one.
NO_TRACKING: Final = "-client +client|setname"
LADDER: Final = {
    # what is missing: (the delivery, how deep the sync goes)
    "": ("tracking", "full"),
    NO_TRACKING: ("message", "full"),
    "resetchannels": ("tracking", "full"),
    f"{NO_TRACKING} resetchannels": ("polling", "full"),
    "-eval -evalsha": ("tracking", "full"),
    "-getrange": ("tracking", "full"),
    "-set": ("tracking", "read"),
    "-exists": ("message", "full"),
    "-hset": ("tracking", "read"),
    "-ping": ("tracking", "full"),
    "-@all +get": ("polling", "plain"),
}


@pytest.mark.parametrize("missing", LADDER)
async def test_change_with_less_rights_takes_as_its_delivery_says(
    make_user: MakeUser, operator: Any, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    caplog.set_level(logging.INFO, logger="fastapi_maintenance")
    user = await make_user(*missing.split())
    delivery, depth = LADDER[missing]
    ttl = TTL if delivery == "polling" else NO_POLL
    async with linked(RedisBackend(user.url, ttl=ttl), Worker(reporting=True)) as worker:
        if delivery == "message":
            await RedisBackend(user.url.replace(user.name, "default")).write(ON)
        else:
            await operator.set("maintenance", "1")
        await eventually(worker.is_on, within=SOON)
        assert any(reading.registered for reading in worker.readings) is (depth == "full")
        syncs = worker.syncs
        await asyncio.sleep(2 * TTL)
        assert worker.syncs - syncs <= 3
        assert worker.errors == []
    said = texts(caplog)
    assert [text for text in said if text.startswith("link to")] == [
        f"link to {RedisBackend(user.url)._server.describe()}: {delivery}"
    ]
    assert len(texts(caplog, logging.WARNING)) == (0 if depth == "full" else 1)


async def test_rights_that_are_taken_away_and_given_back(
    make_user: MakeUser, operator: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="fastapi_maintenance")
    user = await make_user()
    async with linked(RedisBackend(user.url, ttl=TTL)) as worker:
        for rules, delivery in (
            ((*NO_TRACKING.split(), "resetchannels"), "polling"),
            (("+client", "&*"), "tracking"),
        ):
            await user.change(*rules)
            for id in await link_ids(operator):
                await operator.client_kill_filter(_id=id)
            for value, seen in (("1", worker.is_on), ("0", worker.is_off)):
                await operator.set("maintenance", value)
                await eventually(seen, within=SOON if delivery == "tracking" else 1.5 * TTL + SOON)
    deliveries = [text.rsplit(" ", 1)[1] for text in texts(caplog) if text.startswith("link to")]
    assert deliveries == ["tracking", "polling", "tracking"]


async def test_a_server_without_resp3_is_followed_by_message_and_poll(
    make_server: Callable[[int], RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="fastapi_maintenance")
    server = make_server(2)
    other = RedisBackend(server.url)
    async with linked(RedisBackend(server.url, ttl=2.0)) as worker:
        await asyncio.sleep(QUIET)
        await other.write(ON)
        await eventually(worker.is_on, within=SOON)
        await server.acli("DEL", "maintenance")
        await eventually(worker.is_off, within=2.0 + SOON)
        assert worker.errors == []
        assert worker.last.registered
    assert [text.rsplit(" ", 1)[1] for text in texts(caplog) if text.startswith("link to")] == [
        "message"
    ]


async def test_half_of_resp3_is_taken_for_none(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fakeredis answers HELLO, and then lets a subscribed connection do nothing else
    all the same.
    """
    caplog.set_level(logging.INFO, logger="fastapi_maintenance")
    client: Any = FakeAsyncRedis(server=FakeServer())
    backend = RedisBackend(client=client, ttl=1.0)
    async with (
        client,
        remembered_connections(backend, monkeypatch) as connections,
        linked(backend) as worker,
    ):
        await RedisBackend(client=client).write(ON)
        await eventually(worker.is_on, within=SOON)
        assert [connection.is_connected for connection in connections[:3]] == [False, True, True]
    assert [text.rsplit(" ", 1)[1] for text in texts(caplog) if text.startswith("link to")] == [
        "message"
    ]


async def test_a_wrong_password_is_told_and_tried_again(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server(config={"requirepass": "right"})
    async with linked(
        RedisBackend(server.url.replace("://", "://:s3cret@"), ttl=TTL), wait=False
    ) as worker:
        await eventually(lambda: len(worker.errors) >= 2, within=30)
        assert not any("s3cret" in str(error) for error in worker.errors)
        assert "password" in str(worker.errors[0])
        await asyncio.to_thread(
            lambda: server.cli("CONFIG", "SET", "requirepass", "s3cret", password="right")
        )
        await eventually(worker.is_off, within=30)


# -- values that cannot be read --------------------------------------------------------------------

UNREADABLE: Final[dict[str, tuple[tuple[tuple[Any, ...], ...], str]]] = {
    "garbage": ((("SET", "maintenance", "perhaps"),), "not a boolean word"),
    "empty": ((("SET", "maintenance", ""),), "not a boolean word"),
    "JSON of something else": ((("SET", "maintenance", '{"on": true}'),), "unknown key"),
    "not UTF-8": ((("SET", "maintenance", b"\xff\xfe"),), "not UTF-8"),
    "1 MiB": ((("SET", "maintenance", b"1" * 2**20),), "longer than 65536"),
    "a list": ((("DEL", "maintenance"), ("RPUSH", "maintenance", "1")), "not a string"),
    "holds that are a string": (
        (("DEL", "{maintenance}:holds"), ("SET", "{maintenance}:holds", "x")),
        "not a hash",
    ),
    "a garbage hold": ((("HSET", "{maintenance}:holds", "b", "x"),), "The hold 'b'"),
}


@pytest.mark.as_worker
@pytest.mark.parametrize("name", UNREADABLE)
async def test_unreadable_switch_changes_nothing(
    redis_url: str, operator: Any, keys: Keys, name: str
) -> None:
    commands, problem = UNREADABLE[name]
    await operator.set("maintenance", WITH_MESSAGE)
    await take_hold(operator, keys, "a", state=MaintenanceState(enabled=True, message="held"))
    began = time.monotonic()
    async with linked(RedisBackend(redis_url, ttl=0.6)) as worker:
        known = worker.last
        async with operator.pipeline() as together:  # else what is between them may be read
            for command in commands:
                together.execute_command(*command)
            await together.execute()
        # The holds are not tracked: garbage in them is found by the poll.
        await eventually(lambda: worker.last.error, within=30)
        assert problem in str(worker.last.error)
        syncs = worker.syncs
        await eventually(lambda: worker.syncs >= syncs + 2, within=30)
        assert worker.held == ["a"]
        assert worker.last.switch == known.switch
        assert worker.errors == []

        await operator.set("maintenance", "0")
        await operator.delete(keys.holds)
        await eventually(lambda: worker.last.error is None and worker.is_off(), within=30)
        assert worker.syncs < 8 + (time.monotonic() - began) / 0.48


@pytest.mark.parametrize(
    "commands",
    [
        [("SET", "{maintenance}:epoch", "garbage")],
        [("DEL", "{maintenance}:epoch")],
        [("DEL", "{maintenance}:epoch"), ("RPUSH", "{maintenance}:epoch", "x")],
        [("SET", "{maintenance}:epoch", "9" * 400 + " 1 1 1 1")],
    ],
)
async def test_a_spoilt_epoch_is_made_anew_and_changes_nothing(
    redis_url: str, operator: Any, keys: Keys, commands: list[tuple[str, ...]]
) -> None:
    await operator.set("maintenance", WITH_MESSAGE)
    await take_hold(operator, keys, "a")
    backend = RedisBackend(redis_url, ttl=NO_POLL)
    async with linked(backend) as worker:
        await settled(backend, worker)
        syncs, epoch = worker.syncs, worker.last.epoch
        for command in commands:
            await operator.execute_command(*command)
        await eventually(lambda: worker.last.epoch > epoch, within=SOON)
        await settled(backend, worker)
        assert not worker.was_ever_off(syncs)
        assert worker.held == ["a"]
        assert worker.syncs - syncs <= 5
        await operator.set("maintenance", "0")
        await operator.delete(keys.holds)
        await RedisBackend(redis_url).clear()
        await eventually(worker.is_off, within=SOON)


# -- servers that refuse ---------------------------------------------------------------------------


async def test_a_read_only_replica_is_followed(
    own_redis_server: RedisServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="fastapi_maintenance")
    master, replica = own_redis_server(config=AT_ONCE), own_redis_server()
    await replica.acli("REPLICAOF", "127.0.0.1", master.port)
    await eventually(
        lambda: "up" in replica.cli("INFO", "replication").split("master_link_status:")[1][:4],
        within=30,
    )
    other = RedisBackend(master.url)
    await other.acquire(Hold("a", ON), 30.0)
    async with linked(RedisBackend(replica.url, ttl=TTL), Worker(reporting=True)) as worker:
        await eventually(lambda: worker.held == ["a"], within=30)
        await other.clear()
        await eventually(worker.is_off, within=30)
        await master.acli("SET", "maintenance", "1")
        await eventually(worker.is_on, within=30)
        syncs = worker.syncs
        await asyncio.sleep(4 * TTL)
        assert worker.syncs - syncs <= 6
        assert worker.errors == []
        assert not worker.last.registered
    (warning,) = texts(caplog, logging.WARNING)
    assert "read only replica" in warning
    assert warning.endswith("no barrier can wait for this worker")


async def is_empty(server: RedisServer) -> bool:
    return await server.acli("DBSIZE") == "0"


async def is_closed(server: RedisServer) -> bool:
    return await server.acli("GET", "maintenance") == "1"


async def test_a_server_that_becomes_a_replica_and_a_master_again(
    own_redis_server: RedisServerFactory,
) -> None:
    master, other = own_redis_server(config=AT_ONCE), own_redis_server()
    async with linked(RedisBackend(other.url, ttl=0.6)) as worker:
        await other.acli("SET", "maintenance", "1")
        await eventually(worker.is_on, within=SOON)
        syncs = worker.syncs
        # And so loses its data for those of an empty one.
        await other.acli("REPLICAOF", "127.0.0.1", master.port)
        # Valkey keeps the data for a moment: a worker that polls then learns that it is a replica.
        await eventually(lambda: worker.last.error or worker.errors, within=30)
        problem = worker.last.error or str(worker.errors[-1])
        assert re.search("cannot be written again yet|not the primary", problem)
        await eventually(lambda: is_empty(other), within=30)
        assert not worker.was_ever_off(syncs)
        assert worker.is_on()
        await other.acli("REPLICAOF", "NO", "ONE")
        await eventually(lambda: is_closed(other), within=30)
        await eventually(lambda: worker.last.error is None, within=30)
        assert worker.is_on()


async def test_a_server_that_takes_no_writes_is_still_read(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    async with (
        admin_of(server) as admin,
        linked(RedisBackend(server.url, ttl=0.6), Worker(reporting=True)) as worker,
    ):
        await admin.set("maintenance", "1")
        await eventually(worker.is_on, within=SOON)
        await admin.config_set("maxmemory", "1")
        await eventually(lambda: not worker.last.registered, within=SOON)
        await admin.delete("maintenance")  # what frees memory is permitted
        await eventually(worker.is_off, within=SOON)
        await admin.config_set("maxmemory", "0")
        await eventually(lambda: worker.last.registered, within=30)
        assert worker.errors == []


@pytest.mark.parametrize("number", ["9" * 5000, "²"])
async def test_invalid_number_beside_the_switch_is_ignored(
    redis_url: str, operator: Any, number: str
) -> None:
    async with linked(RedisBackend(redis_url, ttl=TTL)) as worker:
        await operator.hset("{maintenance}:registry", "#noticed", number)
        await operator.hset("{maintenance}:recorded", "", f"{number} digest")
        for value, seen in (("1", worker.is_on), ("0", worker.is_off)):
            await operator.set("maintenance", value)
            await eventually(seen, within=SOON)
            await asyncio.sleep(2 * TTL)
        assert worker.errors == []


async def test_scripts_that_the_server_forgets_are_sent_again(
    redis_url: str, operator: Any
) -> None:
    backend = RedisBackend(redis_url, ttl=NO_POLL)
    async with linked(backend) as worker:
        for value, seen in ((True, worker.is_on), (False, worker.is_off)):
            await operator.script_flush()
            await backend.set_value(value)
            await eventually(seen, within=SOON)
        assert worker.errors == []


# -- what it costs, and what it leaves behind ------------------------------------------------------


async def test_idle_worker_sends_native_commands_once_a_ttl(
    make_server: Callable[[int], RedisServer],
) -> None:
    async def idle(resp: int, connections: int) -> None:
        server = make_server(resp)
        async with (
            linked(RedisBackend(server.url, ttl=TTL)),
            Redis.from_url(server.url, protocol=2) as admin,
        ):
            await asyncio.sleep(TTL)
            async with recorded_commands(admin) as commands:
                await asyncio.sleep(6 * TTL)
        assert len({address for address, _ in commands}) == connections
        # INFO is asked once per connection.
        sent = [command for _, command in commands if not command.startswith("INFO")]
        assert len(commands) - len(sent) <= 1
        polls = [command for command in sent if command != "PING"]
        expected = ["SET", "HMGET", "GET", "GETRANGE", "PTTL", "HGETALL", "TIME", "GET"]
        assert 4 * len(expected) <= len(polls) <= 8 * len(expected)
        assert len(sent) - len(polls) <= (0 if resp == 3 else 8), "a poll is proof enough"
        assert {command.split()[0] for command in polls} == set(expected)

    await asyncio.gather(idle(3, 1), idle(2, 2))


async def test_nothing_but_what_is_needed_is_sent_on_the_way_in(
    redis_url: str, operator: Any
) -> None:
    async with (
        recorded_commands(operator) as commands,
        linked(RedisBackend(redis_url, ttl=NO_POLL)),
    ):
        await asyncio.sleep(QUIET)
    sent = [" ".join(command.split()[:2]).split(" --")[0] for _, command in commands]
    # Redis 6.2 shows nobody that CLIENT was called.
    assert [command.split()[0] for command in sent if not command.startswith("CLIENT")][:3] == [
        "HELLO",
        "EXISTS",
        "SET",
    ]
    assert not any("SETINFO" in command or "MAINT" in command for _, command in commands)


@pytest.mark.as_worker
async def test_worker_is_registered_until_it_leaves(
    redis_url: str,
) -> None:
    async with linked(RedisBackend(redis_url, ttl=2.0)):
        (mine,) = await registered(redis_url)
        assert (mine.delivery, mine.vanished) == ("tracking", False)
        await asyncio.sleep(4.0)
        (same,) = await registered(redis_url)
        assert same.id == mine.id
        assert same.sequence > mine.sequence
        assert same.known_for > mine.known_for + 1.5
    assert await registered(redis_url) == []


@pytest.mark.as_worker
async def test_an_observer_hears_of_changes_and_is_not_in_the_registry(
    redis_url: str, operator: Any
) -> None:
    async with linked(RedisBackend(redis_url, ttl=NO_POLL), Worker(observer=True)) as observer:
        await operator.set("maintenance", "1")
        await eventually(observer.is_on, within=SOON)
        assert await registered(redis_url) == []
    assert await registered(redis_url) == []


async def test_worker_that_vanishes_stays_in_the_registry(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def vanish(sync: Sync, wire: object) -> None:
        return

    monkeypatch.setattr(Sync, "leave", vanish)
    async with linked(RedisBackend(redis_url, ttl=0.1)):
        pass

    async def has_vanished() -> bool:
        (worker,) = await registered(redis_url)
        return worker.vanished and worker.pid == os.getpid()

    await eventually(has_vanished, within=30)


async def test_stopping_at_a_frozen_server_takes_half_a_ttl_at_most(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    async with linked(RedisBackend(server.url, ttl=4.0)):
        await asyncio.sleep(QUIET)
        server.pause()
        began = time.monotonic()
    assert time.monotonic() - began < 0.5 * 4.0 + SOON
    server.resume()


@pytest.mark.as_worker
async def test_stopping_at_any_moment_leaves_nothing_behind(redis_url: str, operator: Any) -> None:
    dice = random.Random(11)
    await operator.set("maintenance", "1")
    await operator.client_id()
    tasks, files, threads = asyncio.all_tasks(), open_files(), threading.active_count()
    for _ in range(60):
        watch = asyncio.create_task(RedisBackend(redis_url, ttl=0.02).watch(Worker(reporting=True)))
        await asyncio.sleep(dice.uniform(0, 0.02))
        if dice.random() < 0.2:
            await operator.flushall()
        watch.cancel()
        await asyncio.wait([watch], timeout=SOON)
        assert watch.cancelled()
    await eventually(lambda: asyncio.all_tasks() == tasks, within=SOON)
    await eventually(lambda: open_files() == files, within=SOON)
    await eventually(lambda: threading.active_count() == threads, within=SOON)

    async def is_left() -> bool:
        return await link_ids(operator) == set()

    await eventually(is_left, within=SOON)


async def test_stopping_while_nobody_is_there_leaves_nothing_behind(free_port: int) -> None:
    tasks, files = asyncio.all_tasks(), open_files()
    for seconds in (0, 0.001, 0.01, 0.1):
        watch = asyncio.create_task(
            RedisBackend(f"redis://127.0.0.1:{free_port}", ttl=0.2).watch(Worker())
        )
        await asyncio.sleep(seconds)
        watch.cancel()
        await asyncio.wait([watch], timeout=SOON)
    assert asyncio.all_tasks() == tasks
    assert open_files() == files


async def test_what_a_worker_raises_is_not_swallowed(redis_url: str) -> None:
    """It is our own bug, and no fault of Redis."""

    class Broken(Worker):
        def update(self, snapshot: Any, at: float) -> Any:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await RedisBackend(redis_url).watch(Broken())
