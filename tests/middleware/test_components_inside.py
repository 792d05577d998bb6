"""Components within one process: whom their barrier waits for, what is put back, and what is read
where scripts are forbidden.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware, maintenance_component, wait_until_applied
from fastapi_maintenance.backends import LocalFileBackend, RedisBackend
from fastapi_maintenance.exceptions import UnsupportedError
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON
from fastapi_maintenance.model.workers import Worker

from ..support.servers import RedisServer
from ..support.waiting import eventually

SOON: Final = 30.0  # seconds; milliseconds are the rule


class Shop:
    """An application with two components, asked in this process; a request to `/slow`, which is in
    neither, goes on until `done`.
    """

    def __init__(self, url: str) -> None:
        self.done = asyncio.Event()
        self.backend = RedisBackend(url, ttl=1.0)
        app = FastAPI()
        app.add_middleware(MaintenanceModeMiddleware, backend=RedisBackend(url, ttl=1.0))
        self.app = app
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://shop"
        )

        @app.get("/slow")
        async def slow() -> None:
            await self.done.wait()

        @app.get("/billing")
        @maintenance_component("billing")
        async def billing() -> None: ...

        @app.get("/search")
        @maintenance_component("search")
        async def search() -> None: ...

    async def answers(self, **expected: int) -> bool:
        """Whether these paths are answered so."""
        return {
            path: (await self.client.get(f"/{path}")).status_code for path in expected
        } == expected


@asynccontextmanager
async def open_shop(url: str) -> AsyncIterator[Shop]:
    shop = Shop(url)
    async with shop.client:
        assert await shop.answers(billing=200, search=200)
        try:
            yield shop
        finally:
            layer: Any = shop.app.middleware_stack
            while not isinstance(layer, MaintenanceModeMiddleware):
                layer = layer.app
            await layer.mode.stop()


async def test_barrier_of_a_component_waits_for_it_alone(redis_url: str) -> None:
    async with open_shop(redis_url) as shop:
        outside = asyncio.create_task(shop.client.get("/slow"))
        await asyncio.sleep(0.05)
        await shop.backend.write_component("billing", ON)

        result = await wait_until_applied(
            shop.backend, component="billing", drained=True, timeout=20
        )

        result.check()
        assert len(result.drained) == 1
        assert not outside.done()
        shop.done.set()
        assert (await outside).status_code == 200


async def test_component_marked_after_the_scan_is_followed(redis_url: str) -> None:
    """A mark put on an endpoint later is noticed by the first request that is judged."""
    async with open_shop(redis_url) as shop:

        @shop.app.get("/late")
        async def late() -> None: ...

        assert await shop.answers(late=200)
        maintenance_component("late")(late)
        await shop.backend.write_component("billing", ON)
        await eventually(lambda: shop.answers(billing=503, late=200), within=SOON)
        await shop.backend.write_component("late", ON)
        await eventually(lambda: shop.answers(billing=503, late=503), within=SOON)
        await shop.backend.write_component("billing", OFF)
        await eventually(lambda: shop.answers(billing=200, late=503), within=SOON)


async def test_component_switch_lost_by_redis_is_restored(
    redis_url: str, redis_server: RedisServer
) -> None:
    async with open_shop(redis_url) as shop:
        await shop.backend.write_component("billing", ON)
        await redis_server.acli("SET", "maintenance:search", 0)
        await eventually(lambda: shop.answers(billing=503, search=200), within=SOON)
        await redis_server.acli("FLUSHALL")
        await eventually(
            lambda: redis_server.cli("EXISTS", "maintenance:billing") == "1", within=SOON
        )
        await redis_server.acli("SET", "maintenance:search", 1)
        await eventually(lambda: shop.answers(billing=503, search=503), within=SOON)
        await shop.backend.write_component("billing", OFF)
        await eventually(lambda: shop.answers(billing=200, search=503), within=SOON)


async def test_components_are_read_without_scripts(
    redis_url: str, redis_server: RedisServer
) -> None:
    await redis_server.acli(
        "ACL", "SETUSER", "plain", "on", ">any", "~*", "&*", "+@all", "-eval", "-evalsha"
    )
    async with open_shop(redis_url.replace("://", "://plain:any@")) as shop:
        await redis_server.acli("SET", "maintenance:billing", 1)
        await eventually(lambda: shop.answers(billing=503, search=200), within=SOON)
        await redis_server.acli("DEL", "maintenance:billing")
        await redis_server.acli("LPUSH", "maintenance:billing", "no switch")
        await redis_server.acli("SET", "maintenance:search", 1)
        await eventually(lambda: shop.answers(search=503), within=SOON)
        await redis_server.acli("DEL", "maintenance:billing", "maintenance:search")
        await eventually(lambda: shop.answers(billing=200, search=200), within=SOON)


def test_worker_without_the_component_counts_as_closed() -> None:
    worker = Worker("a", http=3).in_component("billing")

    assert (worker.closed, worker.drained, worker.http) == (True, True, 0)


async def test_file_backend_cannot_keep_a_component_on(tmp_path: Path) -> None:
    backend = LocalFileBackend(tmp_path / "maintenance.json")
    hold = await backend.acquire(Hold("a", ON, component="billing"), 30.0)

    with pytest.raises(UnsupportedError, match="keeps no switches of components"):
        await backend.release(hold, keep=ON)
    assert (await backend.read()).holds == ()
