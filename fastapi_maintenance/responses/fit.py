"""Makes of any HTTP response what this client and this server can have."""

from __future__ import annotations

from typing import Final

from anyio.lowlevel import checkpoint
from starlette.types import Message, Scope, Send

from .notice import DETAIL

__all__ = ["fit", "shorten"]

_TRY_AGAIN_LATER: Final = 1013  # in IANA's registry of WebSocket close codes
_LONGEST_REASON: Final = 123  # bytes; a WebSocket control frame carries 125, two of them the code


def fit(scope: Scope, send: Send, *, code: int = _TRY_AGAIN_LATER, reason: str = DETAIL) -> Send:
    """A `send` that takes any HTTP response and makes of it what this client and this server can have.

    HEAD gets no body. A WebSocket's handshake is denied with the response where the server can do that; elsewhere it is
    closed before accept, which clients see as a 403. `code` and `reason` are for that close.
    """
    if scope["type"] == "websocket":
        if "websocket.http.response" in (scope.get("extensions") or ()):
            return _denying(send)
        return _closing(send, code, reason)
    return _without_body(send) if scope["method"] == "HEAD" else send


def _without_body(send: Send) -> Send:
    async def fitted(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return fitted


# The connect event is not received before a refusal: neither the ASGI specification nor any server asks for it (uvicorn,
# hypercorn, daphne and granian were tried), and where something outside has taken it already, that would wait for ever.
#
# Not every response has the extension's prefix on its messages: Starlette's own StreamingResponse once had not.


def _denying(send: Send) -> Send:
    async def fitted(message: Message) -> None:
        if message["type"].startswith("http."):
            message = {**message, "type": f"websocket.{message['type']}"}
        await send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # uvicorn's websockets-sansio logs an error for every denied handshake (its pull request 3138), unless it has had
            # one turn of the loop to see the connection closed before the application returns.
            await checkpoint()

    return fitted


def _closing(send: Send, code: int, reason: str) -> Send:
    async def fitted(message: Message) -> None:
        kind = message["type"].removeprefix("websocket.")
        if kind == "http.response.start":
            await send({"type": "websocket.close", "code": code, "reason": shorten(reason)})
        elif kind != "http.response.body":
            await send(message)

    return fitted


def shorten(reason: str) -> str:
    """As much of a reason as a WebSocket's close frame can carry, cut between characters."""
    return reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
