"""Behind Sentinels: every worker is on the master that they name, and leaves one that was demoted
though it still answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from fastapi_maintenance import maintenance_mode_on, wait_until_applied
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.sentinel import SentinelServer, _read, _Vote
from fastapi_maintenance.backends.redis.server import SingleServer
from fastapi_maintenance.exceptions import BackendUnavailableError
from fastapi_maintenance.model.state import OFF, ON
from fastapi_maintenance.runtime.mode import MaintenanceMode
from tests.support.servers import RedisServer
from tests.support.topologies import MASTER, SentinelGroup, sentinel_group
from tests.support.waiting import eventually

from .scripted import scripted

pytestmark = pytest.mark.timeout(180)

TTL: Final = 0.5
SLACK: Final = 20.0  # seconds, for a busy machine
DOWN_AFTER: Final = 1.0
FAILOVER: Final = 120.0  # seconds; a Sentinel that had to wait does nothing for 30 (TILT)


@pytest.fixture(scope="module")
def whole_group() -> Iterator[SentinelGroup]:
    with sentinel_group(down_after=DOWN_AFTER) as group:
        yield group


@pytest.fixture
def group(whole_group: SentinelGroup) -> Iterator[SentinelGroup]:
    """Open, with all of its servers up."""
    whole_group.wait_until_whole()
    whole_group.master().cli("DEL", "maintenance")
    yield whole_group
    for server in whole_group.servers:
        server.resume() if server.is_running else server.start()


def backend_of(group: SentinelGroup, **options: Any) -> RedisBackend:
    return RedisBackend(group.url, **{"ttl": TTL, "timeout": 10.0, **options})


async def closed(mode: MaintenanceMode, is_closed: bool, within: float = SLACK) -> None:
    await eventually(
        lambda: (mode.gate.closure is not None) is is_closed and mode.gate.source == "redis",
        within=within,
    )


async def replica_of(group: SentinelGroup) -> RedisServer:
    master = await asyncio.to_thread(group.master)
    return next(server for server in group.servers if server is not master)


# -- who is the master -----------------------------------------------------------------------------


async def test_commands_and_workers_go_to_the_master(group: SentinelGroup) -> None:
    backend = backend_of(group)
    async with MaintenanceMode(backend_of(group)) as mode:
        await backend.write(ON)
        await closed(mode, True)
        assert (await backend.read()).switch == ON
        await group.master().acli("DEL", "maintenance")
        await closed(mode, False)


async def test_worker_on_the_minority_side_of_a_split_closes_itself(group: SentinelGroup) -> None:
    """The other side may have another master by then, and a barrier there that has waited for the
    fence.
    """
    mode = MaintenanceMode(backend_of(group), on_unreachable="closed", stale_after=2 * TTL)
    async with mode:
        await eventually(lambda: mode.evaluate_gate().closure is None, within=SLACK)
        for sentinel in group.sentinels[1:]:
            sentinel.pause()
        try:
            await eventually(
                lambda: mode.evaluate_gate().closure is not None, within=2 * TTL + SLACK
            )
            assert (await backend_of(group).read()).switch == OFF, "its master is alive, and open"
            result = await wait_until_applied(backend_of(group, timeout=1.0), timeout=3.0)
            assert not result.ok
            assert "minority of the Sentinels" in result.trouble
        finally:
            for sentinel in group.sentinels[1:]:
                sentinel.resume()
        await eventually(lambda: mode.evaluate_gate().closure is None, within=SLACK)


async def test_worker_that_a_majority_confirms_stays_open(group: SentinelGroup) -> None:
    backend = backend_of(group, ttl=2.0)
    mode = MaintenanceMode(backend, on_unreachable="closed", stale_after=6.0)
    async with mode:
        group.sentinels[0].pause()
        try:
            await eventually(lambda: mode.evaluate_gate().closure is None, within=SLACK)
            until = time.monotonic() + 8.0
            while time.monotonic() < until:
                assert mode.evaluate_gate().closure is None
                await asyncio.sleep(0.01)
            assert (await wait_until_applied(backend_of(group), timeout=20.0)).ok
        finally:
            group.sentinels[0].resume()


async def test_planned_failover_is_followed(
    group: SentinelGroup,
) -> None:
    """For some ten seconds it says that it is the master, and what the switch was."""
    async with MaintenanceMode(backend_of(group)) as mode:
        old = await asyncio.to_thread(group.master)
        await asyncio.to_thread(group.fail_over)
        changed = time.monotonic()
        new = await asyncio.to_thread(group.master)
        await new.acli("SET", "maintenance", 1)
        await closed(mode, True, within=TTL + SLACK)
        # That long it takes without asking the Sentinels again: they demote the old one by then.
        assert time.monotonic() - changed < 9 or await _is_master(old)
        await new.acli("DEL", "maintenance")
        await closed(mode, False)


async def test_a_master_that_is_killed_is_replaced(group: SentinelGroup) -> None:
    async with MaintenanceMode(backend_of(group)) as mode:
        old = await asyncio.to_thread(group.master)
        await asyncio.to_thread(old.kill)
        new = await replica_of(group)
        await eventually(lambda: _is_master(new), within=FAILOVER)
        await new.acli("SET", "maintenance", 1)
        await closed(mode, True, within=2 + SLACK)


async def test_nobody_goes_back_to_a_master_that_comes_back_to_life(group: SentinelGroup) -> None:
    """A zombie: frozen, replaced, and thawed, it answers as if it still were the master."""
    async with MaintenanceMode(backend_of(group)) as mode:
        zombie, new = await asyncio.to_thread(group.master), await replica_of(group)
        zombie.pause()
        await eventually(lambda: _is_master(new), within=FAILOVER)
        await new.acli("SET", "maintenance", 1)
        await closed(mode, True, within=2 + SLACK)
        zombie.resume()
        until = time.monotonic() + 3 * TTL
        while time.monotonic() < until:
            assert mode.gate.closure is not None, (
                "it went back to the zombie, which knows of no maintenance"
            )
            await asyncio.sleep(0.01)
        assert mode.gate.source == "redis"


async def test_a_hold_outlives_a_failover(group: SentinelGroup) -> None:
    async with (
        MaintenanceMode(backend_of(group)) as mode,
        maintenance_mode_on(backend_of(group), lease=120.0) as block,
    ):
        await closed(mode, True)
        await eventually(lambda: _has(group, "{maintenance}:holds"), within=SLACK)
        await asyncio.to_thread(group.fail_over)
        until = time.monotonic() + 3 * TTL
        while time.monotonic() < until:
            assert mode.gate.closure is not None
            await asyncio.sleep(0.01)
        assert not block.lost


async def test_component_stays_closed_over_a_failover(
    group: SentinelGroup,
) -> None:
    mode = MaintenanceMode(backend_of(group))
    mode.follow_components(frozenset({"billing"}))
    async with mode:
        await backend_of(group).write_component("billing", ON)
        await eventually(lambda: mode.gate.for_component("billing").closure, within=SLACK)
        await eventually(lambda: _has(group, "maintenance:billing"), within=SLACK)
        await asyncio.to_thread(group.fail_over)
        until = time.monotonic() + 3 * TTL
        while time.monotonic() < until:
            assert mode.gate.for_component("billing").closure is not None
            assert mode.gate.closure is None
            await asyncio.sleep(0.01)
        await (await asyncio.to_thread(group.master)).acli("DEL", "maintenance:billing")
        await eventually(
            lambda: mode.gate.is_open and mode.gate.source == "redis", within=TTL + SLACK
        )


async def _is_master(server: RedisServer) -> bool:
    try:
        return (await server.acli("ROLE")).startswith("master")
    except RuntimeError:  # it hangs up on its clients when it changes its role
        return False


async def _has(group: SentinelGroup, key: str) -> bool:
    """Whether it has reached a replica."""
    return await (await replica_of(group)).acli("EXISTS", key) == "1"


# -- Sentinels that do not help --------------------------------------------------------------------


async def test_a_sentinel_that_hangs_keeps_nobody_waiting(group: SentinelGroup) -> None:
    group.sentinels[0].pause()
    try:
        began = time.monotonic()
        assert (await backend_of(group, timeout=120.0).read()).switch == OFF
        assert time.monotonic() - began < 60.0
    finally:
        group.sentinels[0].resume()


async def test_worker_without_any_sentinel_keeps_its_master(
    group: SentinelGroup,
) -> None:
    async with MaintenanceMode(backend_of(group)) as mode:
        for sentinel in group.sentinels:
            sentinel.pause()
        try:
            await asyncio.sleep(2 * TTL)
            (master,) = [server for server in group.servers if await _is_master(server)]
            await master.acli("SET", "maintenance", 1)
            await closed(mode, True)
        finally:
            for sentinel in group.sentinels:
                sentinel.resume()


async def test_a_name_that_no_sentinel_knows_is_said_so(group: SentinelGroup) -> None:
    backend = RedisBackend(group.url.replace(MASTER, "yourmaster"), timeout=10.0)
    with pytest.raises(
        BackendUnavailableError,
        match=r"None of 3 Sentinels knows where 'yourmaster' is: .*No such master",
    ):
        await backend.read()


async def test_where_no_sentinel_is_there_at_all_the_error_says_so() -> None:
    backend = RedisBackend("redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster")
    with pytest.raises(
        BackendUnavailableError,
        match=r"None of 2 Sentinels knows where 'mymaster' is: .*Connect call failed",
    ):
        await backend.read()


def test_replica_behind_sentinels_has_no_other_address() -> None:
    """They name the master, so that no address is better than the one that they name."""
    group = SentinelServer(
        [SingleServer.from_url("redis://sentinel")], MASTER, SingleServer.from_url("redis://master")
    )
    nowhere: Any = None
    assert not group.leave(nowhere)


def test_sentinel_that_lags_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("fastapi_maintenance.backends.redis.sentinel.time.monotonic", lambda: now)
    group = SentinelServer(
        [SingleServer.from_url("redis://sentinel")], MASTER, SingleServer.from_url("redis://master")
    )
    old, new = _Vote(1, ("old", 6379)), _Vote(2, ("new", 6379))

    assert [group._learn(vote) for vote in (old, new, old)] == [old, new, new]
    now += 11.0  # the Sentinels were set up anew, and count from the beginning
    assert group._learn(old) == old


def test_sentinel_in_a_failover_does_not_name_the_new_master() -> None:
    """It names the old one until all replicas follow the new one, and counts the failover before.

    The links used to go to and fro between the two for so long.
    """
    words = {b"config-epoch": b"2", b"ip": b"old", b"port": b"6379", b"flags": b"master"}
    during = _read(words | {b"flags": b"master,failover_in_progress"})
    assert (during, _read(words)) == (_Vote(1, ("old", 6379)), _Vote(2, ("old", 6379)))


@pytest.mark.parametrize(
    "answer",
    [
        b"+OK\r\n",
        b"*2\r\n$2\r\nip\r\n$1\r\nx\r\n",
        b"*1\r\n$2\r\nip\r\n",
        b"*-1\r\n",
        b"*6\r\n$2\r\nip\r\n$1\r\nx\r\n$4\r\nport\r\n$1\r\nx\r\n+a\r\n+b\r\n",
    ],
)
async def test_a_sentinel_that_talks_nonsense_is_passed_over(answer: bytes) -> None:
    async with scripted(
        lambda heard: answer if b"SENTINEL" in heard else b"+OK\r\n" * heard.count(b"\r\n*")
    ) as sentinel:
        backend = RedisBackend(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster", timeout=5.0)
        with pytest.raises(
            BackendUnavailableError, match="None of 1 Sentinels knows where 'mymaster' is"
        ):
            await backend.read()


async def test_a_replica_that_is_called_master_is_not_taken_for_one(group: SentinelGroup) -> None:
    """As at the moment of a failover, when it has not been told yet."""
    replica = await replica_of(group)
    name = b"*6\r\n+config-epoch\r\n+9\r\n+ip\r\n+127.0.0.1\r\n+port\r\n+%d\r\n" % replica.port
    async with scripted(lambda heard: name if b"SENTINEL" in heard else b"+OK\r\n") as liar:
        backend = RedisBackend(f"redis+sentinel://127.0.0.1:{liar.port}/mymaster", timeout=5.0)
        with pytest.raises(
            BackendUnavailableError, match="name a server as master that is a replica"
        ):
            await backend.read()


async def test_master_without_role_is_believed_by_sentinels(
    group: SentinelGroup,
) -> None:
    master = await asyncio.to_thread(group.master)
    await master.acli("ACL", "SETUSER", "shy", "on", ">secret", "~*", "&*", "+@all", "-role")
    backend = RedisBackend(group.url_of("shy:secret@"), timeout=10.0)
    assert (await backend.read()).switch == OFF


# -- as in production ------------------------------------------------------------------------------


def test_users_of_the_file_suffice_for_a_failover() -> None:
    with sentinel_group(down_after=DOWN_AFTER, users=True) as group:
        asyncio.run(
            _works_and_fails_over(group, group.url_of("worker:change-me-worker@", f"ttl={TTL}"))
        )


def test_over_tls_everything_works_and_fails_over() -> None:
    with sentinel_group(down_after=DOWN_AFTER, tls=True) as group:
        asyncio.run(_works_and_fails_over(group, group.url_of("", f"ttl={TTL}")))


async def _works_and_fails_over(group: SentinelGroup, url: str) -> None:
    async with MaintenanceMode(RedisBackend(url)) as mode:
        await closed(mode, False)
        async with maintenance_mode_on(RedisBackend(url, timeout=10.0)):
            await closed(mode, True)
        await closed(mode, False)
        await asyncio.to_thread(group.fail_over)
        await group.master().acli("SET", "maintenance", 1)
        await closed(mode, True, within=TTL + SLACK)
