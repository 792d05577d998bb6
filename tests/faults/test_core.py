"""What must end well on every kind of deployment: the core of the fault suite."""

from __future__ import annotations

import asyncio
import time

from fastapi_maintenance import maintenance_mode_on
from fastapi_maintenance.backends import RedisBackend
from tests.support.waiting import eventually

from .bounds import BACK, BY_PUSH, BY_RECONNECT, LEASE, NO_POLL, TTL, UNREACHABLE
from .service import Service
from .sites import Site


async def test_a_bare_change_arrives_at_once(site: Site) -> None:
    async with Service(RedisBackend(site.url, ttl=NO_POLL)) as service:
        for command, status in (
            (("SET", "maintenance", 1), 503),
            (("DEL", "maintenance"), 200),
            (("SET", "maintenance", "on", "EX", 600), 503),
            (("GETDEL", "maintenance"), 200),
        ):
            await site.write(*command)
            await service.becomes(status, within=BY_PUSH)


async def test_two_changes_arrive_after_a_client_kill(site: Site) -> None:
    """By two: the first could be found by the read that follows every connecting, the second only
    if tracking is armed again.
    """
    async with Service(RedisBackend(site.url, ttl=NO_POLL)) as service:
        for kind in ("normal", "pubsub"):
            await site.write("CLIENT", "KILL", "TYPE", kind)
            await site.write("SET", "maintenance", 1)
            await service.becomes(503, within=BY_RECONNECT)
            await site.write("DEL", "maintenance")
            await service.becomes(200, within=BY_PUSH)


async def test_killed_server_comes_back_to_unchanged_workers(
    site: Site,
) -> None:
    async with Service(RedisBackend(site.url, ttl=TTL)) as service:
        await site.write("SET", "maintenance", 1)
        await service.becomes(503, within=BY_PUSH)
        closed = time.monotonic()
        await site.kill()
        await eventually(lambda: service.mode.gate.source == "last-known", within=UNREACHABLE)
        await site.start()
        await service.is_back(since=time.monotonic(), within=BACK)
        assert service.answered(since=closed) == {503}
        await site.write("DEL", "maintenance")
        await service.becomes(200, within=BY_PUSH)


async def test_what_is_written_while_nobody_is_back_yet_is_followed(site: Site) -> None:
    async with Service(RedisBackend(site.url, ttl=TTL)) as service:
        await site.kill()
        await asyncio.sleep(2 * TTL)
        await site.start()
        await site.write("SET", "maintenance", 1)
        await service.becomes(503, within=BACK)


async def test_a_server_that_comes_up_after_the_application(site: Site) -> None:
    await site.write("SET", "maintenance", 1)
    await site.kill()
    began = time.monotonic()
    async with Service(RedisBackend(site.url, ttl=TTL)) as service:
        assert time.monotonic() - began < UNREACHABLE
        assert service.ask() == 200
        await site.start()
        await service.becomes(503, within=BACK)


async def test_frozen_server_is_noticed_and_delays_no_request(
    site: Site,
) -> None:
    """That no request waits, not even once, is what `Service` makes sure of."""
    async with Service(RedisBackend(site.url, ttl=TTL), on_unreachable="open") as service:
        await site.write("SET", "maintenance", 1)
        await service.becomes(503, within=BY_PUSH)
        await site.pause()
        try:
            await service.becomes(200, within=UNREACHABLE)
        finally:
            await site.resume()
        await service.becomes(503, within=BACK)
        await site.write("DEL", "maintenance")
        await service.becomes(200, within=BY_PUSH)
        await eventually(lambda: service.mode.gate.source == "redis", within=BACK)


async def test_data_that_is_lost_is_put_back_and_opens_nobody(site: Site) -> None:
    async with Service(RedisBackend(site.url, ttl=TTL)) as service:
        await site.write("SET", "maintenance", '{"enabled": true, "message": "back soon"}')
        await service.becomes(503, within=BY_PUSH)
        closed = time.monotonic()
        await site.write("FLUSHALL")
        await eventually(lambda: _is(site, "back soon"), within=BACK)
        assert service.answered(since=closed) == {503}
        await site.write("DEL", "maintenance")
        await service.becomes(200, within=BY_PUSH)


async def _is(site: Site, message: str) -> bool:
    return message in await site.write("GET", "maintenance")


async def test_a_hold_outlives_a_crash_of_its_server(site: Site) -> None:
    async with Service(RedisBackend(site.url, ttl=TTL)) as service:
        async with maintenance_mode_on(RedisBackend(site.url), lease=6 * LEASE) as block:
            await service.becomes(503, within=BY_PUSH)
            closed = time.monotonic()
            await site.kill()
            await asyncio.sleep(TTL)
            await site.start()
            await service.is_back(since=time.monotonic(), within=BACK)
            assert service.answered(since=closed) == {503}
            assert not block.lost
        await service.becomes(200, within=BY_PUSH)
