"""A server that says what a test lets it say, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from redis._parsers import _AsyncRESP3Parser
from redis.asyncio.connection import Connection

Answer = Callable[[bytes], bytes | Awaitable[bytes]]


@dataclass
class Scripted:
    """What the server knows: how often it was connected to, and the connections that are still
    open.
    """

    port: int = 0
    accepted: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def say(self, words: bytes) -> None:
        """Say something without being asked, to everybody."""
        for writer in self.writers:
            writer.write(words)

    def hang_up(self) -> None:
        """Close every connection."""
        for writer in self.writers:
            writer.close()

    async def connect(self, **options: Any) -> Connection:
        """An open connection that has shaken no hands."""
        connection = Connection(
            host="127.0.0.1",
            port=self.port,
            redis_connect_func=_greet_nobody,
            # The parser of RESP2 is replaced only in the shaking of hands.
            **{"protocol": 3, "parser_class": _AsyncRESP3Parser, **options},
        )
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection


def _greet_nobody(connection: Any) -> None:
    connection._parser.on_connect(connection)


@asynccontextmanager
async def scripted(answer: bytes | Answer = b"", *, deaf: bool = False) -> AsyncIterator[Scripted]:
    """A server that answers whatever it hears, or reads nothing if it is `deaf`."""
    server = Scripted()

    serving: set[asyncio.Task[Any] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        server.accepted += 1
        server.writers.add(writer)
        try:
            if deaf:
                reader._transport.pause_reading()  # type: ignore[attr-defined]
                await asyncio.Event().wait()
            # A client that hangs up on us, with some of our words unread.
            with suppress(ConnectionResetError):
                while heard := await reader.read(65536):
                    said = answer if isinstance(answer, bytes) else answer(heard)
                    writer.write(said if isinstance(said, bytes) else await said)
        finally:
            server.writers.discard(writer)
            writer.transport.abort()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await asyncio.sleep(0)  # for a connection that was accepted just now
        tasks = [task for task in serving if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to close
