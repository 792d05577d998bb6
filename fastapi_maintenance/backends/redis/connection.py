"""One Redis connection with many commands in flight and pushes in between."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Self

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, MovedError, ResponseError

from ...exceptions import BackendUnavailableError

Command = tuple[Any, ...]
Reply = Any

_PUSH: Final = object()
_SUBSCRIBED: Final = object()
_MESSAGES: Final = (b"message", b"unsubscribe", b"sunsubscribe", b"invalidate")


class NotSlotOwnerError(BackendUnavailableError):
    """This server does not own the switch, or not all of its keys.

    Another connection, made soon, will do.
    """


class HungUpError(ConnectionError):
    """The server was reached, and ended the connection instead of a reply."""


class RedisConnection:
    """Sends commands and hands out their replies in order.

    Tells `on_event` of every push and of the end.

    Not built on redis-py's PubSub, which reconnects without a word and so loses tracking, and read
    without redis-py's `timeout=`, which takes a dead socket's ETIMEDOUT for "no message yet", for
    ever and without a pause. The connection must have no socket_timeout either: reading waits as
    long as it takes, and deadlines are `call`'s.
    """

    def __init__(self, connection: AbstractConnection, on_event: Callable[[], None]) -> None:
        self._connection = connection
        self._on_event = on_event
        self._pending: deque[asyncio.Future[Reply]] = deque()
        self._error: Exception | None = None
        self._reader: asyncio.Task[None] | None = None
        self.last_received_at = time.monotonic()

    @property
    def peer(self) -> tuple[str, int] | None:
        """The host and port at the other end; None for a Unix socket."""
        host, port = (
            getattr(self._connection, "host", None),
            getattr(self._connection, "port", None),
        )
        return None if host is None or port is None else (host, port)

    async def __aenter__(self) -> Self:
        connection = self._connection
        parser: Any = connection._parser
        if hasattr(parser, "set_invalidation_push_handler"):  # RESP2 has no pushes
            parser.set_invalidation_push_handler(_on_push)
            parser.set_pubsub_push_handler(_on_pubsub)
        self._reader = asyncio.create_task(self._read(), name="fastapi_maintenance wire")
        self._reader.add_done_callback(self._on_reader_done)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._reader is not None
        abort(self._connection)
        self._reader.cancel()
        # Cancelled here again, its reader still closes the connection as it ends.
        await asyncio.wait([self._reader])
        await self._connection.disconnect(nowait=True)

    async def call(self, *commands: Command, within: float) -> list[Reply]:
        """Send commands in one go and wait for all replies; an error reply is returned, not raised.

        Raises `BackendUnavailableError` if the connection ends, or if the replies take longer than
        `within` seconds, and `NotSlotOwnerError` if a node of a cluster says that another one has
        these keys.
        """
        self.check()
        # Before anything is awaited from the server: it may raise.
        packed = self._connection.pack_commands(commands)
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Reply]] = [loop.create_future() for _ in commands]
        self._pending.extend(futures)
        started = time.monotonic()
        try:
            async with asyncio.timeout(within):  # a peer that reads nothing blocks even sending
                await self._connection.send_packed_command(packed, check_health=False)
        # since Python 3.12, transports raise AttributeError where the peer has just gone
        except Exception as error:
            self._end(error)
        else:
            await self._wait(futures, started, within)
        replies = [future.result() for future in futures]
        if any(reply is self._error is not None for reply in replies):
            self.check()
        for reply in replies:
            if isinstance(reply, MovedError):
                raise NotSlotOwnerError("the switch is on another node of the cluster") from reply
        return replies

    def check(self) -> None:
        """Raise `BackendUnavailableError` if the connection has ended."""
        if self._error is None and not self._connection.is_connected:
            # As after a cancelled call. Given a command now, redis-py would open another connection
            # without a word.
            self._end(ConnectionError("the connection is closed"))
        if self._error is not None:
            lost = BackendUnavailableError(str(self._error) or type(self._error).__name__)
            raise lost from self._error

    async def _wait(
        self, futures: list[asyncio.Future[Reply]], started: float, within: float
    ) -> None:
        _, late = await asyncio.wait(futures, timeout=within)
        if late and time.monotonic() - started > 1.5 * within:
            # It is the event loop that was away; the replies may well be waiting in the socket.
            _, late = await asyncio.wait(late, timeout=within)
        if late:
            self._end(TimeoutError(f"no reply within {within:g} s"))

    async def _read(self) -> None:
        try:
            while True:
                self._take(await self._read_one())
        except Exception as error:  # on bytes that are not RESP, redis-py's parsers raise anything
            self._end(error)

    def _on_reader_done(self, reader: object) -> None:
        # An event loop that stops cancels all tasks at once, while others still wait for a reply.
        if self._pending:
            self._end(ConnectionError("the connection is not read any more"))

    async def _read_one(self) -> Reply:
        try:
            return await self._connection.read_response(push_request=True)
        except ResponseError as error:
            return error

    def _take(self, reply: Reply) -> None:
        self.last_received_at = time.monotonic()
        if reply is _PUSH or _is_message(reply):
            self._on_event()
        elif self._pending:
            self._pending.popleft().set_result(reply)
        else:
            self._end(ConnectionError("an unexpected reply"))

    def _end(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        while self._pending:
            self._pending.popleft().set_result(self._error)
        self._on_event()


async def request(connection: AbstractConnection, *commands: Command) -> list[Reply]:
    """Return the replies, errors among them, on a connection without another reader.

    The caller sets the deadline.
    """
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    replies: list[Reply] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies


def abort(connection: AbstractConnection) -> None:
    """Close the socket at once, before redis-py begins to close the connection."""
    writer = getattr(connection, "_writer", None)
    # What imitates Redis within the process has something else.
    if isinstance(writer, asyncio.StreamWriter):
        # TLS takes leave, and waits up to 30 s for the peer to do the same. A lease's event loop
        # does not live that long, and its socket would be left open.
        writer.transport.abort()


async def discard(connection: AbstractConnection) -> None:
    """Close a connection at once."""
    abort(connection)
    await connection.disconnect(nowait=True)


async def _on_push(message: Any) -> object:
    return _PUSH


async def _on_pubsub(message: list[Any]) -> object:
    # RESP3 confirms SUBSCRIBE by a push, so that one is a reply; if it is refused, the reply is an
    # ordinary error.
    return _SUBSCRIBED if message[0] in (b"subscribe", b"ssubscribe") else _PUSH


def _is_message(reply: Reply) -> bool:
    """Return whether it is a message on a RESP2 connection, where it looks like any array."""
    return isinstance(reply, list) and bool(reply) and reply[0] in _MESSAGES
