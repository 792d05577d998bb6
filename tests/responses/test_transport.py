"""Answers that others make, fitted to client and server."""

from __future__ import annotations

from typing import Final

import pytest
from starlette.types import Message, Receive, Scope, Send

from fastapi_maintenance.responses.transport import adapt_send

from ..support.asgi import exchange, http_scope, websocket_scope

pytestmark = pytest.mark.anyio


async def sent_through_fit(scope: Scope, *messages: Message) -> list[Message]:
    """What remains of an answer's messages."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await adapt_send(scope, send, code=1011, reason="Internal error")(message)

    return await exchange(app, scope)


STREAMED: Final[tuple[Message, ...]] = (
    {"type": "http.response.start", "status": 503, "headers": [(b"x-by", b"us")]},
    {"type": "http.response.body", "body": b"one", "more_body": True},
    {"type": "http.response.body", "body": b"two"},
)
DENIAL: Final[tuple[Message, ...]] = tuple(
    {**message, "type": f"websocket.{message['type']}"} for message in STREAMED
)


async def test_adapted_get_is_unchanged() -> None:
    assert await sent_through_fit(http_scope(), *STREAMED) == list(STREAMED)


async def test_adapted_head_gets_no_body() -> None:
    start, one, two = await sent_through_fit(http_scope("HEAD"), *STREAMED)
    assert start == STREAMED[0]
    assert one == {"type": "http.response.body", "body": b"", "more_body": True}
    assert two == {"type": "http.response.body", "body": b""}


@pytest.mark.parametrize("messages", [STREAMED, DENIAL], ids=["plain", "prefixed"])
async def test_adapted_response_becomes_denial(
    messages: tuple[Message, ...],
) -> None:
    assert await sent_through_fit(websocket_scope(), *messages) == list(DENIAL)


@pytest.mark.parametrize("messages", [STREAMED, DENIAL], ids=["plain", "prefixed"])
async def test_adapted_response_becomes_one_close(
    messages: tuple[Message, ...],
) -> None:
    sent = await sent_through_fit(websocket_scope(denial=False), *messages)
    assert sent == [{"type": "websocket.close", "code": 1011, "reason": "Internal error"}]


@pytest.mark.parametrize("denial", [True, False])
async def test_adapted_close_stays_close(denial: bool) -> None:
    close = {"type": "websocket.close", "code": 4001, "reason": "mine"}
    assert await sent_through_fit(websocket_scope(denial=denial), close) == [close]
