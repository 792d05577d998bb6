"""Whatever comes over the wire, a worker stays where it was, and follows again once there is sense
in it.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import cycle
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio import ConnectionPool, Redis

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.exceptions import MaintenanceError
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from fastapi_maintenance.runtime.mode import MaintenanceMode
from tests.backends.redis.parsers import PARSERS
from tests.backends.redis.scripted import scripted
from tests.faults.proxy import Proxy
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

from .effort import effort
from .resp import CLAIMS, CONVERSATIONS, array, bulk

TTL: Final = 0.1
KEPT: Final = MaintenanceState(enabled=True, message="kept")
HOLD: Final = Hold("a", ON, since=1.0)
PREPARED_FOR: Final = (b"*2147483647\r\n", b">1000000000\r\n")
LEFT: Final = 64  # MiB that a claim may cost


@pytest.fixture(params=PARSERS)
def parser(request: pytest.FixtureRequest) -> Any:
    """Each parser of redis-py that is installed."""
    return request.param


def backend_at(port: int, parser: Any) -> RedisBackend:
    client = Redis(connection_pool=ConnectionPool(host="127.0.0.1", port=port, parser_class=parser))
    return RedisBackend(client=client, ttl=TTL, timeout=TTL)


async def survives(
    server: RedisServer, parser: Any, disturb: Callable[[Proxy], Awaitable[object]]
) -> None:
    """A closed worker stays closed under the disturbance, and opens when it is told to after it."""
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unheard.append(context))
    operator = Redis(port=server.port)
    async with operator:
        with Proxy(server.port) as network:
            await operator.set("maintenance", KEPT.dump())
            async with MaintenanceMode(backend_at(network.port, parser)) as mode:
                await eventually(lambda: mode.gate.state == KEPT, within=30)
                calm = asyncio.create_task(stays(mode))
                await disturb(network)
                network.edit(None)
                calm.cancel()
                await asyncio.wait([calm])
                assert calm.cancelled(), calm
                await operator.set("maintenance", "off")
                await eventually(lambda: not mode.gate.state.enabled, within=30)
    gc.collect()  # a task that nobody asked for its exception complains when it is deleted
    assert not unheard


async def stays(mode: MaintenanceMode) -> None:
    """End when it does not any more."""
    await eventually(lambda: mode.gate.state != KEPT, within=3600, every=0.001)


async def instead_of_replies(network: Proxy, words: list[bytes]) -> None:
    """Say this in the place of replies, each at least once."""
    said, replaced = cycle(words), list[bytes]()

    def change(reply: bytes) -> bytes:
        replaced.append(reply)
        return next(said)

    network.edit(change)
    await eventually(lambda: len(replaced) > len(words) + 2, within=30)


@effort(12)
@given(words=CONVERSATIONS)
def test_a_server_that_has_gone_mad_changes_nothing(
    redis_server: RedisServer, parser: Any, words: list[bytes]
) -> None:
    async def disturb(network: Proxy) -> None:
        await instead_of_replies(network, words)

    asyncio.run(survives(redis_server, parser, disturb))


@effort(12)
@given(words=CONVERSATIONS)
def test_what_nobody_asked_for_changes_nothing(
    redis_server: RedisServer, parser: Any, words: list[bytes]
) -> None:
    async def disturb(network: Proxy) -> None:
        left = list(words)
        network.edit(lambda reply: left.pop(0) + reply if left else reply)
        await eventually(lambda: not left, within=30)

    asyncio.run(survives(redis_server, parser, disturb))


@effort(10)
@given(words=CONVERSATIONS)
def test_a_command_fails_with_an_error_of_ours(parser: Any, words: list[bytes]) -> None:
    said = cycle(words)
    asyncio.run(each_step_is_refused(parser, lambda: next(said)))


FIELD: Final = st.one_of(
    st.sampled_from(
        [
            b":1\r\n",
            b"_\r\n",
            b"*0\r\n",
            bulk(b""),
            bulk(b"x"),
            bulk(b"9" * 400),
            bulk(b"\xff"),
            bulk(b"1700000000000000"),
        ]
    ),
    st.lists(st.just(array([bulk(b"a")] * 4)), max_size=2).map(array),
)
SOUND: Final = (
    bulk(b"1700000000000000"),
    bulk(b"text"),
    b"$-1\r\n",
    b":-2\r\n",
    b"*0\r\n",
    array([bulk(b"7")] * 3),
    bulk(b"f"),
    bulk(b"8"),
    b"*0\r\n",
    b"*0\r\n",
    bulk(b""),
)
"""What the script answers where nothing is set."""


@effort(40)
@example([bulk(b"")] * len(SOUND), {7})
@example([bulk(b"9" * 400)] * len(SOUND), {7})
@given(
    st.lists(FIELD, min_size=len(SOUND), max_size=len(SOUND)),
    st.sets(st.integers(0, len(SOUND) - 1), max_size=3),
)
def test_a_reply_that_is_nearly_the_scripts_is_no_other_error(
    fields: list[bytes], spoilt: set[int]
) -> None:
    reply = array(fields[i] if i in spoilt else SOUND[i] for i in range(len(SOUND)))
    asyncio.run(each_step_is_refused(PARSERS[0], lambda: reply))


def test_the_reply_that_is_spoilt_there_is_one_of_the_scripts() -> None:
    """Else every step would refuse it for its length, whatever is in it."""

    async def read() -> Snapshot:
        async with scripted(
            lambda heard: array(SOUND) if b"EVAL" in heard else b"+OK\r\n"
        ) as server:
            return await backend_at(server.port, PARSERS[0]).read()

    assert asyncio.run(read()) == Snapshot(OFF, (), 1700000000.0, epoch=7, fingerprint="f")


async def each_step_is_refused(parser: Any, answer: Callable[[], bytes]) -> None:
    """Run every step of a backend, and let no error pass but ours."""

    def greeting_first(heard: bytes) -> bytes:
        return b"+OK\r\n" if b"SETINFO" in heard or b"SELECT" in heard else answer()

    async with scripted(greeting_first) as server:
        backend = backend_at(server.port, parser)
        steps: list[Callable[[], Awaitable[object]]] = [
            backend.read,
            backend.get_value,
            backend.clear,
            backend.read_registry,
            backend.begin_barrier,
            lambda: backend.write(ON),
            lambda: backend.acquire(HOLD, 1.0),
            lambda: backend.renew(HOLD, 1.0),
            lambda: backend.release(HOLD, keep=ON),
        ]
        for step in steps:
            with suppress(MaintenanceError):
                await step()


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim[:16].decode().strip())
def test_a_claim_of_great_length_costs_no_memory(
    redis_server: RedisServer, parser: Any, claim: bytes
) -> None:
    if parser is not PARSERS[0] and claim in PREPARED_FOR:
        pytest.skip(
            "hiredis makes room at once for as many elements as are claimed, and that is not in "
            "our hands"
        )

    async def disturb(network: Proxy) -> None:
        await instead_of_replies(network, [claim + b"x" * 100_000])

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asyncio.run(survives(redis_server, parser, disturb))

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < LEFT * 1024
