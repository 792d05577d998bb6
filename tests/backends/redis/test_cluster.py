"""In a cluster: every worker is on the node that owns the switch's slot, and follows it wherever it
goes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final
from unittest.mock import AsyncMock

import pytest
from redis.exceptions import TryAgainError

from fastapi_maintenance import maintenance_mode_on, set_maintenance_mode, wait_until_applied
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.cluster import ClusterServer, _nodes, resolved
from fastapi_maintenance.backends.redis.connection import RedisConnection
from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.backends.redis.server import SingleServer
from fastapi_maintenance.exceptions import BackendUnavailableError
from fastapi_maintenance.model.state import OFF, ON
from fastapi_maintenance.runtime.mode import MaintenanceMode
from tests.support.registering import register
from tests.support.servers import RedisServer
from tests.support.topologies import Cluster, cluster
from tests.support.waiting import eventually

from .links import open_files
from .scripted import scripted

pytestmark = pytest.mark.timeout(180)

TTL: Final = 0.5
SLACK: Final = 20.0  # seconds, for a busy machine
# A key whose components are in its slot, which is that of "maintenance" too.
TAGGED: Final = "{maintenance}"
BILLING: Final = f"{TAGGED}:billing"
SEARCH: Final = f"{TAGGED}:search"


@pytest.fixture(scope="module")
def whole_cluster() -> Iterator[Cluster]:
    with cluster() as formed:
        yield formed


@pytest.fixture
def nodes(whole_cluster: Cluster) -> Iterator[Cluster]:
    """Open, and at rest."""
    whole_cluster.owner.cli("DEL", "maintenance", "{maintenance}:holds")
    yield whole_cluster
    for node in whole_cluster.nodes:
        node.resume()


def backend_of(nodes: Cluster, **options: Any) -> RedisBackend:
    return RedisBackend(nodes.url, **{"ttl": TTL, "timeout": 10.0, **options})


def target_in(nodes: Cluster) -> RedisServer:
    """A master that does not own the switch."""
    return next(node for node in nodes.masters if node is not nodes.owner)


async def closed(mode: MaintenanceMode, is_closed: bool, within: float = SLACK) -> None:
    await eventually(
        lambda: (mode.gate.closure is not None) is is_closed and mode.gate.source == "redis",
        within=within,
    )


def closed_components(mode: MaintenanceMode) -> set[str | None]:
    """What is closed; None stands for all that is in no component."""
    return {
        component
        for component in (None, "billing", "search")
        if mode.gate.for_component(component).closure is not None
    }


async def closed_of(mode: MaintenanceMode, *components: str, within: float = SLACK) -> None:
    """Exactly these, by what the cluster says."""
    await eventually(
        lambda: closed_components(mode) == {*components} and mode.gate.source == "redis",
        within=within,
    )


async def stays(mode: MaintenanceMode, is_closed: bool, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert (mode.gate.closure is not None) is is_closed
        await asyncio.sleep(0.01)


# -- who owns the switch ---------------------------------------------------------------------------


async def test_whichever_node_is_named_the_owner_is_found(nodes: Cluster) -> None:
    for node in nodes.nodes:
        backend = RedisBackend(f"redis+cluster://127.0.0.1:{node.port}", timeout=10.0)
        await backend.write(ON)
        assert (await backend.read()).switch == ON
        await backend.write(OFF)
    assert nodes.owner.cli("EXISTS", "maintenance") == "0"


async def test_a_worker_is_pushed_what_anybody_writes(nodes: Cluster) -> None:
    async with MaintenanceMode(backend_of(nodes, ttl=60.0)) as mode:
        await nodes.owner.acli("SET", "maintenance", 1)
        await closed(mode, True)
        await nodes.owner.acli("DEL", "maintenance")
        await closed(mode, False)


async def test_slot_moved_without_a_switch_is_followed(nodes: Cluster) -> None:
    """Nothing is pushed for a key that is not there, but the end of a subscription is."""
    async with MaintenanceMode(backend_of(nodes, ttl=120.0)) as mode:
        target = target_in(nodes)
        await asyncio.to_thread(nodes.begin_move, target)
        await asyncio.to_thread(nodes.move_keys, target)
        await asyncio.to_thread(nodes.end_move, target)
        await target.acli("SET", "maintenance", 1)
        await closed(mode, True)
        await target.acli("DEL", "maintenance")
        await closed(mode, False)


async def test_switch_in_a_moving_slot_is_read_from_both_ends(
    nodes: Cluster,
) -> None:
    """No script runs then, on keys of which some are here and some are there."""
    async with MaintenanceMode(
        backend_of(nodes), stale_after=4 * TTL, on_unreachable="closed"
    ) as mode:
        target = target_in(nodes)
        await asyncio.to_thread(nodes.begin_move, target)
        await asyncio.to_thread(nodes.move_keys, target)
        at_target = f"redis+cluster://127.0.0.1:{target.port}"

        await _ask(target, "SET", "maintenance", "1")
        await eventually(lambda: mode.gate.closure is not None, within=TTL + SLACK)
        await _ask(target, "DEL", "maintenance")
        await eventually(
            lambda: mode.cache.known is not None and mode.cache.known.switch == OFF,
            within=TTL + SLACK,
        )

        await asyncio.to_thread(nodes.end_move, target)
        await closed(mode, False)
        assert (await RedisBackend(at_target, timeout=10.0).read()).switch == OFF


@asynccontextmanager
async def scoped(nodes: Cluster, **options: Any) -> AsyncIterator[MaintenanceMode]:
    """A worker with two components, whose switches share the slot of the general one."""
    mode = MaintenanceMode(backend_of(nodes, key=TAGGED, **options))
    mode.follow_components(frozenset({"billing", "search"}))
    await nodes.owner.acli("DEL", TAGGED, BILLING, SEARCH)
    async with mode:
        yield mode


async def test_the_switches_of_scopes_are_pushed_and_follow_their_slot(nodes: Cluster) -> None:
    async with scoped(nodes, ttl=60.0) as mode:
        await nodes.owner.acli("SET", BILLING, 1)
        await closed_of(mode, "billing")
        target = target_in(nodes)
        await asyncio.to_thread(nodes.begin_move, target)
        await asyncio.to_thread(nodes.move_keys, target)
        await asyncio.to_thread(nodes.end_move, target)
        await target.acli("SET", SEARCH, 1)
        await closed_of(mode, "billing", "search")
        await set_maintenance_mode(False, backend_of(nodes, key=TAGGED), component="billing")
        await closed_of(mode, "search")
        await target.acli("DEL", SEARCH)
        await closed_of(mode)


async def test_components_in_a_moving_slot_are_read_from_both_ends(
    nodes: Cluster,
) -> None:
    async with scoped(nodes) as mode:
        await nodes.owner.acli("SET", BILLING, 1)
        await closed_of(mode, "billing")
        target = target_in(nodes)
        await asyncio.to_thread(nodes.begin_move, target)
        try:
            await _ask(target, "SET", SEARCH, "1")
            await closed_of(mode, "billing", "search", within=TTL + SLACK)
            await nodes.owner.acli("SET", BILLING, "perhaps")
            await _ask(target, "DEL", SEARCH)
            await closed_of(mode, "billing", within=TTL + SLACK)
            await nodes.owner.acli("SET", BILLING, 0)
            await closed_of(mode, within=TTL + SLACK)
        finally:
            await asyncio.to_thread(nodes.move_keys, target)
            await asyncio.to_thread(nodes.end_move, target)
        await target.acli("SET", BILLING, 1)
        await closed_of(mode, "billing")


async def test_holds_wait_until_a_slot_has_moved(nodes: Cluster) -> None:
    async with MaintenanceMode(backend_of(nodes)) as mode:
        await nodes.owner.acli("SET", "maintenance", 0)
        target = target_in(nodes)
        await asyncio.to_thread(nodes.begin_move, target)

        async def end_soon() -> None:
            await asyncio.sleep(2 * TTL)
            await asyncio.to_thread(nodes.move_keys, target)
            await asyncio.to_thread(nodes.end_move, target)

        moving = asyncio.create_task(end_soon())
        async with maintenance_mode_on(backend_of(nodes), lease=30.0):
            await moving
            await closed(mode, True)
        await closed(mode, False)


async def test_a_slot_that_never_arrives_is_said_so(nodes: Cluster) -> None:
    await nodes.owner.acli("SET", "maintenance", 0)
    target = target_in(nodes)
    await asyncio.to_thread(nodes.begin_move, target)
    try:
        with pytest.raises(
            BackendUnavailableError,
            match="the cluster is moving the switch to another node; try again in a moment",
        ):
            await backend_of(nodes, timeout=1.0).write(ON)
    finally:
        await asyncio.to_thread(nodes.move_keys, target)
        await asyncio.to_thread(nodes.end_move, target)


async def _ask(node: RedisServer, *command: str) -> None:
    """What a client does that was sent on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    words = "".join(f"${len(word)}\r\n{word}\r\n" for word in command)
    writer.write(f"*1\r\n$6\r\nASKING\r\n*{len(command)}\r\n{words}".encode())
    assert (await reader.readline()) == b"+OK\r\n"
    assert not (await reader.readline()).startswith(b"-")
    writer.close()
    await writer.wait_closed()


