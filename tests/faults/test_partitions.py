"""A holder that is cut off while everybody else still reaches Redis."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import pytest

from fastapi_maintenance import maintenance_mode_on
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.exceptions import LeaseLostError
from tests.support.servers import RedisServer

from .bounds import BY_PUSH, LEASE, NO_POLL, SLACK
from .proxy import Proxy
from .service import Service

# A tenth of it is left when the holder is told, for which the machine must not stand still longer.
LONG: Final = 2 * LEASE


@pytest.mark.parametrize("fault", ["stalled", "reset"])
async def test_holder_cut_off_is_cancelled_before_its_hold_ends(
    redis_server: RedisServer, proxy: Proxy, fault: str
) -> None:
    async with Service(RedisBackend(redis_server.url, ttl=NO_POLL)) as service:
        with pytest.raises(LeaseLostError):
            await hold_while_cut_off(service, proxy, fault)
        await service.becomes(200, within=LONG + SLACK)


async def hold_while_cut_off(service: Service, proxy: Proxy, fault: str) -> None:
    async with maintenance_mode_on(RedisBackend(proxy.url), lease=LONG, on_lost="cancel"):
        await service.becomes(503, within=BY_PUSH)
        if fault == "reset":
            proxy.edit(lambda data: b"", up=True)
            proxy.reset()
        else:
            proxy.stall(up=True, down=True)
        cut_off = time.monotonic()
        try:
            await asyncio.sleep(LONG + 2 * SLACK)
        finally:
            assert service.ask() == 503, "the block was told too late"
            assert time.monotonic() - cut_off < LONG + SLACK
