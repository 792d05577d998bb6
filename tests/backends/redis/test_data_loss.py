"""Failovers to servers that lack the last writes, and deletions, which are no loss whenever they
come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import pytest

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.recovery import DataLoss
from fastapi_maintenance.coordination.lease import LeaseKeeper
from fastapi_maintenance.model.evaluate import evaluate
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from tests.conftest import RedisServerFactory
from tests.faults.proxy import Proxy
from tests.support.servers import RedisServer
from tests.support.versions import INSTALLED, VALKEY
from tests.support.waiting import eventually, eventually_sync

from .links import SOON, Worker, linked

TTL: Final = 0.3
WITH_MESSAGE: Final = '{"enabled":true,"message":"back soon","mode":"full"}'
STATE: Final = MaintenanceState(enabled=True, message="back soon")


class Pair:
    """A master and its replica, which can be cut off and take the master's place, with
    its address.
    """

    def __init__(self, make: RedisServerFactory) -> None:
        self.master = make(config={"repl-diskless-sync-delay": "0"})
        self.replica = make()
        self.replica.cli("REPLICAOF", "127.0.0.1", self.master.port)
        eventually_sync(
            lambda: "master_link_status:up" in self.replica.cli("INFO", "replication"), within=30
        )

    @property
    def url(self) -> str:
        """Where the master is, now and after the failover."""
        return self.master.url

    def split(self) -> None:
        """Promote the replica with what it has; the old master goes on, and nothing that it is told
        from now on will survive.
        """
        eventually_sync(self._is_up_to_date, within=30)
        self.replica.cli("REPLICAOF", "NO", "ONE")

    def fail_over(self) -> None:
        """End the old master, and let everybody find the replica in its place."""
        port = self.master.port
        self.master.kill()
        eventually_sync(self._take, within=30)
        self.replica.port = port

    def _take(self) -> bool:
        try:
            self.replica.cli("CONFIG", "SET", "port", self.master.port)
        except RuntimeError:  # not free yet
            return False
        return True

    def _is_up_to_date(self) -> bool:
        return self.master.cli("WAIT", 1, 100) == "1" and offset(
            self.master, "master_repl_offset"
        ) <= offset(self.replica, "slave_repl_offset")


def offset(server: RedisServer, name: str) -> int:
    lines = dict(
        line.split(":", 1) for line in server.cli("INFO", "replication").splitlines() if ":" in line
    )
    return int(lines[name])


@pytest.fixture
async def pair(own_redis_server: RedisServerFactory) -> Pair:
    return await asyncio.to_thread(Pair, own_redis_server)


def is_closed(reading: Snapshot, component: str) -> bool:
    """What a reading said of a component when it came."""
    return evaluate(reading, reading.now, component).state.enabled


def losses(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage() for record in caplog.records if "lost its data" in record.getMessage()
    ]


async def both_know(on: bool, *workers: Worker) -> None:
    """And have registered so, as the barrier would ask."""
    for worker in workers:
        await eventually(worker.is_on if on else worker.is_off, within=30)
        syncs = worker.syncs
        await eventually(
            lambda worker=worker, syncs=syncs: worker.syncs > syncs and worker.last.registered,  # type: ignore[misc]
            within=30,
        )


async def knows_closed(worker: Worker, component: str) -> None:
    """And has registered so."""
    await eventually(lambda: is_closed(worker.last, component), within=30)
    syncs = worker.syncs
    await eventually(lambda: worker.syncs > syncs and worker.last.registered, within=30)


async def has_settled(*workers: Worker) -> None:
    """After the failover each has read the new master, and once more."""
    for worker in workers:
        syncs = worker.syncs
        await eventually(lambda worker=worker, syncs=syncs: worker.syncs > syncs + 2, within=30)  # type: ignore[misc]


async def by_hand(pair: Pair) -> None:
    await pair.master.acli("SET", "maintenance", WITH_MESSAGE)


async def by_command(pair: Pair) -> None:
    await RedisBackend(pair.url).write(STATE)


@pytest.mark.every_redis(INSTALLED, VALKEY)
@pytest.mark.parametrize("write", [by_hand, by_command])
async def test_a_failover_that_lost_the_switch_opens_nobody(
    pair: Pair, caplog: pytest.LogCaptureFixture, write: Callable[[Pair], Any]
) -> None:
    """However it was written: a bare SET moves no epoch."""
    backend = RedisBackend(pair.url, ttl=TTL)
    async with (
        linked(backend, Worker(reporting=True)) as one,
        linked(RedisBackend(pair.url, ttl=TTL), Worker(reporting=True)) as two,
    ):
        await both_know(False, one, two)
        await asyncio.to_thread(pair.split)
        await write(pair)
        await both_know(True, one, two)
        syncs = one.syncs, two.syncs
        await asyncio.to_thread(pair.fail_over)
        await has_settled(one, two)

        assert not one.was_ever_off(syncs[0])
        assert not two.was_ever_off(syncs[1])
        assert one.last.registered
        assert await pair.replica.acli("GET", "maintenance") == WITH_MESSAGE
        assert [text for text in losses(caplog) if text.endswith(": restored")] == [
            "Redis lost its data; the last known state: restored"
        ]

        await pair.replica.acli("DEL", "maintenance")
        await both_know(False, one, two)
        await has_settled(one, two)
        assert one.is_off()


@pytest.mark.parametrize("on_data_loss", ["restore", "follow"])
async def test_old_snapshot_without_registrations_is_restored(
    own_redis_server: RedisServerFactory, caplog: pytest.LogCaptureFixture, on_data_loss: DataLoss
) -> None:
    """Redis as it comes saves every few minutes, and a registry in what it saved runs out after
    one.
    """
    server = own_redis_server()
    async with linked(RedisBackend(server.url, ttl=TTL), Worker(reporting=True)) as earlier:
        await both_know(False, earlier)
    await server.acli("DEL", "{maintenance}:workers")
    await server.acli("SAVE")
    backends = [RedisBackend(server.url, ttl=TTL, on_data_loss=on_data_loss) for _ in range(2)]
    async with (
        linked(backends[0], Worker(reporting=True)) as one,
        linked(backends[1], Worker(reporting=True)) as two,
    ):
        await both_know(False, one, two)
        await server.acli("SET", "maintenance", WITH_MESSAGE)
        await both_know(True, one, two)
        syncs = one.syncs, two.syncs
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await has_settled(one, two)

        restored = on_data_loss == "restore"
        assert await server.acli("GET", "maintenance") == (WITH_MESSAGE if restored else "")
        assert (one.was_ever_off(syncs[0]), two.was_ever_off(syncs[1])) == (
            not restored,
            not restored,
        )
        assert one.last.registered
        assert two.last.registered
        assert losses(caplog)


@pytest.mark.parametrize("on_data_loss", ["restore", "follow"])
async def test_failover_that_lost_a_component_switch_is_restored(
    pair: Pair, caplog: pytest.LogCaptureFixture, on_data_loss: DataLoss
) -> None:
    backend = RedisBackend(pair.url, ttl=TTL, on_data_loss=on_data_loss)
    backend.follow_components(["billing"])
    async with linked(backend, Worker(reporting=True)) as worker:
        await both_know(False, worker)
        await asyncio.to_thread(pair.split)
        await pair.master.acli("SET", "maintenance:billing", WITH_MESSAGE, "EX", 600)
        await knows_closed(worker, "billing")
        syncs = worker.syncs
        await asyncio.to_thread(pair.fail_over)
        await has_settled(worker)

        restores = on_data_loss == "restore"
        assert all(is_closed(reading, "billing") for reading in worker.readings[syncs:]) is restores
        assert is_closed(worker.last, "billing") is restores
        assert worker.is_off()
        assert await pair.replica.acli("GET", "maintenance:billing") == (
            WITH_MESSAGE if restores else ""
        )
        assert (500 < int(await pair.replica.acli("TTL", "maintenance:billing")) <= 600) is restores
        assert len(losses(caplog)) == 1


async def test_deleted_component_switch_is_no_loss(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    backend = RedisBackend(pair.url, ttl=TTL)
    backend.follow_components(["billing"])
    async with linked(backend, Worker(reporting=True)) as worker:
        await pair.master.acli("SET", "maintenance:billing", 1)
        await knows_closed(worker, "billing")
        await asyncio.to_thread(pair.split)
        await has_settled(worker)
        await pair.replica.acli("DEL", "maintenance:billing")
        await asyncio.to_thread(pair.fail_over)
        await eventually(lambda: not is_closed(worker.last, "billing"), within=30)
        await has_settled(worker)

        assert not is_closed(worker.last, "billing")
        assert await pair.replica.acli("EXISTS", "maintenance:billing") == "0"
        assert losses(caplog) == []


async def test_a_failover_that_lost_the_switch_can_be_followed(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked(
        RedisBackend(pair.url, ttl=TTL, on_data_loss="follow"), Worker(reporting=True)
    ) as worker:
        await both_know(False, worker)
        await asyncio.to_thread(pair.split)
        await by_hand(pair)
        await both_know(True, worker)
        await asyncio.to_thread(pair.fail_over)
        await eventually(worker.is_off, within=30)
        await has_settled(worker)

        assert worker.last.registered
        assert await pair.replica.acli("EXISTS", "maintenance") == "0"
        assert losses(caplog) == [
            "Redis lost its data; following it, as on_data_loss='follow' says"
        ]


@pytest.mark.parametrize("value", ["1", ""])
async def test_a_failover_that_lost_nothing_but_heartbeats_is_no_loss(
    pair: Pair, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    async with linked(RedisBackend(pair.url, ttl=TTL), Worker(reporting=True)) as worker:
        if value:
            await pair.master.acli("SET", "maintenance", value)
        await both_know(bool(value), worker)
        await asyncio.to_thread(pair.split)
        await has_settled(worker)
        await asyncio.to_thread(pair.fail_over)
        await has_settled(worker)

        assert worker.is_on() is bool(value)
        assert losses(caplog) == []


@pytest.mark.every_redis(INSTALLED, VALKEY)
@pytest.mark.parametrize("on_data_loss", ["restore", "follow"])
@pytest.mark.parametrize(
    "when", ["before the split", "beside the old master", "after the failover"]
)
async def test_a_deletion_is_never_mistaken_for_a_loss(
    pair: Pair, caplog: pytest.LogCaptureFixture, when: str, on_data_loss: DataLoss
) -> None:
    """Not even one that the new master was told while the worker still followed the old one."""
    async with linked(
        RedisBackend(pair.url, ttl=TTL, on_data_loss=on_data_loss), Worker(reporting=True)
    ) as worker:
        await by_hand(pair)
        await both_know(True, worker)
        if when == "before the split":
            await pair.master.acli("DEL", "maintenance")
            await both_know(False, worker)
        await asyncio.to_thread(pair.split)
        await has_settled(worker)
        if when == "beside the old master":
            await pair.replica.acli("DEL", "maintenance")
            assert worker.is_on()
        await asyncio.to_thread(pair.fail_over)
        if when == "after the failover":
            await pair.replica.acli("DEL", "maintenance")
        await eventually(worker.is_off, within=30)
        await has_settled(worker)

        assert worker.is_off()
        assert await pair.replica.acli("EXISTS", "maintenance") == "0"
        assert losses(caplog) == []


async def test_deletion_while_disconnected_is_no_loss(
    own_redis_server: RedisServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Right before a crash, and at once after the start: the data are there, so it was meant."""
    caplog.set_level(logging.WARNING)
    server = own_redis_server(config={"appendonly": "yes", "appendfsync": "always"})
    async with linked(RedisBackend(server.url, ttl=TTL), Worker(reporting=True)) as worker:
        for deleted_before in (True, False):
            await server.acli("SET", "maintenance", "1")
            await both_know(True, worker)
            if deleted_before:
                server.cli("DEL", "maintenance")
            server.kill()  # in this thread: the worker hears of nothing before the server is gone
            await asyncio.to_thread(server.start)
            if not deleted_before:
                await server.acli("DEL", "maintenance")
            await eventually(worker.is_off, within=30)
            await has_settled(worker)
            assert worker.is_off()
            assert await server.acli("EXISTS", "maintenance") == "0"
    assert losses(caplog) == []