async def test_replies_that_send_nowhere_stay_as_they_are() -> None:
    """As when TRYAGAIN is all that a moving slot answers: no other node is asked."""
    nobody: Any = None
    replies = [b"1", TryAgainError("Multiple keys request during rehashing of slot")]
    commands = [("GET", "maintenance"), ("EXISTS", "maintenance", BILLING)]
    assert await resolved(nobody, nobody, commands, replies, within=SLACK) is replies


# -- nodes that do not help ------------------------------------------------------------------------


async def test_a_node_that_hangs_is_passed_over(nodes: Cluster) -> None:
    other = target_in(nodes)
    other.pause()
    try:
        for _ in range(4):  # nodes are asked in no order
            assert (await backend_of(nodes, timeout=30.0).read()).switch == OFF
    finally:
        other.resume()


async def test_when_the_given_node_is_gone_the_others_are_known(nodes: Cluster) -> None:
    server = ClusterServer(
        [SingleServer.from_url(f"redis://127.0.0.1:{target_in(nodes).port}")],
        Keys.of("maintenance"),
    )
    for given in (server._given, [("127.0.0.1", 1)]):
        server._given = given
        connection: Any = await server.connect(timeout=10.0)
        assert (connection.host, connection.port) == ("127.0.0.1", nodes.owner.port)
        await connection.disconnect(nowait=True)


