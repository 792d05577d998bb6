"""One Redis connection with many commands in flight and pushes in between."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, Self, cast

from redis._parsers import _RESP2Parser, _RESP3Parser
from redis._parsers.socket import SocketBuffer
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, MovedError, ResponseError

from ...exceptions import BackendUnavailableError

Command = tuple[Any, ...]
Reply = Any
Ask = Callable[[Command, float], Awaitable[Reply]]
"""Sends one command, which may block for so many seconds, on a connection of its own."""

_PUSH: Final = object()
_MESSAGES: Final = (b"message", b"unsubscribe", b"sunsubscribe", b"invalidate")
_SUBSCRIBED: Final = (b"subscribe", b"ssubscribe")
_MAX_READ: Final = 65_536  # bytes
_CLOSE_TIMEOUT: Final = 1.0  # seconds


class NotSlotOwnerError(BackendUnavailableError):
    """This server does not own the switch, or not all of its keys.

    Another connection, made soon, will do.
    """


class HungUpError(ConnectionError):
    """The server was reached, and ended the connection instead of a reply."""


class Batch(NamedTuple):
    """Commands with their bytes, so that what is sent again and again is packed once."""

    commands: tuple[Command, ...]
    packed: bytes

    @classmethod
    def of(cls, *commands: Command) -> Self:
        """Pack commands. Raises `UnicodeEncodeError`."""
        return cls(commands, b"".join(map(_pack, commands)))


class _Call(NamedTuple):
    """Commands that were sent, and the replies to them so far."""

    size: int
    done: asyncio.Future[None]
    replies: list[Reply]

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class RedisConnection(asyncio.Protocol):
    """Sends commands and returns their replies in order. Calls `on_event` on a push and at the end.

    It takes the socket over from a redis-py connection after the handshake, and parses what comes
    at once, without a task that would have to wake up first. redis-py's PubSub would reconnect
    silently and so lose tracking, and its `timeout=` takes a dead socket's ETIMEDOUT for "no
    message yet". The connection must have no socket_timeout: `within` is the deadline of each call.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        on_event: Callable[[], None] = lambda: None,
        *,
        within: float,
    ) -> None:
        self._connection = connection
        self._on_event = on_event
        self._within = within
        self._transport: asyncio.Transport | None = None
        self._reader: asyncio.Task[None] | None = None
        self._parser = ReplyParser(int(connection.protocol))
        self._pending: deque[_Call] = deque()
        self._error: Exception | None = None
        self._is_subscribed = False
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self.last_received_at = time.monotonic()

    @property
    def peer(self) -> tuple[str, int] | None:
        """The host and port at the other end; None for a Unix socket."""
        host = getattr(self._connection, "host", None)
        port = getattr(self._connection, "port", None)
        return None if host is None or port is None else (host, port)

    @property
    def address(self) -> str:
        """The address that the host has led to; empty where it is unknown."""
        peername = self._transport and self._transport.get_extra_info("peername")
        return str(peername[0]) if isinstance(peername, tuple) else ""

    async def __aenter__(self) -> Self:
        writer, reader = (getattr(self._connection, name, None) for name in ("_writer", "_reader"))
        if isinstance(writer, asyncio.StreamWriter) and isinstance(reader, asyncio.StreamReader):
            self._transport = cast("asyncio.Transport", writer.transport)
            self._transport.set_protocol(self)
            if reader.exception() or reader.at_eof():
                self.connection_lost(reader.exception())  # which redis-py's protocol was told of
        else:  # an imitation of Redis within this process
            self._reader = asyncio.create_task(self._read(), name="fastapi_maintenance connection")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._on_event = lambda: None
        abort(self._connection)
        if self._reader is not None:
            self._reader.cancel()
            self._closed.set_result(None)
        try:
            await asyncio.wait([self._closed], timeout=_CLOSE_TIMEOUT)
        finally:
            await self._connection.disconnect(nowait=True)

    async def call(self, *commands: Command, within: float | None = None) -> list[Reply]:
        """Send commands and wait for all replies, as `send` does."""
        return await self.send(Batch.of(*commands), within=within)

    async def send(self, *batches: Batch, within: float | None = None) -> list[Reply]:
        """Send commands in one go and wait for all replies; an error reply is returned, not raised.

        Raises `BackendUnavailableError` if the connection ends, or if the replies take longer than
        `within` seconds, and `NotSlotOwnerError` if a node of a cluster says that another one has
        these keys.
        """
        self.check()
        packed = b"".join(batch.packed for batch in batches)
        within = self._within if within is None else within
        call = _Call(sum(len(batch.commands) for batch in batches), self._loop.create_future(), [])
        self._pending.append(call)
        deadline = self._loop.call_later(within, self._expire, call, within, time.monotonic())
        try:
            if self._transport is not None:
                self._transport.write(packed)
            else:
                await self._connection.send_packed_command(packed, check_health=False)
        # since Python 3.12, transports raise AttributeError where the peer has just gone
        except Exception as error:
            self._end(error)
        try:
            await call.done
        finally:
            deadline.cancel()
        if len(call.replies) < call.size:
            self.check()
        for reply in call.replies:
            if isinstance(reply, MovedError):
                raise NotSlotOwnerError("the switch is on another node of the cluster") from reply
        return call.replies

    def check(self) -> None:
        """Raise `BackendUnavailableError` if the connection has ended."""
        if self._error is None and self._transport is not None and self._transport.is_closing():
            self._end(_closed())
        if self._error is not None:
            lost = BackendUnavailableError(str(self._error) or type(self._error).__name__)
            raise lost from self._error

    def _expire(self, call: _Call, within: float, started: float) -> None:
        if call.done.done():
            return
        if time.monotonic() - started > 1.5 * within:
            # It is the event loop that was away; the replies may well be waiting in the socket.
            self._loop.call_later(within, self._expire, call, within, math.inf)
        else:
            self._end(TimeoutError(f"no reply within {within:g} s"))

    def data_received(self, data: bytes) -> None:
        """Take what the server says."""
        self.last_received_at = time.monotonic()
        try:
            for reply in self._parser.feed(data):
                self._take(reply)
        except Exception as error:  # bytes that are not RESP
            self._end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the calls that wait for replies."""
        if not self._closed.done():
            self._closed.set_result(None)
        # An ETIMEDOUT of the kernel is a TimeoutError; that of a call means that Redis is slow.
        self._end(_closed() if exc is None else ConnectionError(str(exc)))

    async def _read(self) -> None:
        try:
            while True:
                try:
                    reply = await self._connection.read_response(push_request=True)
                except ResponseError as error:
                    reply = error
                self.last_received_at = time.monotonic()
                self._take(reply)
        except Exception as error:
            self._end(error)

    def _take(self, reply: Reply) -> None:
        if reply is _PUSH or (isinstance(reply, list) and self._is_message(reply)):
            self._on_event()
        elif not self._pending:
            raise ConnectionError("an unexpected reply")
        else:
            call = self._pending[0]
            call.replies.append(reply)
            if len(call.replies) == call.size:
                self._pending.popleft().finish()

    def _is_message(self, array: list[Reply]) -> bool:
        """Return whether it is a message, which on a RESP2 connection looks like any array."""
        kind = array[0] if array else None
        self._is_subscribed |= kind in _SUBSCRIBED
        return self._is_subscribed and kind in _MESSAGES

    def _end(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        while self._pending:
            self._pending.popleft().finish()
        self._on_event()


class _IncompleteError(Exception):
    """The rest of a reply has not arrived."""


class ReplyParser:
    """Parses replies as their bytes arrive, with the parsers of redis-py's blocking connections."""

    def __init__(self, protocol: int) -> None:
        self._arrived = b""
        parser: Any = (_RESP3Parser if protocol == 3 else _RESP2Parser)(_MAX_READ)
        parser._buffer = SocketBuffer(cast(Any, self), _MAX_READ, cast(Any, None))
        self._read = partial(parser.read_response, disable_decoding=True)
        if protocol == 3:
            self._read = partial(self._read, push_request=True)
            parser.handle_push_response = _on_push

    def feed(self, data: bytes) -> Iterator[Reply]:
        """Yield the replies that are complete now. Raises any exception for other bytes."""
        self._arrived = data
        with suppress(_IncompleteError):  # the next bytes begin again with this reply
            while True:
                yield self._read()

    def recv(self, size: int) -> bytes:
        """Return what has arrived, as a socket does."""
        if not self._arrived:
            raise _IncompleteError
        data, self._arrived = self._arrived, b""
        return data


def _on_push(message: list[Any]) -> object:
    # RESP3 confirms SUBSCRIBE by a push, so that one is a reply; if it is refused, the reply is an
    # ordinary error.
    return message if message and message[0] in _SUBSCRIBED else _PUSH


def _pack(command: Command) -> bytes:
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    parts = (b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n" % len(words) + b"".join(parts)


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


def _closed() -> Exception:
    return ConnectionError("Connection closed by server.")
