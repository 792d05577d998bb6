"""Whatever a client sends, a closed service gives a valid answer and never an error of ours."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MaintenanceState,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
)
from fastapi_maintenance.backends import BaseStateBackend
from fastapi_maintenance.responses.negotiation import negotiate
from tests.support.asgi import exchange, http_scope, websocket_scope
from tests.support.doubles import Switchboard
from tests.support.serving import serving

from .effort import effort
from .garbage import TEXT

NAMES: Final = st.sampled_from(
    [
        b"accept",
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"upgrade",
        b"connection",
        b"origin",
        b"",
    ]
) | st.binary(max_size=20)
RANGES: Final = st.lists(
    st.sampled_from(
        [
            "text/html",
            "application/json",
            "*/*",
            "text/*",
            ";q=0.5",
            ";q=",
            ";q=x",
            ";q=1e9",
            ",",
            ";",
            "=",
            '"',
            "\\",
            " ",
            "é",
            "\0",
            "q",
        ]
    ),
    max_size=12,
).map(lambda parts: "".join(parts).encode())
VALUES: Final = st.one_of(
    st.binary(max_size=60),
    RANGES,
    st.sampled_from(
        [b"x" * 100_000, b"text/html;" * 10_000, b"," * 100_000, b'"' * 100_000, b"\xff\xfe"]
    ),
)
HEADERS: Final = st.lists(
    st.tuples(NAMES, VALUES) | st.tuples(st.just(b"accept"), VALUES), max_size=6
)
PATHS: Final = st.one_of(
    st.sampled_from(
        [
            "/items/1",
            "/items/",
            "//items/1",
            "/on",
            "/off",
            "/v1/x",
            "/mounted/y",
            "/mounted",
            "/docs",
            "",
            "*",
            "/items/é\ud800",
            "/\0",
        ]
    ),
    TEXT,
    TEXT.map("/".__add__),
)
METHODS: Final = st.sampled_from(
    ["GET", "HEAD", "POST", "OPTIONS", "TRACE", "get", "", "PRI", "É", "CONNECT"]
) | st.text(max_size=9)


def make_app(backend: BaseStateBackend | None) -> FastAPI:
    """An application with everything that can be routed; without a backend, it is not behind our
    middleware.
    """
    app, router, mounted = FastAPI(), APIRouter(prefix="/v1"), FastAPI()
    if backend is not None:
        app.add_middleware(MaintenanceModeMiddleware, backend=backend)

    @app.get("/items/{item}")
    @router.post("/{rest:path}")
    @mounted.get("/{rest:path}")
    def endpoint() -> str:
        return "open"

    @app.get("/on")
    @force_maintenance_mode_on
    def on() -> str:
        return "never"

    @app.get("/off")
    @force_maintenance_mode_off
    def off() -> str:
        return "always"

    @app.websocket("/items/{item}")
    async def connect(websocket: WebSocket) -> None:
        await websocket.close()

    app.include_router(router)
    app.mount("/mounted", mounted)
    return app


async def empty() -> Message:
    """What is received: no body."""
    return {"type": "http.request", "body": b"", "more_body": False}


def check(sent: list[Message], method: str) -> None:
    """Whether a server could send this, and a client read it."""
    start, *bodies = sent
    assert start["type"] == "http.response.start"
    assert start["status"] != 500
    headers = dict(start["headers"])
    for name, value in headers.items():
        assert name == name.lower()
        assert not set(b"\r\n\0") & set(name + value)
    body = b"".join(message.get("body", b"") for message in bodies)
    if b"content-length" in headers and method != "HEAD":
        assert int(headers[b"content-length"]) == len(body)
    if start["status"] == 503:
        assert headers[b"cache-control"] == b"no-store"
        assert headers[b"vary"].startswith(b"accept")
        assert 0 <= int(headers[b"retry-after"]) < 2**31
        if method == "HEAD":
            assert not body
        elif headers[b"content-type"].endswith(b"json"):
            assert json.loads(body)["detail"]
        else:
            assert body.decode().startswith("<!doctype html>") == headers[
                b"content-type"
            ].startswith(b"text/html")


@effort(300)
@given(
    PATHS,
    METHODS,
    HEADERS,
    st.sampled_from(["", "/", "/v1", "/mounted", "é\ud800"]),
    st.binary(max_size=20),
)
def test_any_request_gets_a_valid_answer(
    path: str, method: str, headers: Any, root_path: str, query: bytes
) -> None:
    raw = path.encode("utf-8", "surrogatepass")
    scope = http_scope(method) | {
        "path": path,
        "raw_path": raw,
        "root_path": root_path,
        "query_string": query,
        "headers": headers,
    }

    try:
        sent = asyncio.run(exchange(make_app(Switchboard(value=True)), scope, receive=empty))
    except Exception as error:  # Starlette's redirects cannot bear every query
        with pytest.raises(type(error)):
            asyncio.run(exchange(make_app(None), scope, receive=empty))
    else:
        check(sent, method)


@effort(100)
@given(PATHS, HEADERS, st.booleans())
def test_any_handshake_is_refused_in_order(path: str, headers: Any, denial: bool) -> None:
    scope = websocket_scope(denial=denial) | {
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "headers": headers,
    }

    sent = asyncio.run(exchange(make_app(Switchboard(value=True)), scope, receive=empty))

    assert [message["type"] for message in sent] in (
        ["websocket.close"],
        ["websocket.http.response.start", "websocket.http.response.body"],
    )


@effort(200)
@given(TEXT | st.none(), TEXT, st.none() | st.integers(0, 2**31 - 1), HEADERS)
def test_any_message_is_put_into_a_valid_answer(
    message: str | None, reason: str, retry_after: int | None, headers: Any
) -> None:
    class Board(Switchboard):
        async def read(self) -> Any:
            state = MaintenanceState(
                enabled=True, message=message, reason=reason, retry_after=retry_after
            )
            return self._local_reading(state)

    scope = http_scope("GET") | {"path": "/items/1", "headers": headers}

    sent = asyncio.run(exchange(make_app(Board()), scope, receive=empty))

    check(sent, "GET")
    assert sent[0]["status"] == 503


@effort(300)
@given(RANGES | st.binary(max_size=60))
def test_negotiation_ends_in_an_offer(accept: bytes) -> None:
    assert negotiate(accept.decode("latin-1"), ("application/json", "text/html")) in (
        "application/json",
        "text/html",
    )


# -- through a real server -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    """Where a closed application is served, and one that is not behind our middleware."""
    with serving(make_app(Switchboard(value=True))) as closed, serving(make_app(None)) as bare:
        yield int(closed.split(":")[1]), int(bare.split(":")[1])


@effort(60)
@given(st.sampled_from([b"GET", b"HEAD", b"POST", b"\xff", b"TRACE"]), PATHS, HEADERS)
def test_raw_bytes_never_get_a_500_of_ours(
    ports: tuple[int, int], method: bytes, path: str, headers: Any
) -> None:
    lines = [b"%s: %s" % field for field in headers]
    head = [
        b"%s %s HTTP/1.1" % (method, path.encode("utf-8", "surrogatepass")),
        b"host: h",
        *lines,
        b"connection: close",
        b"",
        b"",
    ]
    closed, bare = ports

    if status_of(closed, b"\r\n".join(head)) == b"500":
        assert status_of(bare, b"\r\n".join(head)) == b"500"


def status_of(port: int, request: bytes) -> bytes:
    """What a server answers first; nothing if it hangs up on what is no HTTP."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client, suppress(OSError):
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return client.recv(65536)[9:12]
    return b""
