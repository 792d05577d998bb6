"""A worker of the demo within the test's own process, and the Redis it follows."""

from __future__ import annotations

import asyncio
import runpy
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from fastapi_maintenance.demo import stage
from fastapi_maintenance.demo.crew import Crew
from fastapi_maintenance.demo.real import RealRedis

from ..servers import RedisServer
from ..waiting import eventually_sync
from .standing import Standing


@pytest.fixture
def demo_app() -> FastAPI:
    """The demo's application, as new: the one that is imported would keep the first test's backend."""
    app: Any = runpy.run_path(str(Path(stage.__file__).with_name("app.py")), run_name="fastapi_maintenance.demo.app_anew")["app"]
    assert isinstance(app, FastAPI)
    return app


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[RealRedis]:
    """The tests' server, as the demo sees its own."""
    redis = RealRedis(redis_server.port)
    yield redis
    await redis.aclose()


@pytest.fixture
def worker_port(demo_app: FastAPI, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where a single worker of the demo answers; it runs in a thread of this process, on the tests' server."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", redis_url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(demo_app, ws="none", log_config=None, lifespan="on", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            eventually_sync(lambda: server.started, within=20)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture
async def crew(worker_port: int) -> AsyncIterator[Crew]:
    """That worker alone."""
    crew = Crew(1, worker_port, Standing())
    async with asyncio.timeout(20):
        await crew.gather(within=20)
    yield crew
    crew.part()
