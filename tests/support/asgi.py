"""ASGI applications driven by hand, without a client or a server that could hide what they send."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope

UNUSED: Final[Any] = None
"""A `receive` or `send` that must not be used: calling it fails."""


def http_scope(
    method: str = "GET", headers: dict[str, str] | Iterable[tuple[str, str]] = (), **more: Any
) -> dict[str, Any]:
    """A request as uvicorn describes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": "/items",
        "raw_path": b"/items",
        "query_string": b"",
        "root_path": "",
        "headers": _encoded(headers),
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
        **more,
    }


def at(path: str, method: str = "GET", **more: Any) -> dict[str, Any]:
    """A request for a path."""
    return http_scope(method, path=path, **more)


def by(client: object, *forwarded: str) -> dict[str, Any]:
    """A request of a client, with what proxies say in X-Forwarded-For."""
    return http_scope(client=client, headers=[("x-forwarded-for", value) for value in forwarded])


def websocket_scope(
    headers: dict[str, str] | Iterable[tuple[str, str]] = (), *, denial: bool = True, **more: Any
) -> dict[str, Any]:
    """A handshake, by a server that can deny it with a response or by one that cannot."""
    scope = http_scope(headers=headers) | {
        "type": "websocket",
        "scheme": "ws",
        "subprotocols": [],
        **more,
    }
    del scope["method"]
    return scope | ({"extensions": {"websocket.http.response": {}}} if denial else {})


async def exchange(app: ASGIApp, scope: Scope, receive: Receive = UNUSED) -> list[Message]:
    """Everything the application sends."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def refusal_to_start(app: ASGIApp) -> tuple[Message, Exception]:
    """What an application says and raises that does not start."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    try:
        await app({"type": "lifespan"}, sending({"type": "lifespan.startup"}), send)
    except Exception as error:
        (message,) = messages
        return message, error
    raise AssertionError(f"It has started: {messages}")


def sending(*messages: Message) -> Receive:
    """A `receive` with these messages to give, one after the other; after the last it fails."""
    left = list(messages)

    async def receive() -> Message:
        return left.pop(0)

    return receive


def _encoded(headers: dict[str, str] | Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    pairs = headers.items() if isinstance(headers, dict) else headers
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
