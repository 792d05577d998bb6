"""ASGI application that sends the response. It is encoded once per state."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Final

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ..model.state import MaintenanceState
from .content import detail
from .negotiation import MAX_LENGTH, Preferences, negotiate, negotiate_language, preferences
from .options import ResponseOptions
from .redirect import leads_to_itself
from .renderers import HTML, MEDIA_TYPES
from .transport import adapt_send

_Response = Response | Awaitable[Response]
ResponseHandler = (
    Callable[[Request], _Response]
    | Callable[[HTTPConnection], _Response]
    | Callable[[Request, MaintenanceState], _Response]
    | Callable[[HTTPConnection, MaintenanceState], _Response]
)
"""Makes the response during maintenance. Sync handlers run in threads of their own.

A handler with two parameters also gets the state that the request was refused by. A WebSocket is
described as to an `ExemptHandler`; a handler that asks for what only a `Request` has, leaves it to
the standard response.
"""

MODE_HEADER: Final = b"x-maintenance-mode"
"""The header that distinguishes this response from other 503 responses: `full` or `read-only`.

It is a structured field (RFC 9651): a token with the parameter `ends_at`, a date, if the end is
known.
"""

UPCOMING_HEADER: Final = b"x-maintenance-coming"
"""The header that announces a window while the service is open: `full;starts_at=@…;ends_at=@…`."""

_READABLE: Final = (b"access-control-expose-headers", b"retry-after, x-maintenance-mode")
_SAFE: Final = (b"allow", b"GET, HEAD, OPTIONS, TRACE")  # a 405 must have it (RFC 9110, 15.5.6)
_NOT_STORED: Final = (b"cache-control", b"no-store")
_MAX_CLIENTS: Final = 256  # pairs of headers; there are a few dozen of them
_MAX_TIMES: Final = 64
_utc_now: Final = partial(datetime.now, UTC)
Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """The response for one media type and language. `after` follows the seconds in the body."""

    status: int
    headers: Headers
    content: bytes
    after: bytes | None = None

    def timed(self, seconds: int, retry_after: bytes) -> _Encoded:
        """Return the response with Retry-After and Content-Length."""
        body = self.content
        if self.after is not None:
            body = b"%b%d%b" % (body, seconds, self.after)
        timed = ((b"content-length", b"%d" % len(body)), (b"retry-after", retry_after))
        return _Encoded(self.status, (*self.headers, *timed), body)


class MaintenanceResponse:
    """The response for one state: `await response(scope, receive, send)`.

    It answers HTTP requests and WebSocket handshakes. `clock` returns the current time, for
    Retry-After.
    """

    def __init__(
        self,
        state: MaintenanceState,
        clock: Callable[[], datetime] = _utc_now,
        options: ResponseOptions | None = None,
    ) -> None:
        self._state = state
        self._clock = clock
        self._options = options = options or ResponseOptions()
        self._detail = detail(state)
        self._is_constant = options.is_retry_after_constant(state)
        self._languages = tuple(options.all_translations)
        self._encoded: dict[tuple[str, str], _Encoded] = {}
        self._redirect = self._encode_redirect(options.redirect or "")
        self._timed = lru_cache(_MAX_TIMES)(_Encoded.timed)
        self._preferred: dict[Preferences, tuple[str, _Encoded]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        send = adapt_send(scope, send, reason=self._detail)
        for message in self.messages(scope, preferences(scope)):
            await send(message)

    def messages(self, scope: Scope, preferred: Preferences) -> tuple[Message, Message]:
        """Return the messages of the response to a request with these preferences."""
        media_type, encoded = self._preferred.get(preferred) or self._prefer(preferred)
        target = self._options.redirect
        if target is not None and media_type == HTML and not leads_to_itself(scope, target):
            encoded = self._redirect
        elif not self._is_constant:
            encoded = self._time(encoded)
        headers = [*encoded.headers]  # a new list each time: outer middlewares append to it
        if preferred[2]:
            headers.append(_READABLE)
        return (
            {"type": "http.response.start", "status": encoded.status, "headers": headers},
            {"type": "http.response.body", "body": encoded.content},
        )

    def _prefer(self, preferred: Preferences) -> tuple[str, _Encoded]:
        """Return the media type for a client and the response in it, kept by the headers.

        Headers that are longer than any browser's count as missing.
        """
        lines = [b"" if len(line) > MAX_LENGTH else line for line in preferred[:2]]
        key = lines[0], lines[1], preferred[2]
        if (found := self._preferred.get(key)) is not None:
            return found
        accept, accept_language = (line.decode("latin-1") for line in lines)
        language = negotiate_language(accept_language, self._languages, self._options.language)
        media_type = negotiate(accept, MEDIA_TYPES)
        if len(self._preferred) >= _MAX_CLIENTS:  # a client invents them
            self._preferred.clear()
        found = self._preferred[key] = media_type, self._encode(media_type, language)
        return found

    def _encode(self, media_type: str, language: str) -> _Encoded:
        if (known := self._encoded.get((media_type, language))) is not None:
            return known
        options, state = self._options, self._state
        status = options.status_of(state)
        body = options.render(media_type, options.content(state, language))
        headers = [*body.headers, _NOT_STORED, (MODE_HEADER, _mark(state))]
        if status == 405:
            headers.append(_SAFE)
        if media_type == HTML and options.refresh is not None and state.mode == "full":
            headers.append((b"refresh", b"%d" % options.refresh))
        encoded = _Encoded(status, self._with_custom(headers), body.content, body.after)
        if self._is_constant:
            encoded = self._time(encoded)
        self._encoded[media_type, language] = encoded
        return encoded

    def _encode_redirect(self, target: str) -> _Encoded:
        """Encode the redirect without Retry-After, which would delay it (RFC 9110, 10.2.3)."""
        headers = [
            (b"location", target.encode()),
            (b"content-length", b"0"),
            (b"vary", b"accept"),
            _NOT_STORED,
            (MODE_HEADER, _mark(self._state)),
        ]
        return _Encoded(302, self._with_custom(headers), b"")

    def _with_custom(self, ours: list[tuple[bytes, bytes]]) -> Headers:
        """Return the headers with the custom ones, which replace all but a Vary header."""
        given = self._options.headers.items()
        own = [(name.lower().encode(), value.encode("latin-1")) for name, value in given]
        replaced = {name for name, _ in own} - {b"vary"}
        return *(header for header in ours if header[0] not in replaced), *own

    def _time(self, encoded: _Encoded) -> _Encoded:
        """Return the response with Retry-After, made once for each of its values."""
        return self._timed(encoded, *self._options.retry_after_at(self._clock(), self._state))


def announcement(state: MaintenanceState) -> tuple[bytes, bytes]:
    """Return the header for an upcoming window. The start is rounded down, the end up."""
    assert state.starts_at is not None
    begin = b"starts_at=@%d" % math.floor(state.starts_at.timestamp())
    mode, *end = _mark(state).split(b";")
    return UPCOMING_HEADER, b";".join((mode, begin, *end))


def _mark(state: MaintenanceState) -> bytes:
    end = b"" if state.ends_at is None else b";ends_at=@%d" % math.ceil(state.ends_at.timestamp())
    return state.mode.encode() + end
