"""A WebSocket or a stream that can be ended from outside, while its application sees an ordinary disconnect."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Final

from starlette.types import Message, Receive, Send

from ..responses import truncate_reason

__all__ = ["ClosableStream", "ClosableWebSocket"]

_SERVICE_RESTART: Final = 1012  # in IANA's registry of WebSocket close codes


class _Closable(ABC):
    """Stands between an application and its server: `receive` and `send` are for the application."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._disconnect: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._over = False
        self._missed: list[Message] = []

    @property
    def closed(self) -> bool:
        """Whether the application sees a disconnect that the client has not made."""
        return self._disconnect.done()

    async def receive(self) -> Message:
        """The next message, or the disconnect that a closing amounts to."""
        if self._missed:
            return self._missed.pop()
        if not self._disconnect.done():
            next_message = asyncio.ensure_future(self._receive())
            try:
                await asyncio.wait(
                    (next_message, self._disconnect), return_when=asyncio.FIRST_COMPLETED
                )
            except asyncio.CancelledError:
                if next_message.done():  # whoever waits with a timeout gets it the next time
                    self._missed.append(self._seen(next_message.result()))
                raise
            finally:
                if not next_message.done():
                    next_message.cancel()
            if next_message.done() and not next_message.cancelled():
                return self._seen(next_message.result())
        return self._disconnect.result()

    def _seen(self, message: Message) -> Message:
        self._over = self._over or message["type"].endswith(".disconnect")
        return message

    async def send(self, message: Message) -> None:
        """Send, unless closed: then it fails as on a connection that the client has closed (ASGI, "Send after close")."""
        if self._disconnect.done():
            raise OSError("the connection was closed for maintenance")
        await self._pass_on(message)

    @abstractmethod
    async def _pass_on(self, message: Message) -> None: ...

    async def _end(self, disconnect: Message, closing: Message) -> None:
        self._disconnect.set_result(disconnect)
        with suppress(
            Exception
        ):  # the client may have gone at the same moment; each server has its own error for that
            await self._send(closing)


class ClosableWebSocket(_Closable):
    """A WebSocket, closed with code 1012."""

    _begun = False

    async def receive(self) -> Message:
        """The next message, or the disconnect that a closing amounts to."""
        if not self._begun:
            message = (
                await self._receive()
            )  # the connect event, which is there already and which applications expect first
            self._begun = True
            return message
        return await super().receive()

    async def _pass_on(self, message: Message) -> None:
        self._over = self._over or message["type"] == "websocket.close"
        await self._send(message)

    async def close(self, reason: str) -> None:
        """Close with code 1012 (RFC 6455, 7.4; "service restart")."""
        if not (self._over or self._disconnect.done()):
            closing = {"code": _SERVICE_RESTART, "reason": truncate_reason(reason)}
            await self._end(
                {"type": "websocket.disconnect", **closing}, {"type": "websocket.close", **closing}
            )


class ClosableStream(_Closable):
    """An HTTP response, ended between two parts of its body. One with a Content-Length has an end of its own, and is let be."""

    _endless = False  # its parts are being sent, and nothing says when they end
    _sending = False
    _wanted = False

    async def _pass_on(self, message: Message) -> None:
        self._sending = True
        try:
            await self._send(message)
        finally:
            self._sending = False
        if message["type"] == "http.response.start":
            self._endless = b"content-length" not in {
                name.lower() for name, _ in message.get("headers", ())
            }
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._over = True
        elif self._wanted:
            await self.close()

    async def close(self, reason: str = "") -> None:
        """End the response now, or after the part of its body that is next."""
        self._wanted = True
        if self._endless and not (self._sending or self._over or self._disconnect.done()):
            await self._end(
                {"type": "http.disconnect"},
                {"type": "http.response.body", "body": b"", "more_body": False},
            )
