"""A network between a client and a server, on which a test can do what networks do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

__all__ = ["Proxy", "proxy"]


class Proxy:
    """Passes bytes on, both ways, on a port of 127.0.0.1.

    While `stall` is in force nothing passes, and every connection stays open. While `garble` is set, whatever a client says is
    answered with what it returns, and the server hears nothing.
    """

    def __init__(self, upstream: int) -> None:
        self.port = 0
        self.accepted = 0
        self.heard = 0  # pieces that clients said while garbled
        self.garble: Callable[[], bytes] | None = None
        self._upstream = upstream
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None] | None] = set()

    def stall(self) -> None:
        """Let nothing pass any more."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let pass again, also what has been waiting."""
        self._flowing.set()

    def inject(self, words: bytes) -> None:
        """Say something to every client, as if the server had."""
        for client in self._clients:
            client.write(words)

    def cut(self) -> None:
        """Reset every connection."""
        for client in list(self._clients):
            client.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Be the network for one connection."""
        self._tasks.add(asyncio.current_task())
        self.accepted += 1
        self._clients.add(client)
        server: asyncio.StreamWriter | None = None
        try:
            await self._flowing.wait()
            with suppress(OSError):
                replies, server = await asyncio.open_connection("127.0.0.1", self._upstream)
                back = asyncio.ensure_future(self._pass_on(replies, client))
                try:
                    await self._pass_on(reader, server, client)
                finally:
                    back.cancel()
                    await asyncio.wait([back])
        finally:
            self._clients.discard(client)
            client.transport.abort()
            if server is not None:
                server.transport.abort()

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, answer_to: asyncio.StreamWriter | None = None
    ) -> None:
        with suppress(OSError):
            while words := await source.read(65536):
                await self._flowing.wait()
                if answer_to is not None and self.garble is not None:
                    self.heard += 1
                    answer_to.write(self.garble())
                else:
                    target.write(words)
                    await target.drain()
        target.close()

    async def end(self) -> None:
        """Close everything."""
        tasks = [task for task in self._tasks if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def proxy(upstream: int) -> AsyncIterator[Proxy]:
    """A network to the server on that port."""
    network = Proxy(upstream)
    listening = await asyncio.start_server(network.serve, "127.0.0.1", 0)
    network.port = listening.sockets[0].getsockname()[1]
    try:
        yield network
    finally:
        listening.close()
        await asyncio.sleep(0)  # for a connection that was accepted just now
        await network.end()
        await asyncio.sleep(0)  # for the transports to close
