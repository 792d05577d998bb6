"""Whatever a client sends in its headers, it gets the answer, whole and well-formed, whatever the
switch says.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, Final

import anyio
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import ASGIApp

from fastapi_maintenance import MaintenanceModeMiddleware, ResponseOptions
from fastapi_maintenance.exceptions import InvalidStateError
from fastapi_maintenance.model.state import ON, MaintenanceState
from fastapi_maintenance.responses.response import MaintenanceResponse

from ..support.asgi import exchange, http_scope, websocket_scope
from .attempt import attempt
from .effort import effort
from .garbage import SWITCHES

NAMES: Final = st.sampled_from(
    [
        b"accept",
        b"accept-language",
        b"origin",
        b"host",
        b"cookie",
        b"access-control-request-method",
        b"access-control-request-headers",
    ]
)
PIECES: Final = st.sampled_from(
    [
        "text/html",
        "application/problem+json",
        "*/*",
        "de",
        "*",
        "-",
        ",",
        ";",
        "q=",
        "q=0.5",
        "Q=1.000",
        '"',
        "\\",
        " ",
        "=",
        "\0",
        "\xff",
    ]
)
VALUES: Final = st.one_of(
    st.binary(max_size=300),
    st.lists(PIECES, max_size=30).map(lambda pieces: "".join(pieces).encode("latin-1")),
    st.sampled_from(
        [b"," * 1024, b'"' * 1024, b"\\" * 1024, b"a-" * 512, b"text/html;" * 102, b"x" * 100_000]
    ),
)
HEADERS: Final = st.lists(st.tuples(NAMES, VALUES), max_size=8)
NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
VALUE: Final = re.compile(rb"[\x20-\x7e\x80-\xff\t]*")


def ask(
    app: ASGIApp, scope: dict[str, Any], headers: list[tuple[bytes, bytes]]
) -> tuple[int, dict[bytes, bytes], bytes]:
    """The status, the headers and the body, which must be what may be sent."""
    start, body = anyio.run(exchange, app, scope | {"headers": headers})
    answered = dict(start["headers"])
    for name, value in start["headers"]:
        assert NAME.fullmatch(name), name
        assert VALUE.fullmatch(value), value
    assert int(answered[b"content-length"]) == len(body["body"])
    assert answered[b"content-type"].partition(b";")[0] in (
        b"application/json",
        b"application/problem+json",
        b"text/html",
        b"text/plain",
    )
    return start["status"], answered, body["body"]


@effort(300)
@given(HEADERS, st.booleans())
def test_any_headers_get_the_answer(headers: list[tuple[bytes, bytes]], websocket: bool) -> None:
    scope = websocket_scope() if websocket else http_scope()
    status, answered, body = ask(MaintenanceResponse(ON), scope, headers)
    assert status == 503
    assert answered[b"retry-after"] == b"3600"
    assert body


@effort(200)
@given(HEADERS)
def test_any_headers_get_through_the_middleware_and_cors(
    headers: list[tuple[bytes, bytes]],
) -> None:
    app = FastAPI()
    app.add_api_route("/items", lambda: None, methods=["POST"])
    app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    assert ask(app, http_scope("POST"), headers)[0] == 503


ACCEPTS: Final = st.sampled_from(
    [b"application/json", b"application/problem+json", b"text/html", b"text/plain"]
)
MOMENTS: Final = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)


@effort(300)
@given(SWITCHES, ACCEPTS, MOMENTS, st.booleans(), st.integers(0, 1000))
@example(
    b'{"enabled": true, "ends_at": "9999-12-31T23:59:59-14:00"}',
    b"text/html",
    datetime(2026, 1, 1, tzinfo=UTC),
    True,
    7,
)
@example(
    b'{"enabled": true, "ends_at": "0001-01-01T00:00:00+14:00"}',
    b"text/plain",
    datetime(2026, 1, 1, tzinfo=UTC),
    True,
    7,
)
def test_any_state_is_answered_in_every_format(
    raw: bytes, accept: bytes, now: datetime, as_date: bool, jitter: int
) -> None:
    state, _ = attempt(lambda: MaintenanceState.parse(raw), InvalidStateError)
    if state is None:
        return
    answer = ResponseOptions(retry_after_as_date=as_date, jitter=jitter, refresh=5)
    status, answered, body = ask(
        MaintenanceResponse(state, lambda: now, answer), http_scope(), [(b"accept", accept)]
    )
    assert status == 503
    assert answered[b"content-type"].startswith(accept)
    assert as_date or 0 <= int(answered[b"retry-after"]) < 2**31
    if accept.endswith(b"json"):
        assert json.loads(body)["detail"]
    if state.message and accept == b"text/html" and "<" in state.message:
        assert state.message.encode() not in body
