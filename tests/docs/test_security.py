"""docs/security.md: what somebody can do who writes to Redis, done. Most of its rows name tests
that stand elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fastapi_maintenance import maintenance_mode_on, wait_until_applied
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..support.pages import ROOT
from ..support.registering import register
from ..support.servers import RedisServer
from ..support.waiting import eventually

TTL = 1.0
SOON = 20.0


@pytest.fixture
async def mode(redis_server: RedisServer) -> AsyncIterator[MaintenanceMode]:
    async with MaintenanceMode(RedisBackend(redis_server.url, ttl=TTL)) as mode:
        yield mode


async def cli(server: RedisServer, *command: str) -> str:
    return await asyncio.to_thread(server.cli, *command)


async def test_a_hold_that_is_taken_away_is_put_back_by_its_holder(
    redis_server: RedisServer, mode: MaintenanceMode
) -> None:
    async with maintenance_mode_on(RedisBackend(redis_server.url, ttl=TTL), lease=10.0) as hold:
        await eventually(lambda: not mode.evaluate_gate().is_open, within=SOON)
        await eventually(lambda: is_opened_by_force(redis_server, mode), within=SOON)
        await eventually(lambda: not mode.evaluate_gate().is_open, within=SOON)
        hold.check()


async def is_opened_by_force(server: RedisServer, mode: MaintenanceMode) -> bool:
    """Take all holds away, and say whether that is seen; it is not if they were put back before
    anybody could.
    """
    await cli(server, "DEL", "{maintenance}:holds")
    await asyncio.sleep(0.05)
    return mode.evaluate_gate().is_open


async def test_a_forged_off_hold_opens_the_service_under_anothers_hold(
    redis_server: RedisServer, mode: MaintenanceMode
) -> None:
    async with maintenance_mode_on(RedisBackend(redis_server.url, ttl=TTL)) as hold:
        await eventually(lambda: not mode.evaluate_gate().is_open, within=SOON)
        (id, *_) = (await cli(redis_server, "HKEYS", "{maintenance}:holds")).split()
        seconds, _ = (await cli(redis_server, "TIME")).split()
        forged = json.dumps({"state": {"enabled": False}, "lifts": [id]})
        await cli(
            redis_server,
            "HSET",
            "{maintenance}:holds",
            "forged",
            f"{int(seconds) + 60}000000 {seconds}000000 {forged}",
        )
        await eventually(lambda: mode.evaluate_gate().is_open, within=SOON)
        hold.check()


async def test_a_barrier_waits_for_a_worker_that_somebody_made_up(
    redis_server: RedisServer, mode: MaintenanceMode
) -> None:
    await asyncio.to_thread(register, redis_server, "made-up", host="nowhere", pid=1, epoch=0)

    result = await wait_until_applied(RedisBackend(redis_server.url, ttl=TTL), timeout=4.0)

    assert [worker.name for worker in result.waiting] == ["1@nowhere"]
    assert not result.ok


async def test_a_barrier_believes_a_registration_that_somebody_wrote(
    redis_server: RedisServer,
) -> None:
    known: dict[str, Any] = {
        "host": "nowhere",
        "pid": 1,
        "epoch": 10**17,
        "closed": True,
        "drained": True,
    }
    await asyncio.to_thread(register, redis_server, "made-up", **known)
    await cli(redis_server, "SET", "maintenance", "1")

    assert (
        await wait_until_applied(
            RedisBackend(redis_server.url, ttl=TTL), drained=True, timeout=10.0
        )
    ).ok


async def test_a_message_on_the_channel_changes_nothing(
    redis_server: RedisServer, mode: MaintenanceMode
) -> None:
    await eventually(lambda: mode.evaluate_gate().is_open, within=SOON)
    for message in ("1", "on", '{"enabled": true}', "9" * 40, "\r\n$-1\r\n", "x" * 100_000):
        await cli(redis_server, "PUBLISH", "{maintenance}:events", message)
    await asyncio.sleep(1.5 * TTL)

    assert mode.evaluate_gate().is_open
    await cli(redis_server, "SET", "maintenance", "1")
    await eventually(lambda: not mode.evaluate_gate().is_open, within=SOON)


def test_every_row_names_a_test_or_stands_for_itself() -> None:
    rows = [
        line
        for line in (ROOT / "docs" / "security.md").read_text().splitlines()
        if line.startswith("|") and ".py::" not in line
    ]

    assert [row for row in rows if not re.search(r"\| tested by \||---", row)] == []