async def test_where_no_node_is_there_at_all_the_error_says_so() -> None:
    backend = RedisBackend("redis+cluster://127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(
        BackendUnavailableError,
        match=r"No node of the cluster leads to the switch: .*Connect call failed",
    ):
        await backend.read()


async def test_nodes_that_redirect_in_circles_are_given_up() -> None:
    def send_on(heard: bytes) -> bytes:
        return b"-MOVED 2705 :%d\r\n-NOPERM\r\n" % liar.port if b"EXISTS" in heard else b"+OK\r\n"

    async with scripted(send_on) as liar:
        before = open_files()
        backend = RedisBackend(f"redis+cluster://127.0.0.1:{liar.port}", timeout=5.0)
        with pytest.raises(BackendUnavailableError, match="send in circles"):
            await backend.read()
        assert liar.accepted == 5
        await eventually(lambda: open_files() <= before, within=SLACK)


@pytest.mark.parametrize("hangs_up", [True, False])
async def test_node_silent_after_its_greeting_is_given_up(
    hangs_up: bool,
) -> None:
    def greet(heard: bytes) -> bytes:
        if b"EXISTS" not in heard:
            return b"+OK\r\n"
        if hangs_up:
            node.hang_up()
        return b""

    async with scripted(greet) as node:
        before = open_files()
        backend = RedisBackend(f"redis+cluster://127.0.0.1:{node.port}", timeout=1.0)
        with pytest.raises(BackendUnavailableError):
            await backend.read()
        assert node.accepted >= 1
        await eventually(lambda: open_files() <= before, within=SLACK)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ([[0, 1, [b"a", 1, b"id"], [b"b", 2, b"id", []]], [2, 3, [b"a", 1]]], [("a", 1), ("b", 2)]),
        ([[0, 1, [None, 1], [b"", 2], [b"?", 3]]], [("me", 1), ("me", 2)]),
        (Exception("NOPERM"), []),
        (None, []),
        ([[0]], []),
        ([[0, 1, [b"a", b"x"]]], []),
        ([[0, 1, [1, 2]]], []),
    ],
)
def test_what_a_cluster_says_of_its_nodes(reply: Any, found: list[tuple[str, int]]) -> None:
    assert _nodes(reply, "me") == found


# -- as in production ------------------------------------------------------------------------------


