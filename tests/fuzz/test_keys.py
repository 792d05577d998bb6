"""Whatever stands in the keys of a real server, a worker reads it as a state or stays
where it was.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.exceptions import MaintenanceError
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import ON, MaintenanceState
from fastapi_maintenance.model.workers import RegistrySnapshot
from fastapi_maintenance.runtime.mode import MaintenanceMode
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

from .effort import effort
from .garbage import JSON, SWITCHES

KEYS: Final = Keys.of("maintenance")
KEPT: Final = MaintenanceState(enabled=True, message="kept")
GOOD: Final = MaintenanceState(enabled=True, message="good")
NUMBERS: Final = st.sampled_from(
    [
        "",
        "0",
        "-1",
        "1e99",
        "9" * 400,
        "17" + "0" * 14,
        "99" + "0" * 14,
        "x",
        "nan",
        " ",
        "\0",
        "1.5",
    ]
)
REPORTS: Final = st.dictionaries(
    st.sampled_from(
        [
            "host",
            "pid",
            "epoch",
            "applied",
            "closed",
            "drained",
            "http",
            "websockets",
            "fence",
            "lifetime",
        ]
    ),
    JSON,
)
ENTRIES: Final = st.one_of(
    st.binary(max_size=80),
    st.tuples(NUMBERS, NUMBERS, JSON.map(json.dumps) | st.just(Hold("a", ON).dump()))
    .map(" ".join)
    .map(str.encode),
    st.tuples(NUMBERS, REPORTS.map(json.dumps) | st.just("left")).map(" ".join).map(str.encode),
)
HASHES: Final = st.dictionaries(st.binary(min_size=1, max_size=20), ENTRIES, min_size=1, max_size=5)
EPOCHS: Final = st.binary(max_size=40) | st.lists(NUMBERS, min_size=4, max_size=6).map(
    " ".join
).map(str.encode)
OTHER_TYPES: Final = st.sampled_from(["LPUSH", "SADD", "SETBIT", "PFADD"])

Write = Callable[[Any, str], Awaitable[object]]


def as_hash(fields: dict[bytes, bytes]) -> Write:
    return lambda client, key: client.hset(key, mapping=fields)


def as_string(value: bytes) -> Write:
    return lambda client, key: client.set(key, value)


def as_other(command: str) -> Write:
    words = {"LPUSH": ["1"], "SADD": ["1"], "SETBIT": ["70000", "1"], "PFADD": ["1"]}[command]
    return lambda client, key: client.execute_command(command, key, *words)


GARBAGE: Final = st.one_of(
    HASHES.map(as_hash), SWITCHES.map(as_string), EPOCHS.map(as_string), OTHER_TYPES.map(as_other)
)


@effort(12)
@given(
    st.dictionaries(st.sampled_from([KEYS.holds, KEYS.workers, KEYS.epoch]), GARBAGE, min_size=1),
    st.none() | GARBAGE,
)
def test_garbage_in_any_key_stops_nobody(
    redis_server: RedisServer, companions: dict[str, Write], switch: Write | None
) -> None:
    """Every step gives an answer or an error of ours, and once the switch can be read the worker
    follows it again.
    """

    async def run() -> None:
        async with Redis(port=redis_server.port) as client:
            await client.flushall()
            await client.set(KEYS.switch, KEPT.dump())
            async with MaintenanceMode(backend := RedisBackend(redis_server.url, ttl=0.1)) as mode:
                await eventually(lambda: mode.gate.state == KEPT, within=30)
                for key, write in companions.items():
                    await client.delete(key)
                    await write(client, key)
                if switch is not None:
                    await client.delete(KEYS.switch)
                    await write(client, KEYS.switch)
                for step in (backend.read, backend.read_registry, backend.begin_barrier):
                    with suppress(MaintenanceError):
                        answer = await step()
                        (answer.reading if isinstance(answer, RegistrySnapshot) else answer).holds  # noqa: B018
                for hold_step in (backend.renew, backend.acquire):
                    with suppress(MaintenanceError):
                        await hold_step(Hold("b", MaintenanceState(enabled=False), since=1.0), 0.05)
                await client.delete(KEYS.switch, *KEYS.all)
                await client.set(KEYS.switch, GOOD.dump())
                await eventually(lambda: mode.gate.state == GOOD, within=30)

    asyncio.run(run())


@effort(20)
@given(SWITCHES)
def test_a_switch_that_cannot_be_read_changes_nothing(
    redis_server: RedisServer, value: bytes
) -> None:
    async def run() -> None:
        async with Redis(port=redis_server.port) as client:
            await client.flushall()
            await client.set(KEYS.switch, KEPT.dump())
            async with MaintenanceMode(backend := RedisBackend(redis_server.url, ttl=0.1)) as mode:
                await eventually(lambda: mode.gate.state == KEPT, within=30)
                await client.set(KEYS.switch, value)
                try:
                    state = MaintenanceState.parse(value)
                except MaintenanceError:
                    await eventually(
                        lambda: mode.cache.snapshot and mode.cache.snapshot.error, within=30
                    )
                    assert mode.gate.state == KEPT
                else:
                    await eventually(
                        lambda: mode.gate.state.enabled is state.active_at(mode.now()), within=30
                    )
                with suppress(MaintenanceError):
                    await backend.get_value()

    asyncio.run(run())