@pytest.mark.every_redis(INSTALLED, VALKEY)
async def test_failover_that_lost_a_hold_opens_no_worker(pair: Pair) -> None:
    async with linked(RedisBackend(pair.url, ttl=TTL), Worker(reporting=True)) as worker:
        await both_know(False, worker)
        await asyncio.to_thread(pair.split)
        lease = LeaseKeeper(RedisBackend(pair.url), Hold("ours", ON), 3.0)
        await asyncio.to_thread(lambda: lease.submit_acquire().result(5))
        await both_know(True, worker)
        syncs = worker.syncs
        await asyncio.to_thread(pair.fail_over)
        await has_settled(worker)
        assert not worker.was_ever_off(syncs)
        await asyncio.sleep(3.0)  # a whole lease: it is renewed on the new master
        assert not worker.was_ever_off(syncs)
        assert not lease.lost
        assert worker.held == ["ours"]
        await asyncio.to_thread(lambda: lease.submit_release().result(5))
        await eventually(worker.is_off, within=30)


async def test_a_holder_puts_back_its_hold_where_no_worker_remembers(pair: Pair) -> None:
    """As where the only worker was restarted in the outage."""
    await asyncio.to_thread(pair.split)
    lease = LeaseKeeper(RedisBackend(pair.url), Hold("ours", ON), 1.5)
    await asyncio.to_thread(lambda: lease.submit_acquire().result(5))
    await asyncio.to_thread(pair.fail_over)
    async with linked(RedisBackend(pair.url, ttl=TTL), Worker(reporting=True)) as worker:
        await eventually(lambda: worker.held == ["ours"], within=30)
        assert not lease.lost
        await asyncio.to_thread(lambda: lease.submit_release().result(5))
        await eventually(worker.is_off, within=30)


