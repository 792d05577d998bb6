"""A WebSocket that can be closed from outside, while its application sees an ordinary disconnect."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from starlette.types import Message, Receive, Send

from .responses import shorten

__all__ = ["Evictable"]

_SERVICE_RESTART: Final = 1012  # in IANA's registry of WebSocket close codes


class Evictable:
    """Stands between a WebSocket application and its server: `receive` and `send` are for the application."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._evicted: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._begun = False
        self._over = False
        self._missed: list[Message] = []

    async def receive(self) -> Message:
        """The next message, or the disconnect that an eviction amounts to."""
        if not self._begun:
            message = await self._receive()  # the connect event, which is there already and which applications expect first
            self._begun = True
            return message
        if self._missed:
            return self._missed.pop()
        if not self._evicted.done():
            next_message = asyncio.ensure_future(self._receive())
            try:
                await asyncio.wait((next_message, self._evicted), return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                if next_message.done():  # whoever waits with a timeout gets it the next time
                    self._missed.append(self._seen(next_message.result()))
                raise
            finally:
                if not next_message.done():
                    next_message.cancel()
            if next_message.done() and not next_message.cancelled():
                return self._seen(next_message.result())
        return self._evicted.result()

    def _seen(self, message: Message) -> Message:
        self._over = self._over or message["type"] == "websocket.disconnect"
        return message

    async def send(self, message: Message) -> None:
        """Send, unless evicted: then it fails as on a connection that the client has closed (ASGI, "Send after close")."""
        if self._evicted.done():
            raise OSError("the WebSocket was closed for maintenance")
        self._over = self._over or message["type"] == "websocket.close"
        await self._send(message)

    async def evict(self, reason: str) -> None:
        """Close with code 1012 (RFC 6455, 7.4; "service restart")."""
        if self._over or self._evicted.done():
            return
        closing = {"code": _SERVICE_RESTART, "reason": shorten(reason)}
        self._evicted.set_result({"type": "websocket.disconnect", **closing})
        with suppress(Exception):  # the client may have gone at the same moment; each server has its own error for that
            await self._send({"type": "websocket.close", **closing})
