"""A TCP proxy between a worker and its Redis, with a fault for every way in which a
network fails.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Self

# Closing then sends RST and not FIN (socket(7), SO_LINGER).
_LINGER_NOT: Final = struct.pack("ii", 1, 0)
# Seconds for what was sent to arrive before the reset that may overtake it.
_DELIVERY: Final = 0.005


@dataclass
class _Way:
    """One direction, of all connections."""

    flows: asyncio.Event = field(default_factory=asyncio.Event)
    delay: Callable[[], float] | None = None
    edit: Callable[[bytes], bytes] | None = None
    cut: tuple[re.Pattern[bytes], int] | None = None


class Proxy:
    """Passes on what comes to a port of 127.0.0.1, until it is told otherwise.

    It works in a thread with an event loop of its own. In the test's loop its work would count as
    ours where that loop is watched for being late, and a worker that blocks the loop would stop the
    network too, and so never be caught waiting for it.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.port = 0
        self.accepted = 0
        self._target = host, port
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="the proxy", daemon=True
        )
        self._stop = asyncio.Event()
        self._refuses = False
        self._up, self._down = _Way(), _Way()
        # To the client, and to the server.
        self._writers: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._loop: asyncio.AbstractEventLoop

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.result(60)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._thread.is_alive():
            self._do(self._stop.set)
            self._thread.join(60)

    @property
    def url(self) -> str:
        """For a worker that is to go through it."""
        return f"redis://127.0.0.1:{self.port}/0"

    # -- faults ------------------------------------------------------------------------------------

    def stall(self, *, up: bool = False, down: bool = False) -> None:
        """From now on pass nothing to the server, or nothing from it, and say nothing of it; new
        connections are accepted.
        """
        self._do(*[way.flows.clear for way in self._ways(up, down)])

    def flow(self) -> None:
        """Pass on everything again, and first what had to wait."""
        self._refuses = False
        self._do(*[way.flows.set for way in self._ways(True, True)])

    def refuse(self) -> None:
        """End every connection by RST, and each new one at once, until it flows again."""
        self._refuses = True
        self.reset()

    def delay(self, seconds: Callable[[], float] | None) -> None:
        """Hold back each piece that the server sends for as long as this says; in order all the
        same.
        """
        self._do(lambda: setattr(self._down, "delay", seconds))

    def edit(self, change: Callable[[bytes], bytes] | None, *, up: bool = False) -> None:
        """Change what the server sends, or what it is sent, piece by piece."""
        self._do(lambda: setattr(self._up if up else self._down, "edit", change))

    def cut(self, frame: bytes, after: int) -> None:
        """The next time the server sends this pattern, pass on only so many bytes of it and reset
        the connection.
        """
        self._do(lambda: setattr(self._down, "cut", (re.compile(frame, re.DOTALL), after)))

    def reset(self) -> None:
        """End every connection by RST, in both directions."""
        self._do(
            *[partial(_reset, writer) for pair in list(self._writers.items()) for writer in pair]
        )

    def half_close(self) -> None:
        """Tell every client that no more will come, and keep listening to it."""
        self._do(*[writer.write_eof for writer in list(self._writers)])

    # -- in the thread -----------------------------------------------------------------------------

    def _do(self, *what: Callable[[], object]) -> None:
        """Do it in the thread, and come back when it is done."""
        done: Future[None] = Future()

        def run() -> None:
            for each in what:
                each()
            done.set_result(None)

        self._loop.call_soon_threadsafe(run)
        done.result(60)

    def _ways(self, up: bool, down: bool) -> list[_Way]:
        return [way for way, chosen in ((self._up, up), (self._down, down)) if chosen]

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        async def serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            # By us, when it is over; asyncio's streams would log it.
            with suppress(asyncio.CancelledError):
                await self._pass_on(client, to_client)
            tasks.discard(task)

        for way in self._ways(True, True):
            way.flows.set()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set_result(None)
        await self._stop.wait()
        server.close()
        while asyncio.all_tasks() - {asyncio.current_task()}:  # also those that are yet to begin
            for task in list(tasks):
                task.cancel()
            await asyncio.sleep(0.001)

    async def _pass_on(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """One connection."""
        self.accepted += 1
        if self._refuses:
            _reset(to_client)
            return
        with ExitStack() as stack:
            stack.callback(to_client.transport.abort)
            try:
                server, to_server = await asyncio.open_connection(*self._target)
            except OSError:
                return
            stack.callback(to_server.transport.abort)
            self._writers[to_client] = to_server
            stack.callback(self._writers.pop, to_client)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_pump(client, to_server, self._up))
                ways.create_task(_pump(server, to_client, self._down))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: _Way) -> None:
    """Pass on one direction of one connection until it ends."""
    try:
        while data := await source.read(65536):
            if way.delay is not None:
                await asyncio.sleep(way.delay())
            await way.flows.wait()
            if way.edit is not None:
                data = way.edit(data)
            if way.cut is not None and (found := way.cut[0].search(data)):
                sink.write(data[: found.start() + way.cut[1]])
                way.cut = None
                await asyncio.sleep(_DELIVERY)
                _reset(sink)
                return
            sink.write(data)
            await sink.drain()
        sink.write_eof()
    except OSError:  # also of a peer that has gone before it was told that it may
        sink.transport.abort()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