@pytest.mark.parametrize("close", ["write", "write_component", "acquire"])
async def test_barrier_on_the_new_master_hides_no_loss(pair: Pair, close: str) -> None:
    """As of a wait that goes on there before the workers come; it moves the epoch past theirs."""
    backend = RedisBackend(pair.url, ttl=TTL)
    backend.follow_components(["billing"])
    async with linked(backend, Worker(reporting=True)) as worker:
        await both_know(False, worker)
        await asyncio.to_thread(pair.split)
        match close:
            case "write":
                await RedisBackend(pair.url).write(STATE)
            case "write_component":
                await RedisBackend(pair.url).write_component("billing", STATE)
            case _:
                await RedisBackend(pair.url).acquire(Hold("ours", ON), 60.0)
        await eventually(lambda: is_shut(worker.last), within=10)
        await has_settled(worker)
        syncs = worker.syncs
        await RedisBackend(pair.replica.url).begin_barrier()
        await asyncio.to_thread(pair.fail_over)
        await has_settled(worker)

        assert all(map(is_shut, worker.readings[syncs:]))


async def test_write_on_the_new_master_overrides_the_old_one(
    pair: Pair,
) -> None:
    """By a command, which leaves a trace that a bare DEL of nothing does not."""
    async with linked(RedisBackend(pair.url, ttl=TTL), Worker(reporting=True)) as worker:
        await both_know(False, worker)
        await asyncio.to_thread(pair.split)
        await by_hand(pair)
        await both_know(True, worker)
        await RedisBackend(pair.replica.url).write(OFF)
        await asyncio.to_thread(pair.fail_over)
        await eventually(worker.is_off, within=30)
        await has_settled(worker)

        assert worker.is_off()
        assert await pair.replica.acli("EXISTS", "maintenance") == "0"


