"""docs/managed-redis.md: the rights that it calls enough are, for everything that a worker does."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from fastapi_maintenance import maintenance_mode_on, set_maintenance_mode, wait_until_applied
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.coordination.barrier import registered_workers
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..conftest import RedisServerFactory
from ..support.pages import ROOT
from ..support.waiting import eventually

PAGE: Final = (ROOT / "docs" / "managed-redis.md").read_text()
SOON: Final = 20.0


async def test_the_categories_that_are_called_enough_are(
    own_redis_server: RedisServerFactory,
) -> None:
    server = await asyncio.to_thread(own_redis_server)
    (categories,) = re.findall(r"`(\+@[^`]*)`", PAGE)
    (line,) = re.findall(r"^(on ~.*) -@all ", PAGE, re.MULTILINE)
    await asyncio.to_thread(
        server.cli,
        "ACL",
        "SETUSER",
        "theirs",
        *line.split(),
        ">secret",
        "-@all",
        *categories.split(),
    )
    url = server.url_of("theirs", "secret") + "?ttl=1"

    async with MaintenanceMode(RedisBackend(url)) as mode:
        await set_maintenance_mode(True, RedisBackend(url))
        await eventually(lambda: not mode.evaluate_gate().is_open, within=SOON)
        (worker,) = await registered_workers(RedisBackend(url))
        assert worker.delivery == "tracking"
        async with maintenance_mode_on(RedisBackend(url), drain=SOON):
            (await wait_until_applied(RedisBackend(url), drained=True, timeout=SOON)).check()
        await set_maintenance_mode(False, RedisBackend(url))
        await eventually(lambda: mode.evaluate_gate().is_open, within=SOON)

    refused = await asyncio.to_thread(server.cli, "ACL", "LOG")
    assert refused == ""