async def test_a_replica_that_takes_over_is_followed() -> None:
    """With the users of the file."""
    with cluster(node_timeout=1.0, users=True) as nodes:
        url = nodes.url_of("worker:change-me-worker@", f"ttl={TTL}")
        async with MaintenanceMode(RedisBackend(url)) as mode:
            await nodes.owner.acli("SET", "maintenance", 1)
            await closed(mode, True)
            await eventually(lambda: _has_switch(nodes.replica), within=SLACK)
            await asyncio.to_thread(nodes.owner.kill)
            await eventually(lambda: _is_master(nodes.replica), within=30.0)
            await eventually(
                lambda: mode.gate.source == "redis" and mode.gate.closure, within=2 + SLACK
            )
            await eventually(lambda: _accepts(nodes.replica, "DEL", "maintenance"), within=SLACK)
            await closed(mode, False)
            async with maintenance_mode_on(RedisBackend(url, timeout=10.0)):
                await closed(mode, True)
            await closed(mode, False)


async def test_proof_after_a_takeover_waits_for_the_node_timeout() -> None:
    """The former owner, cut off, may have served a worker for so long."""
    node_timeout, lifetime = 3.0, 3 * TTL
    options: Any = {"on_unreachable": "closed", "stale_after": 2 * TTL}
    with cluster(node_timeout=node_timeout) as nodes:
        backend = backend_of(nodes)
        async with MaintenanceMode(backend_of(nodes), **options):
            await backend.write(ON)
            register(nodes.owner, "gone", reports=False, fence=2 * TTL, lifetime=lifetime)
            await nodes.replica.acli("CLUSTER", "FAILOVER")
            await eventually(lambda: _is_master(nodes.replica), within=30.0)
            result = await wait_until_applied(backend, timeout=60.0)
            assert result.ok
            assert result.elapsed >= lifetime + node_timeout
            # By now the owner has been the same for long enough.
            result = await wait_until_applied(backend, timeout=60.0)
            assert result.ok
            assert lifetime <= result.elapsed < lifetime + node_timeout


@pytest.mark.parametrize(
    ("answer", "seconds"), [("+OK", 15.0), ("*2\r\n$1\r\nx\r\n$4\r\n7000", 7.0), ("-NOPERM", 15.0)]
)
async def test_node_timeout_is_the_default_unless_it_is_told(answer: str, seconds: float) -> None:
    async with scripted(f"{answer}\r\n".encode()) as node:
        server = ClusterServer([SingleServer.from_url("redis://node")], Keys.of("maintenance"))
        async with RedisConnection(await node.connect(driver_info=None), within=5.0) as wire:
            for _ in range(2):
                assert await server.takeover_time(wire) == seconds


async def test_node_timeout_is_the_default_after_a_hang_up() -> None:
    server = ClusterServer([SingleServer.from_url("redis://node")], Keys.of("maintenance"))
    connection = AsyncMock()
    connection.call.side_effect = BackendUnavailableError("closed by server")
    assert [await server.takeover_time(connection) for _ in range(2)] == [15.0, 15.0]
    assert connection.call.call_count == 1


async def test_the_users_of_the_file_may_use_the_key_that_scopes_need() -> None:
    with cluster(users=True) as nodes:
        url = nodes.url_of("worker:change-me-worker@", f"ttl={TTL}&key={TAGGED}")
        mode = MaintenanceMode(RedisBackend(url))
        mode.follow_components(frozenset({"billing"}))
        async with mode:
            await set_maintenance_mode(True, url, component="billing")
            await closed_of(mode, "billing")
            async with maintenance_mode_on(RedisBackend(url, timeout=10.0)):
                await closed(mode, True)
            await closed_of(mode, "billing")


async def test_over_tls_too() -> None:
    with cluster(tls=True) as nodes:
        async with MaintenanceMode(RedisBackend(nodes.url, ttl=TTL)) as mode:
            await nodes.owner.acli("SET", "maintenance", 1)
            await closed(mode, True)
            async with maintenance_mode_on(RedisBackend(nodes.url, timeout=10.0)):
                await nodes.owner.acli("DEL", "maintenance")
                await stays(mode, True, 2 * TTL)
            await closed(mode, False)


async def _is_master(node: RedisServer) -> bool:
    return (await node.acli("ROLE")).startswith("master")


async def _has_switch(replica: RedisServer) -> bool:
    return "keys=" in await replica.acli("INFO", "keyspace")


async def _accepts(node: RedisServer, *command: str) -> bool:
    try:
        await node.acli(*command)
    except RuntimeError:
        return False
    return True
