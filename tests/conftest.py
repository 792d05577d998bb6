"""What every test may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from blockbuster import blockbuster_ctx

from fastapi_maintenance import defaults

from . import ports
from .servers import RedisServer


class RedisServerFactory(Protocol):
    """Starts servers that end with the test; takes the options of `RedisServer`."""

    def __call__(self, **options: Any) -> RedisServer: ...


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop that async tests run on: FastAPI's servers and redis-py know only asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail on a blocking call in an event loop that has our package on its stack, unless the test is marked `may_block`."""
    if request.node.get_closest_marker("may_block"):
        yield
        return
    with blockbuster_ctx("fastapi_maintenance") as guard:
        # Coverage's own lock, which it takes in our threads, is no blocking call of ours.
        guard.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
        yield


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own environment, and the default that another test configured, out of the test."""
    monkeypatch.delenv("FASTAPI_MAINTENANCE_MODE", raising=False)
    monkeypatch.delenv("FASTAPI_MAINTENANCE_BACKEND", raising=False)
    monkeypatch.setattr(defaults._Default, "configured", None)
    monkeypatch.setattr(defaults._Default, "from_variable", None)


@pytest.fixture
def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on."""
    return ports.free_port()


@pytest.fixture(scope="session")
def _shared_redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(_shared_redis_server: RedisServer) -> RedisServer:
    """A running server, shared by the tests and empty at the start of each. Not for faults and not for CONFIG SET."""
    _shared_redis_server.cli("FLUSHALL")
    _shared_redis_server.cli("SCRIPT", "FLUSH")
    return _shared_redis_server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of `redis_server`."""
    return redis_server.url


@pytest.fixture
def own_redis_server() -> Iterator[RedisServerFactory]:
    """Makes started servers that are this test's alone: to be killed, frozen, reconfigured."""
    with ExitStack() as servers:

        def make(**options: Any) -> RedisServer:
            return servers.enter_context(RedisServer(**options))

        yield make
