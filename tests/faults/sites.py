"""Deployments of Redis, whatever their topology, for the scenarios that must end well on each of
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final, Protocol

from tests.support.servers import RedisServer
from tests.support.topologies import cluster, sentinel_group
from tests.support.waiting import eventually_sync

from .bounds import BOOT


class Site(Protocol):
    """A deployment that is up. Faults hit the server that owns the switch; what it has confirmed
    survives its end.
    """

    @property
    def url(self) -> str:
        """For a `RedisBackend`."""

    async def write(self, *command: str | int) -> str:
        """Somebody's bare command, to the server that owns the switch, as redis-cli prints its
        answer.
        """

    async def pause(self) -> None:
        """Freeze that server."""

    async def resume(self) -> None:
        """Let it go on."""

    async def kill(self) -> None:
        """End that server as a crash does."""

    async def start(self) -> None:
        """Start it again, and come back when it answers."""


_PERSISTENT: Final = {"appendonly": "yes", "appendfsync": "always"}


class OwnedSite:
    """One whose switch stays with one server. That server is back when `whole` says so, asked after
    it answers.
    """

    def __init__(
        self, owner: RedisServer, url: str, whole: Callable[[], object] = lambda: True
    ) -> None:
        self._owner = owner
        self._whole = whole
        self.url = url
        self.write = owner.acli

    async def pause(self) -> None:
        self._owner.pause()

    async def resume(self) -> None:
        self._owner.resume()

    async def kill(self) -> None:
        await asyncio.to_thread(self._owner.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self._owner.start)
        await asyncio.to_thread(eventually_sync, self._whole, within=BOOT, every=0.02)


@contextmanager
def _single(**options: Any) -> Iterator[Site]:
    with RedisServer(config=_PERSISTENT, **options) as server:
        yield OwnedSite(server, server.url)


@contextmanager
def _behind_sentinels() -> Iterator[Site]:
    """They would fail over after a minute: a master that comes back before is the master still."""
    with sentinel_group(config=_PERSISTENT) as group:
        yield OwnedSite(group.master(), group.url)


@contextmanager
def _cluster() -> Iterator[Site]:
    """A node that comes back refuses everything for the first two seconds, and nobody takes its
    place within a minute.
    """
    with cluster(config=_PERSISTENT) as nodes:
        yield OwnedSite(
            nodes.owner, nodes.url, lambda: "cluster_state:ok" in nodes.owner.cli("CLUSTER", "INFO")
        )


SITES: Final[Mapping[str, Callable[[], AbstractContextManager[Site]]]] = {
    "tcp": _single,
    "unix": partial(_single, unix_socket=True),
    "tls": partial(_single, tls=True),
    "sentinel": _behind_sentinels,
    "cluster": _cluster,
}


@asynccontextmanager
async def running(name: str) -> AsyncIterator[Site]:
    """One of them, while the event loop goes on."""
    with ExitStack() as stack:
        site = await asyncio.to_thread(stack.enter_context, SITES[name]())
        try:
            yield site
        finally:
            await asyncio.to_thread(stack.close)
