"""The answer as real servers send it: uvicorn, and hypercorn, which reads ASGI in its own way and
speaks HTTP/2 too.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send
from uvicorn.config import WSProtocolType
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastapi_maintenance import MaintenanceModeMiddleware, ResponseOptions
from fastapi_maintenance.responses.content import DETAIL
from fastapi_maintenance.responses.renderers import HTML, JSON, MEDIA_TYPES, PLAIN, PROBLEM
from fastapi_maintenance.responses.translations import TRANSLATIONS

from ..support.serving import SERVERS, WEBSOCKETS, serving
from .asking import CHROME, FIREFOX, response_to

VARIABLE = "FASTAPI_MAINTENANCE_MODE"


def shop(**options: Any) -> FastAPI:
    """An application behind the middleware, whose switch is the environment variable."""
    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware,
        response=ResponseOptions(**{"jitter": 5, "read_only_status_code": 423} | options),
    )

    @app.api_route("/items", methods=["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
    async def items() -> str:
        return "items"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"one", b"two"]))

    @app.websocket("/ws")
    async def ws() -> None: ...

    return app


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where one of the servers serves it."""
    with SERVERS[request.param](shop()) as address:
        yield address


ServerOf = Callable[[FastAPI], str]


@pytest.fixture(params=SERVERS)
def server_of(request: pytest.FixtureRequest) -> Iterator[ServerOf]:
    """Has one of the servers serve an application, and says where."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(SERVERS[request.param](app))


@pytest.fixture(autouse=True)
def _on(monkeypatch: pytest.MonkeyPatch) -> None:
    end = datetime.now(UTC) + timedelta(minutes=10)
    state = {"enabled": True, "message": "Zurück um 04:00", "ends_at": end.isoformat()}
    monkeypatch.setenv(VARIABLE, json.dumps(state))


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", JSON),
        ("application/json", JSON),
        ("application/problem+json", PROBLEM),
        (CHROME, f"{HTML}; charset=utf-8"),
        (FIREFOX, f"{HTML}; charset=utf-8"),
        ("text/plain", f"{PLAIN}; charset=utf-8"),
        ("text/plain;q=0.2, text/html;q=0.3, application/json;q=0.1", f"{HTML}; charset=utf-8"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_server_every_client_gets_its_503(
    server: str, method: str, accept: str, content_type: str
) -> None:
    reply = httpx2.request(method, f"http://{server}/items", headers={"accept": accept})
    assert reply.status_code == 503
    assert reply.headers["content-type"] == content_type
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["vary"].startswith("accept")
    assert reply.headers["x-maintenance-mode"].startswith("full;ends_at=@")
    assert 590 <= int(reply.headers["retry-after"]) <= 605
    assert ("Zurück um 04:00" in reply.text) == (method != "HEAD")


def test_server_retry_after_is_spread_after_end(server: str) -> None:
    with httpx2.Client(base_url=f"http://{server}") as client:
        seen = {client.get("/items").headers["retry-after"] for _ in range(40)}
    assert len(seen) >= 3


def test_server_head_leaves_connection_usable(server: str) -> None:
    with httpx2.Client(base_url=f"http://{server}") as client:
        head, get = client.head("/items"), client.get("/items")
        posted = client.post("/items", content=b"x" * 1_000_000)
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))
    assert [reply.status_code for reply in (head, get, posted)] == [503] * 3


def test_server_answers_before_body_is_sent(server: str) -> None:
    host, _, port = server.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"POST /items HTTP/1.1\r\nHost: {server}\r\nContent-Length: "
            "1000000\r\n\r\nfirst".encode()
        )
        assert connection.recv(12) == b"HTTP/1.1 503"


def test_server_refuses_streams(server: str) -> None:
    with httpx2.stream("GET", f"http://{server}/stream") as reply:
        assert reply.status_code == 503
        assert json.loads(reply.read()) == {"detail": "Zurück um 04:00"}


def test_server_in_read_only_mode_refuses_writes(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, '{"enabled": true, "mode": "read-only"}')
    statuses = {
        method: httpx2.request(method, f"http://{server}/items").status_code
        for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT")
    }
    assert statuses == {"GET": 200, "HEAD": 200, "OPTIONS": 200, "POST": 423, "PUT": 423}
    refused = httpx2.post(f"http://{server}/items")
    assert refused.json() == {
        "detail": "Service temporarily read-only due to maintenance",
        "mode": "read-only",
    }
    assert refused.headers["x-maintenance-mode"] == "read-only"
    assert refused.headers["retry-after"] == "3600"


@pytest.mark.parametrize(
    ("status", "allow"), [(None, None), (503, None), (405, "GET, HEAD, OPTIONS, TRACE")]
)
def test_server_in_read_only_mode_uses_chosen_status(
    monkeypatch: pytest.MonkeyPatch, status: int | None, allow: str | None
) -> None:
    monkeypatch.setenv(VARIABLE, '{"enabled": true, "mode": "read-only"}')
    with serving(shop(read_only_status_code=status)) as address:
        refused = httpx2.delete(f"http://{address}/items")
        assert httpx2.get(f"http://{address}/items").status_code == 200
    assert (refused.status_code, refused.headers.get("allow")) == (status or 503, allow)
    assert refused.json() == {
        "detail": "Service temporarily read-only due to maintenance",
        "mode": "read-only",
    }


def test_server_options_apply_to_every_client(server_of: ServerOf, tmp_path: Path) -> None:
    template, file = tmp_path / "page.html.jinja2", tmp_path / "page.html"
    template.write_text("<!doctype html><p>{{ message }}, says the template")
    file.write_text("<!doctype html><p>as it stands")
    asked = {
        "status": server_of(
            shop(status_code=500, headers={"X-By": "us", "Cache-Control": "no-cache"})
        ),
        "redirect": server_of(shop(redirect="https://status.example/")),
        "template": server_of(shop(template=template)),
        "file": server_of(shop(file=file)),
        "date": server_of(shop(retry_after_as_date=True, refresh=30)),
        "texts": server_of(
            shop(translations={"fi": replace(TRANSLATIONS["en"], title="Huoltokatko")})
        ),
    }
    template.unlink()
    file.unlink()
    replies = {
        name: httpx2.get(
            f"http://{address}/items", headers={"accept": CHROME, "accept-language": "fi, en;q=0.5"}
        )
        for name, address in asked.items()
    }

    assert (replies["status"].status_code, replies["status"].headers["x-by"]) == (500, "us")
    assert replies["status"].headers["cache-control"] == "no-cache"
    assert (replies["redirect"].status_code, replies["redirect"].headers["location"]) == (
        302,
        "https://status.example/",
    )
    assert httpx2.get(f"http://{asked['redirect']}/items").status_code == 503, (
        "programs are not sent there"
    )
    assert replies["template"].text == "<!doctype html><p>Zurück um 04:00, says the template"
    assert replies["file"].text == "<!doctype html><p>as it stands"
    assert '<html lang="fi"' in replies["texts"].text
    assert "Huoltokatko</h1>" in replies["texts"].text
    assert {replies[name].status_code for name in ("template", "file", "date")} == {503}
    at = parsedate_to_datetime(replies["date"].headers["retry-after"])
    assert timedelta(minutes=9) < at - datetime.now(UTC) < timedelta(minutes=11)
    assert replies["date"].headers["refresh"] == "30"


def test_server_response_handler_makes_whole_response(server_of: ServerOf) -> None:
    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware,
        response_handler=lambda request: PlainTextResponse(f"no {request.url.path}", 418),
    )
    app.add_api_route("/items", lambda: None)
    reply = httpx2.get(f"http://{server_of(app)}/items")
    assert (reply.status_code, reply.text) == (418, "no /items")


def test_server_websocket_client_sees_503(server: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{server}/ws", additional_headers={"accept": "application/problem+json"})
    reply = refused.value.response
    assert reply.status_code == 503
    assert reply.headers["content-type"] == PROBLEM
    assert reply.headers["x-maintenance-mode"].startswith("full")
    assert json.loads(reply.body)["detail"] == "Zurück um 04:00"


def test_server_over_http_2_is_the_same() -> None:
    with (
        SERVERS["hypercorn"](shop()) as address,
        httpx2.Client(base_url=f"http://{address}", http1=False, http2=True) as client,
    ):
        for accept in MEDIA_TYPES:
            reply = client.get("/items", headers={"accept": accept})
            assert (reply.http_version, reply.status_code) == ("HTTP/2", 503)
            assert reply.headers["content-type"].startswith(accept)
            assert reply.headers["x-maintenance-mode"].startswith("full")


# -- each of uvicorn's own ways with WebSockets ----------------------------------------------------


@pytest.mark.parametrize("ws", WEBSOCKETS)
def test_real_server_websocket_client_sees_503(
    ws: WSProtocolType, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(response_to(), ws=ws) as address, pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{address}/ws")
    reply = refused.value.response
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "3600"
    assert reply.headers["content-type"] == JSON
    assert json.loads(reply.body) == {"detail": DETAIL}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("ws", WEBSOCKETS)
def test_real_server_without_extension_websocket_sees_403(
    ws: WSProtocolType, caplog: pytest.LogCaptureFixture
) -> None:
    async def without_extensions(scope: Scope, receive: Receive, send: Send) -> None:
        await response_to()({**scope, "extensions": {}}, receive, send)

    with serving(without_extensions, ws=ws) as address, pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{address}/ws")
    assert refused.value.response.status_code == 403
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
