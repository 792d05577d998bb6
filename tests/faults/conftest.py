"""What the fault suite shares. Every test in it is watched: the event loop must not be late, and
nothing may be left behind.
"""

from __future__ import annotations

import inspect
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.support.servers import RedisServer

from .leaks import nothing_left
from .proxy import Proxy
from .sites import SITES, Site, running
from .watchdog import Watchdog


@pytest.fixture(autouse=True)
def _watched(request: pytest.FixtureRequest) -> None:
    if inspect.iscoroutinefunction(request.function):  # else there is no event loop to watch
        request.getfixturevalue("_nothing_left")
        request.getfixturevalue("watchdog")


@pytest.fixture
async def _nothing_left() -> AsyncIterator[None]:
    """Set up before all other fixtures, and so torn down after them."""
    async with nothing_left():
        yield


@pytest.fixture
def watchdog() -> Watchdog:
    """Watches the test. One that keeps the loop busy itself, as no worker would, may set `bound`
    and say why.
    """
    return Watchdog()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Watch the loop while it runs the test, and not while pytest sets up and reports: then it
    stands still.
    """
    watchdog = pyfuncitem.funcargs.get("watchdog")
    if isinstance(watchdog, Watchdog):
        pyfuncitem.obj = _watched_by(watchdog, pyfuncitem.obj)
    return (yield)


def _watched_by(
    watchdog: Watchdog, test: Callable[..., Coroutine[Any, Any, None]]
) -> Callable[..., Coroutine[Any, Any, None]]:
    async def watched(**arguments: Any) -> None:
        with watchdog:
            await test(**arguments)

    return watched


@pytest.fixture(autouse=True)
def _start_processes_without_stopping_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With vfork(2) we stand still, and hold the interpreter's lock, until the new process has been
    given a processor and has begun.
    """
    monkeypatch.setattr(subprocess, "_USE_VFORK", False)


@pytest.fixture(params=SITES)
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """Each kind of deployment in turn."""
    async with running(request.param) as site:
        yield site


@pytest.fixture
async def operator(redis_url: str) -> AsyncIterator[Any]:
    """Somebody else's client to the shared server, whose way there has no faults."""
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """The way to the shared server that can have faults."""
    with Proxy(redis_server.port) as proxy:
        yield proxy
