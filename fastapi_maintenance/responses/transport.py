"""Adapt an HTTP response to HEAD requests and WebSocket handshakes."""

from __future__ import annotations

from functools import partial
from typing import Final

from anyio.lowlevel import checkpoint
from starlette.types import Message, Scope, Send

from .content import DETAIL

_TRY_AGAIN_LATER: Final = 1013  # in IANA's registry of WebSocket close codes
_LONGEST_REASON: Final = 123  # bytes; a WebSocket control frame carries 125, two of them the code


def adapt_send(
    scope: Scope, send: Send, *, code: int = _TRY_AGAIN_LATER, reason: str = DETAIL
) -> Send:
    """Return a `send` that adapts any HTTP response to the request.

    HEAD gets no body. A WebSocket handshake is denied with the response if the server supports
    that. Otherwise the WebSocket is closed before accept with `code` and `reason`, which clients
    see as a 403.
    """
    if scope["type"] == "websocket":
        if "websocket.http.response" in (scope.get("extensions") or ()):
            return partial(_deny, send)
        return partial(_close, send, code, reason)
    return partial(_send_without_body, send) if scope["method"] == "HEAD" else send


async def _send_without_body(send: Send, message: Message) -> None:
    await send({**message, "body": b""} if message["type"] == "http.response.body" else message)


# The connect event is not received before a refusal. Neither the ASGI specification nor any server
# needs it (uvicorn, hypercorn, daphne and granian were tried), and waiting for it would hang if an
# outer middleware had received it.
#
# Messages of responses may lack the prefix of the extension, as those of Starlette's
# StreamingResponse once did.


async def _deny(send: Send, message: Message) -> None:
    if message["type"].startswith("http."):
        message = {**message, "type": f"websocket.{message['type']}"}
    await send(message)
    if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
        # uvicorn's websockets-sansio logs an error for every denied handshake (its pull request
        # 3138), unless the loop runs once before the application returns.
        await checkpoint()


async def _close(send: Send, code: int, reason: str, message: Message) -> None:
    kind = message["type"].removeprefix("websocket.")
    if kind == "http.response.start":
        await send({"type": "websocket.close", "code": code, "reason": truncate_reason(reason)})
    elif kind != "http.response.body":
        await send(message)


def truncate_reason(reason: str) -> str:
    """Truncate a reason to what a WebSocket close frame can carry, between characters."""
    return reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
