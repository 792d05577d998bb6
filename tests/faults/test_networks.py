"""Networks that stall, lose, cut, delay and reset: a proxy between worker and server, and true loss
of packets.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from fastapi_maintenance.backends import RedisBackend
from tests.conftest import RedisServerFactory
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

from .bounds import BACK, BY_POLL, BY_PUSH, BY_RECONNECT, NO_POLL, PATIENT, SLACK, TTL, UNREACHABLE
from .island import Island
from .proxy import Proxy
from .service import Service

PUSH: Final = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$11\r\nmaintenance\r\n"
"""What Redis says when the switch has changed."""

PUSHES: Final = re.compile(
    rb">2\r\n\$10\r\ninvalidate\r\n(?:\*1\r\n\$\d+\r\n[^\r]*|_)\r\n|>3\r\n\$7\r\nmessage\r\n(?:\$\d+\r\n[^\r]*\r\n){2}"
)
WAYS: Final = {
    "to the server": {"up": True},
    "from the server": {"down": True},
    "both": {"up": True, "down": True},
}


# -- silence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_stalled_network_is_noticed_and_followed_afterwards(
    proxy: Proxy, operator: Any, way: str
) -> None:
    async with Service(RedisBackend(proxy.url, ttl=TTL), on_unreachable="closed") as service:
        await eventually(lambda: service.ask() == 200, within=BY_PUSH)
        proxy.stall(**WAYS[way])
        await service.becomes(503, within=UNREACHABLE)
        # It knows that this connection is dead.
        await eventually(lambda: proxy.accepted > 1, within=UNREACHABLE)
        await operator.set("maintenance", '{"enabled": true, "message": "meanwhile"}')
        proxy.flow()
        await service.becomes(503, message="meanwhile", within=BACK)


async def test_a_stall_of_less_than_the_deadline_costs_no_connection(
    proxy: Proxy, operator: Any
) -> None:
    async with Service(RedisBackend(proxy.url, ttl=4 * SLACK)) as service:
        accepted = proxy.accepted
        proxy.stall(up=True, down=True)
        await operator.set("maintenance", 1)
        await asyncio.sleep(TTL)
        assert service.ask() == 200
        proxy.flow()
        await service.becomes(503, within=BY_PUSH)
        assert proxy.accepted == accepted


# -- connections that break ------------------------------------------------------------------------


async def test_a_connection_that_is_reset_is_replaced_at_once(proxy: Proxy, operator: Any) -> None:
    async with Service(RedisBackend(proxy.url, ttl=NO_POLL)) as service:
        proxy.reset()
        await operator.set("maintenance", 1)
        await service.becomes(503, within=BY_RECONNECT)
        await operator.delete("maintenance")
        await service.becomes(200, within=BY_PUSH)


async def test_a_connection_that_is_half_closed_is_replaced_at_once(
    proxy: Proxy, operator: Any
) -> None:
    """The server still listens to it, so that nothing that is sent fails."""
    async with Service(RedisBackend(proxy.url, ttl=NO_POLL)) as service:
        proxy.half_close()
        await operator.set("maintenance", 1)
        await service.becomes(503, within=BY_RECONNECT)
        assert proxy.accepted == 2


async def test_a_push_that_is_cut_anywhere_leaves_no_garbage(proxy: Proxy, operator: Any) -> None:
    async with Service(RedisBackend(proxy.url, ttl=NO_POLL)) as service:
        for after in range(len(PUSH)):
            proxy.cut(re.escape(PUSH), after)
            await operator.set(
                "maintenance", f'{{"enabled": true, "message": "cut after {after}"}}'
            )
            await service.becomes(503, message=f"cut after {after}", within=BY_RECONNECT)
        await operator.delete("maintenance")
        await service.becomes(200, within=BY_PUSH)
        assert proxy.accepted >= len(PUSH)


async def test_a_reply_that_is_cut_anywhere_leaves_no_garbage(proxy: Proxy, operator: Any) -> None:
    """Of the sync: the switch is on, and whatever part of that arrives, nobody is ever let in."""
    await operator.set("maintenance", 1)
    async with Service(RedisBackend(proxy.url, ttl=NO_POLL)) as service:
        await service.becomes(503, within=BY_PUSH)
        closed = time.monotonic()
        for after in range(1, 60, 2):
            accepted = proxy.accepted
            proxy.cut(rb"\$\d+\r\n\{.*", after)
            await operator.set("maintenance", f'{{"enabled": true, "message": "{after}"}}')
            await service.becomes(503, message=str(after), within=BY_RECONNECT)
            assert proxy.accepted > accepted
        assert service.answered(since=closed) == {503}


# -- what is lost, and what is late ----------------------------------------------------------------


async def test_change_without_any_push_is_found_by_the_poll(proxy: Proxy, operator: Any) -> None:
    lost = 0

    def lose(data: bytes) -> bytes:
        nonlocal lost
        data, count = PUSHES.subn(b"", data)
        lost += count
        return data

    async with Service(RedisBackend(proxy.url, ttl=PATIENT)) as service:
        proxy.edit(lose)
        for value, status in (("1", 503), ("0", 200)):
            await operator.set("maintenance", value)
            await service.becomes(status, within=BY_POLL)
        assert lost >= 2
        assert proxy.accepted == 1


async def test_last_change_counts_in_a_thousand_runs(proxy: Proxy, operator: Any) -> None:
    """Between arming and reading, between two reads, before and after a push: each reply is held
    back for a random time.
    """
    dice = random.Random(18)
    proxy.delay(lambda: dice.choice([0, 0, 0.0005, 0.001, 0.002]))
    async with Service(RedisBackend(proxy.url, ttl=NO_POLL)) as service:
        for run in range(1000):
            for _ in range(dice.randint(0, 2)):
                await operator.set("maintenance", dice.randint(0, 1))
                await asyncio.sleep(dice.choice([0, 0, 0.0005, 0.001]))
            await operator.set(
                "maintenance",
                f'{{"enabled": {"true" if run % 2 else "false"}, "message": "{run}"}}',
            )
            await service.becomes(503 if run % 2 else 200, message=str(run), within=BY_PUSH)
        assert proxy.accepted == 1


async def test_server_without_resp3_is_followed(proxy: Proxy, operator: Any) -> None:
    """As old proxies do: HELLO is unknown to them."""
    proxy.edit(lambda data: data.replace(b"HELLO", b"HALLO"), up=True)
    async with Service(RedisBackend(proxy.url, ttl=PATIENT)) as service:
        await operator.set("maintenance", 1)
        await service.becomes(503, within=BY_POLL)
        assert proxy.accepted == 3  # the refused one, one for commands and one to listen


# -- true loss -------------------------------------------------------------------------------------


@pytest.fixture
def island() -> Iterator[Island]:
    with Island() as island:
        yield island


@asynccontextmanager
async def served_from(island: Island, make: RedisServerFactory) -> AsyncIterator[RedisServer]:
    yield await asyncio.to_thread(
        lambda: make(host=island.address, launcher=island.launcher, config={"protected-mode": "no"})
    )


@pytest.mark.parametrize("way", [{"there": True}, {"back": True}], ids=["there", "back"])
async def test_lost_packets_are_noticed_and_healing_too(
    island: Island, own_redis_server: RedisServerFactory, way: dict[str, bool]
) -> None:
    async with (
        served_from(island, own_redis_server) as server,
        Service(RedisBackend(server.url, ttl=TTL), on_unreachable="closed") as service,
    ):
        await eventually(lambda: service.ask() == 200, within=BY_PUSH)
        await asyncio.to_thread(island.lose, **way)
        await service.becomes(503, within=UNREACHABLE)
        await asyncio.sleep(TTL)
        await asyncio.to_thread(island.heal)
        await service.becomes(200, within=BACK)


async def test_connection_given_up_by_the_kernel_is_replaced(
    island: Island, own_redis_server: RedisServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """ETIMEDOUT, which redis-py by itself takes for "nothing yet", again and again without a pause:
    here long before our PING is due.
    """
    keepalive = {socket.TCP_KEEPIDLE: 1, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 2}
    async with served_from(island, own_redis_server) as server:
        client = Redis(
            host=server.host,
            port=server.port,
            socket_keepalive=True,
            socket_keepalive_options=keepalive,
        )
        async with Service(RedisBackend(client=client, ttl=NO_POLL)) as service:
            # With data on its way, the kernel would not send what keeps alive.
            await asyncio.sleep(TTL)
            await asyncio.to_thread(island.lose, there=True)
            began, spent = time.monotonic(), time.thread_time()
            await eventually(lambda: "timed out" in caplog.text, within=3 + SLACK, every=0.05)
            await asyncio.sleep(1)
            share = (time.thread_time() - spent) / (time.monotonic() - began)
            assert share < 0.5, f"{share:.0%} of the time was spent computing"
            await asyncio.to_thread(island.heal)
            await server.acli("SET", "maintenance", 1)
            # The kernel has sent the first SYN into the void, and waits before the next.
            await service.becomes(503, within=BACK + SLACK)