# -- the first worker that comes back knows an older state -----------------------------------------


@dataclass
class Site:
    """Two workers that can be cut off, and a server that loses its data or what came last."""

    pair: Pair
    rolls_back: bool
    old: Worker
    new: Worker
    proxies: tuple[Proxy, Proxy]

    @property
    def before(self) -> RedisBackend:
        return RedisBackend(self.pair.master.url)

    @property
    def after(self) -> RedisBackend:
        return RedisBackend((self.pair.replica if self.rolls_back else self.pair.master).url)

    async def settle(self) -> None:
        """Let both workers know the state; what comes after it will be lost."""
        await has_settled(self.old, self.new)
        if self.rolls_back:
            await asyncio.to_thread(self.pair.split)

    async def cut_off(self) -> None:
        """Let only one of them know what comes next."""
        await has_settled(self.old, self.new)
        self.proxies[0].stall(up=True, down=True)

    async def lose(self) -> None:
        """Lose the data, and let the worker come back that knows less."""
        await has_settled(self.new)
        self.proxies[1].stall(up=True, down=True)
        if self.rolls_back:
            await asyncio.to_thread(self.pair.fail_over)
        else:
            await self.pair.master.acli("FLUSHALL")
        self.proxies[0].flow()
        await has_settled(self.old)

    async def return_new(self) -> None:
        self.proxies[1].flow()
        await has_settled(self.new, self.old)

    async def kinds(self) -> list[str]:
        return [change.kind for change in await self.after.history()]


@pytest.fixture(params=["empty", "rolled back"])
async def site(request: pytest.FixtureRequest, pair: Pair) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        proxies = [stack.enter_context(Proxy(pair.master.port)) for _ in range(2)]
        workers = []
        for proxy in proxies:
            backend = RedisBackend(proxy.url, ttl=TTL)
            backend.follow_components(["billing"])
            workers.append(await stack.enter_async_context(linked(backend, Worker(reporting=True))))
        old, new = workers
        yield Site(pair, request.param == "rolled back", old, new, (proxies[0], proxies[1]))


