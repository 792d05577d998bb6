"""WebSockets and streams that can be closed while their application runs."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from time import monotonic
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..responses.transport import truncate_reason

_CLOSE_CODES: Final = (1012, 4503)  # IANA's for a restart; a private one where daphne refuses it
_CLOSE_TIMEOUT: Final = 1.0  # seconds until an application is disconnected without the message
_MAX_DROPS: Final = 100


class _Closable(ABC):
    """A connection between a server and an application, which gets `receive` and `send`.

    After a closing the application sees an ordinary disconnect.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._disconnect: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._closing = False
        self._over = False
        self._missed: list[Message] = []

    @property
    def closed(self) -> bool:
        """Return whether the application sees a disconnect that the client has not made."""
        return self._disconnect.done()

    async def receive(self) -> Message:
        """Return the next message, or the disconnect of a closing."""
        if self._missed:
            return self._missed.pop()
        if not self._disconnect.done():
            message = asyncio.ensure_future(self._receive())
            try:
                await asyncio.wait((message, self._disconnect), return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                if message.done():  # kept for an application that receives with a timeout
                    self._missed.append(self._seen(message.result()))
                raise
            finally:
                if not message.done():
                    message.cancel()
            if message.done() and not message.cancelled():
                return self._seen(message.result())
        return self._disconnect.result()

    def _seen(self, message: Message) -> Message:
        self._over = self._over or message["type"].endswith(".disconnect")
        return message

    async def send(self, message: Message) -> None:
        """Send. After a closing, raise `OSError` as on a closed connection (ASGI)."""
        if self._closing:
            # Until the last message is sent: granian drops it where the application returns first.
            await asyncio.shield(self._disconnect)
            raise OSError("the connection was closed for maintenance")
        await self._pass_on(message)

    @abstractmethod
    async def _pass_on(self, message: Message) -> None: ...

    async def _end(self, disconnect: Message, *closings: Message) -> None:
        """Send the first of these messages that the server accepts, then disconnect."""
        self._closing = True
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                for closing in closings:
                    with suppress(Exception):  # the client may be gone: each server has its error
                        await self._send(closing)
                        break
        except TimeoutError:
            pass  # its client reads nothing
        finally:
            self._disconnect.set_result(disconnect)


class ClosableWebSocket(_Closable):
    """A WebSocket, closed with code 1012 (RFC 6455, 7.4; "service restart")."""

    _begun = False

    async def receive(self) -> Message:
        """Return the next message, or the disconnect of a closing; first the connect event."""
        if not self._begun:
            message = await self._receive()
            self._begun = True
            return message
        return await super().receive()

    async def _pass_on(self, message: Message) -> None:
        self._over = self._over or message["type"] == "websocket.close"
        await self._send(message)

    async def close(self, reason: str) -> None:
        """Close with code 1012."""
        if not (self._over or self._closing):
            details = [{"code": code, "reason": truncate_reason(reason)} for code in _CLOSE_CODES]
            closings = [{"type": "websocket.close", **detail} for detail in details]
            await self._end({"type": "websocket.disconnect", **details[0]}, *closings)


class ClosableStream(_Closable):
    """An HTTP response of unknown length, ended between two parts of its body."""

    _unknown_length = False
    _sending = False
    _wanted = False
    _drops = 0
    _closed_at = 0.0

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Run the application, and suppress its error about the disconnect of a closing."""
        version = scope.get("asgi", {}).get("spec_version", "2.0")
        self._drops = _MAX_DROPS if tuple(map(int, version.split("."))) < (2, 4) else 0
        try:
            await app(scope, self.receive, self.send)
        except Exception as error:
            if not (self.closed and _is_disconnect(error)):
                raise

    async def send(self, message: Message) -> None:
        """Send. Before ASGI 2.4, first drop what is sent after a closing.

        The application then listens for the disconnect, and is cancelled where it waits. An error
        would leave its generator to the garbage collector.
        """
        if self._closing and self._drops and monotonic() < self._closed_at + _CLOSE_TIMEOUT:
            self._drops -= 1
        else:
            await super().send(message)

    async def _pass_on(self, message: Message) -> None:
        self._sending = True
        try:
            await self._send(message)
        finally:
            self._sending = False
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            self._unknown_length = b"content-length" not in names
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._over = True
        elif self._wanted:
            await self.close()

    async def close(self, reason: str = "") -> None:
        """End the response now, or after the next part of its body."""
        self._wanted = True
        if self._unknown_length and not (self._sending or self._over or self._closing):
            self._closed_at = monotonic()
            last = {"type": "http.response.body", "body": b"", "more_body": False}
            await self._end({"type": "http.disconnect"}, last)


def _is_disconnect(error: Exception) -> bool:
    """Return whether an error comes from a disconnect alone."""
    if isinstance(error, ExceptionGroup):
        return all(map(_is_disconnect, error.exceptions))
    return isinstance(error, OSError | ClientDisconnect)
