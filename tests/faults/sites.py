"""Deployments of Redis, whatever their topology, for the scenarios that must end well on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol

from tests.servers import RedisServer

__all__ = ["SITES", "Site"]


class Site(Protocol):
    """A deployment that is up. Faults hit the server that owns the switch; what it has confirmed survives its end."""

    @property
    def url(self) -> str:
        """For a `RedisBackend`."""

    async def write(self, *command: str | int) -> str:
        """Somebody's bare command, to the server that owns the switch, as redis-cli prints its answer."""

    async def pause(self) -> None:
        """Freeze that server."""

    async def resume(self) -> None:
        """Let it go on."""

    async def kill(self) -> None:
        """End that server as a crash does."""

    async def start(self) -> None:
        """Start it again, and come back when it answers."""


class SingleSite:
    """One server."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.url = server.url
        self.write = server.acli

    async def pause(self) -> None:
        self._server.pause()

    async def resume(self) -> None:
        self._server.resume()

    async def kill(self) -> None:
        await asyncio.to_thread(self._server.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.start)


def _single(**options: Any) -> Callable[[], AbstractAsyncContextManager[Site]]:
    @asynccontextmanager
    async def single() -> AsyncIterator[Site]:
        server = RedisServer(config={"appendonly": "yes", "appendfsync": "always"}, **options)
        try:
            await asyncio.to_thread(server.start)
            yield SingleSite(server)
        finally:
            await asyncio.to_thread(server.close)

    return single


SITES: Final[Mapping[str, Callable[[], AbstractAsyncContextManager[Site]]]] = {
    "tcp": _single(),
    "unix": _single(unix_socket=True),
    "tls": _single(tls=True),
}
