"""Redis' wall clock is set, either way: no lease ends early, no deletion is undone, no proof comes
early.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from fastapi_maintenance import maintenance_mode_on, wait_until_applied
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.runtime.mode import MaintenanceMode
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

from .proxy import Proxy
from .stepping import Clock, stepping_server

pytestmark = pytest.mark.parametrize("step", [5, -5, 60, -60, 3600, -3600])

TTL: Final = 0.5
LIFETIME: Final = 3 * TTL


@pytest.fixture
async def stepped(tmp_path: Path) -> AsyncIterator[tuple[RedisServer, Clock]]:
    server, clock = stepping_server(tmp_path)
    await asyncio.to_thread(server.start)
    try:
        yield server, clock
    finally:
        await asyncio.to_thread(server.close)


async def tells(server: RedisServer, step: int) -> None:
    """Make sure that the shim is at work."""
    seconds, _ = (await server.acli("TIME")).split()
    assert abs(int(seconds) - time.time() - step) < 5


async def test_lease_that_is_renewed_survives_a_step_of_the_clock(
    stepped: tuple[RedisServer, Clock], step: int
) -> None:
    server, clock = stepped
    async with MaintenanceMode(RedisBackend(server.url, ttl=TTL)) as mode:
        async with maintenance_mode_on(server.url, lease=3.0) as block:
            await eventually(lambda: mode.gate.closure, within=30)
            clock.step(step)
            await tells(server, step)
            until = time.monotonic() + 4.0
            while time.monotonic() < until:
                assert mode.evaluate_gate().closure is not None, (
                    "the service opened under a live hold"
                )
                await asyncio.sleep(0.005)
            assert not block.lost
        await eventually(lambda: mode.gate.closure is None, within=30)


async def test_worker_that_joins_after_a_step_closes_for_a_live_hold(
    stepped: tuple[RedisServer, Clock], step: int
) -> None:
    server, clock = stepped
    async with maintenance_mode_on(server.url, lease=60.0):
        clock.step(step)
        async with MaintenanceMode(RedisBackend(server.url, ttl=TTL)) as mode:
            await eventually(lambda: mode.evaluate_gate().closure is not None, within=30)


async def test_deletion_is_not_undone_by_a_step_of_the_clock(
    stepped: tuple[RedisServer, Clock], step: int
) -> None:
    server, clock = stepped
    await server.acli("SET", "maintenance", "1")
    async with MaintenanceMode(RedisBackend(server.url, ttl=TTL)) as mode:
        await eventually(lambda: mode.gate.closure, within=30)
        await asyncio.sleep(2 * TTL)
        clock.step(step)
        await server.acli("DEL", "maintenance")
        await server.acli("CLIENT", "KILL", "TYPE", "normal")
        await eventually(lambda: mode.gate.closure is None, within=30)
        await asyncio.sleep(3 * TTL)
        assert mode.evaluate_gate().closure is None
        assert await server.acli("EXISTS", "maintenance") == "0"


async def test_proof_does_not_come_earlier_by_a_step_of_the_clock(
    stepped: tuple[RedisServer, Clock], step: int
) -> None:
    """A worker that is silent may serve until its fence closes it, and no clock of Redis' tells
    when that is. The other one has been in the registry for long, so that nothing else delays it.
    """
    server, clock = stepped
    with Proxy(server.port) as proxy:
        async with (
            MaintenanceMode(RedisBackend(server.url, ttl=TTL)),
            MaintenanceMode(
                RedisBackend(proxy.url, ttl=TTL), on_unreachable="closed", stale_after=2 * TTL
            ) as silent,
        ):
            await asyncio.sleep(2 * LIFETIME)
            proxy.stall(up=True, down=True)
            at = time.monotonic()
            await server.acli("SET", "maintenance", "1")
            clock.step(step)
            result = await wait_until_applied(RedisBackend(server.url, ttl=TTL), timeout=8.0)
            assert result.ok or step < 0, "a report on a clock that was set back is over late"
            assert not result.ok or time.monotonic() - at >= LIFETIME - 0.1
            assert not result.ok or silent.evaluate_gate().closure is not None
