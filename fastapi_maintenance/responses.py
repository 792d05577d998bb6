"""The answer during maintenance, as pure ASGI: encoded once for a state, sent many times."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from anyio.lowlevel import checkpoint
from starlette.types import Message, Receive, Scope, Send

from .state import MaintenanceState

__all__ = ["DETAIL", "MaintenanceResponse", "fit", "negotiate", "shorten"]

DETAIL: Final = "Service temporarily unavailable due to maintenance"
"""What is said where the state has no message of its own."""

_STATUS: Final = 503
_TRY_AGAIN_LATER: Final = 1013  # in IANA's registry of WebSocket close codes
_LONGEST_REASON: Final = 123  # bytes; a WebSocket control frame carries 125, two of them the code
_LONGEST_ACCEPT: Final = 1024  # bytes; browsers send under 200, and more costs time that a closed service is asked for most

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Down for maintenance</title>
</head>
<body>
<main>
<h1>Down for maintenance</h1>
<p>{message}</p>
</main>
</body>
</html>
"""


def _message(state: MaintenanceState) -> str:
    return state.message or DETAIL


def _encode_json(state: MaintenanceState) -> bytes:
    return json.dumps({"detail": _message(state)}, ensure_ascii=False, separators=(",", ":")).encode()


def _encode_html(state: MaintenanceState) -> bytes:
    return _PAGE.format(message=html.escape(_message(state))).encode()


@dataclass(frozen=True, slots=True)
class _Offer:
    media_type: str
    content_type: bytes
    encode: Callable[[MaintenanceState], bytes]


# The first is what a client gets that prefers none of them.
_OFFERS: Final = (
    _Offer("application/json", b"application/json", _encode_json),
    _Offer("text/html", b"text/html; charset=utf-8", _encode_html),
)
_MEDIA_TYPES: Final = tuple(offer.media_type for offer in _OFFERS)


@dataclass(frozen=True, slots=True)
class _Encoded:
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def _encode(offer: _Offer, state: MaintenanceState) -> _Encoded:
    body = offer.encode(state)
    headers = (
        (b"content-type", offer.content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"vary", b"accept"),
    )
    return _Encoded(headers, body)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class MaintenanceResponse:
    """The 503 for one state: `await response(scope, receive, send)`, for HTTP and for a WebSocket's handshake.

    `clock` is what the state's end is measured against; it is read only for Retry-After.
    """

    def __init__(self, state: MaintenanceState, clock: Callable[[], datetime] = _utc_now) -> None:
        self._state = state
        self._clock = clock
        self._encoded = {offer.media_type: _encode(offer, state) for offer in _OFFERS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        encoded = self._encoded[negotiate(_accept(scope), _MEDIA_TYPES)]
        retry_after = b"%d" % self._state.retry_after_at(self._clock())
        headers = [*encoded.headers, (b"retry-after", retry_after)]  # a new list each time: outer middlewares append to it
        send = fit(scope, send, reason=_message(self._state))
        await send({"type": "http.response.start", "status": _STATUS, "headers": headers})
        await send({"type": "http.response.body", "body": encoded.body})


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


def _accept(scope: Scope) -> str:
    """The Accept header, its lines joined (RFC 9110, 5.3); empty if there is none or it is longer than any honest one."""
    lines = [value for name, value in scope["headers"] if name == b"accept"]
    joined = b",".join(lines)
    return "" if len(joined) > _LONGEST_ACCEPT else joined.decode("latin-1")


def negotiate(accept: str, offers: Sequence[str]) -> str:
    """The media type a client prefers (RFC 9110, 12.5.1); the first offer where it prefers none or accepts none.

    A range that names a type is preferred to a wildcard of the same quality. Parameters other than q are not compared,
    and what is malformed counts for nothing.
    """
    qualities = _qualities(accept)
    if not qualities:
        return offers[0]
    return max(offers, key=lambda offer: _preference(offer, qualities))  # of equals, max returns the first


def _preference(media_type: str, qualities: dict[str, float]) -> tuple[float, int]:
    """Quality and then precision; the most precise range that matches says the quality, also when that is zero."""
    ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    for precision, media_range in zip((3, 2, 1), ranges, strict=True):
        if media_range in qualities:
            quality = qualities[media_range]
            return (quality, precision) if quality else (0.0, 0)
    return 0.0, 0


_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)  # an unclosed one reaches to the end, else this is quadratic
_QVALUE: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def _qualities(accept: str) -> dict[str, float]:
    """Each media range and its quality, between 0 and 1."""
    qualities: dict[str, float] = {}
    for part in _QUOTED.sub('""', accept).split(","):
        media_range, *parameters = part.split(";")
        name = media_range.strip().lower()
        if name and (quality := _quality(parameters)) is not None:
            qualities[name] = max(quality, qualities.get(name, 0.0))
    return qualities


def _quality(parameters: Sequence[str]) -> float | None:
    """The q among a range's parameters, 1 without one, None if it is malformed."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            return float(value) if _QVALUE.fullmatch(value := value.strip()) else None
    return 1.0
