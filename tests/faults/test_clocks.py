"""A worker whose clock is wrong: nothing here goes by it, only by Redis' clock and by monotonic
time.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Final

import pytest

from fastapi_maintenance import maintenance_mode_on
from fastapi_maintenance.backends import RedisBackend
from tests.support.servers import RedisServer

from .bounds import BY_PUSH, LEASE, NO_POLL, SLACK, TTL
from .service import Service

OFF_BY: Final = [3600, -3600]  # seconds


@pytest.fixture(params=OFF_BY)
def wrong_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """This whole process's, and so the worker's."""
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + request.param)


def at(seconds: float) -> str:
    """A moment on Redis' clock, which is that of this machine, so many seconds from now."""
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() + seconds, UTC).isoformat()


@pytest.mark.usefixtures("wrong_clock")
async def test_a_time_to_live_ends_when_redis_says(redis_server: RedisServer) -> None:
    async with Service(RedisBackend(redis_server.url, ttl=NO_POLL)) as service:
        began = time.monotonic()
        await redis_server.acli("SET", "maintenance", 1, "PX", 4000)
        await service.becomes(503, within=BY_PUSH)
        await service.becomes(200, within=4 + SLACK)
        assert time.monotonic() - began > 3.9


@pytest.mark.usefixtures("wrong_clock")
async def test_a_window_begins_and_ends_when_redis_says(redis_server: RedisServer) -> None:
    async with Service(RedisBackend(redis_server.url, ttl=NO_POLL)) as service:
        began = time.monotonic()
        window = f'{{"enabled": true, "starts_at": "{at(1)}", "ends_at": "{at(5)}"}}'
        await redis_server.acli("SET", "maintenance", window)
        await service.becomes(503, within=1 + SLACK)
        assert time.monotonic() - began > 0.9
        await service.becomes(200, within=4 + SLACK)
        assert time.monotonic() - began > 4.9


@pytest.mark.usefixtures("wrong_clock")
async def test_a_hold_is_kept_for_as_long_as_its_block_and_no_longer(
    redis_server: RedisServer,
) -> None:
    async with Service(RedisBackend(redis_server.url, ttl=TTL)) as service:
        async with maintenance_mode_on(redis_server.url, lease=LEASE) as block:
            await service.becomes(503, within=BY_PUSH)
            closed = time.monotonic()
            await asyncio.sleep(1.1 * LEASE)
            assert service.answered(since=closed) == {503}
            assert not block.lost
        await service.becomes(200, within=BY_PUSH)