async def close_by_hand(site: Site) -> None:
    await site.pair.master.acli("SET", "maintenance", WITH_MESSAGE)


async def close_by_command(site: Site) -> None:
    await site.before.write(STATE)


async def close_by_hold(site: Site) -> None:
    await site.before.acquire(Hold("ours", ON), 60.0)


async def close_component(site: Site) -> None:
    await site.before.write_component("billing", STATE)


def is_shut(reading: Snapshot) -> bool:
    """Whether the service or the component was closed when the reading came."""
    return evaluate(reading, reading.now).state.enabled or is_closed(reading, "billing")


@pytest.mark.parametrize("close", [close_by_hand, close_by_command, close_by_hold, close_component])
async def test_closing_that_a_later_worker_knows_is_restored(
    site: Site, close: Callable[[Site], Awaitable[None]]
) -> None:
    await site.settle()
    await site.cut_off()
    await close(site)
    await eventually(lambda: is_shut(site.new.last), within=10)
    readings = site.new.syncs
    await site.lose()
    assert not is_shut(site.old.last)
    await site.return_new()

    assert is_shut(site.old.last)
    assert is_shut(site.new.last)
    assert all(map(is_shut, site.new.readings[readings:]))
    # Rolled-back data are all that the first worker knows, so it notices no loss.
    lost = [] if site.rolls_back else ["lost"]
    assert (await site.kinds())[-2:] == [*lost, "restored"]


async def test_opening_that_a_later_worker_knows_is_restored(site: Site) -> None:
    await site.settle()
    await site.before.write(STATE)
    await site.before.acquire(Hold("off", OFF), 60.0)
    await eventually(lambda: site.old.held == site.new.held == ["off"], within=10)
    await site.cut_off()
    await site.before.release(Hold("off", OFF))
    await site.before.write(OFF)
    await site.before.write_component("billing", STATE)
    await eventually(lambda: is_closed(site.new.last, "billing"), within=10)
    await site.lose()
    assert site.old.held == ["off"]
    assert (await site.after.read()).switch != OFF
    await site.return_new()

    assert site.old.held == site.new.held == []
    assert site.old.is_off()
    assert is_closed(site.old.last, "billing")


async def test_decision_between_two_restorations_stays(site: Site) -> None:
    await site.settle()
    await site.before.write(STATE)
    await eventually(lambda: site.old.is_on() and site.new.is_on(), within=10)
    await site.cut_off()
    await site.before.write(ON)
    await eventually(lambda: not site.new.sees("back soon"), within=10)
    await site.lose()
    assert site.old.is_on()
    await site.after.write(OFF)
    await eventually(site.old.is_off, within=SOON)
    await site.return_new()

    assert site.old.is_off()
    assert site.new.is_off()


async def test_rolled_back_closing_that_had_ended_ends_again(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """The last known state holds, whichever way the old data say."""
    async with linked(RedisBackend(pair.url, ttl=TTL), Worker(reporting=True)) as worker:
        await by_command(pair)
        await both_know(True, worker)
        await asyncio.to_thread(pair.split)
        await RedisBackend(pair.url).write(OFF)
        await both_know(False, worker)
        await asyncio.to_thread(pair.fail_over)
        await has_settled(worker)

        assert worker.is_off()
        assert await pair.replica.acli("EXISTS", "maintenance") == "0"
        assert losses(caplog) == ["Redis lost its data; the last known state: restored"]


async def test_follower_of_a_loss_leaves_a_restoration_alone(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """It knows more than the worker that restored, and follows that all the same."""
    with Proxy(pair.master.port) as proxy:
        async with linked(RedisBackend(pair.url, ttl=TTL), Worker(reporting=True)) as restorer:
            follower = Worker(reporting=True)
            backend = RedisBackend(proxy.url, ttl=TTL, on_data_loss="follow")
            backend.follow_components(["billing"])
            async with linked(backend, follower):
                await pair.master.acli("SET", "maintenance:billing", "1")
                await eventually(lambda: is_closed(follower.last, "billing"), within=10)
                await has_settled(restorer, follower)
                proxy.stall(up=True, down=True)
                await pair.master.acli("FLUSHALL")
                await has_settled(restorer)
                proxy.flow()
                await has_settled(follower)

                assert not is_closed(follower.last, "billing")
    assert losses(caplog) == ["Redis lost its data; the last known state: nothing to restore"]
