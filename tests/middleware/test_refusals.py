"""Which requests are refused, and with what.

The docstring of a test names a fault that another package had in 2026.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from fastapi import WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection
from starlette.testclient import WebSocketDenialResponse

from fastapi_maintenance import (
    ResponseOptions,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import LocalFileBackend
from fastapi_maintenance.exemptions import Header, Network
from fastapi_maintenance.exemptions.bypass import Bypass

from ..support.doubles import Switchboard
from ..support.shops import SOON, becomes, closable, shop
from ..support.waiting import eventually_sync

VARIABLE: Final = "FASTAPI_MAINTENANCE_MODE"


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maintenance is on where no backend is given."""
    monkeypatch.setenv(VARIABLE, "1")


def test_error_of_backend_is_no_error_of_request() -> None:
    """In fastapi-maintenance 0.0.5 it makes every request a 500."""
    board = Switchboard(True)
    with TestClient(closable(backend=board)) as client:
        board.error, reads = LookupError("no such row"), board.reads
        eventually_sync(lambda: board.reads > reads + 1, within=SOON)
        assert client.get("/").status_code == 503
        board.value = False
        board.error = None
        becomes(client, 200)


def test_websocket_is_refused(on: None) -> None:
    """fastapi-maintenance 0.0.5 is a BaseHTTPMiddleware, and those never see them."""
    app = shop()

    @app.websocket("/talk")
    async def talk(websocket: WebSocket) -> None: ...

    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        TestClient(closable(app)).websocket_connect("/talk"),
    ):
        ...
    assert denied.value.status_code == 503


def test_refusal_has_cors_headers_inside_cors_middleware(on: None) -> None:
    """With the order that fastapi-maintenance 0.0.5's documentation recommends, the preflight
    says 200 and the browser cannot read the 503.
    """
    app = closable()
    app.add_middleware(CORSMiddleware, allow_origins=["*"])

    assert (
        TestClient(app)
        .get("/", headers={"origin": "https://shop.example"})
        .headers["access-control-allow-origin"]
        == "*"
    )


def test_refusal_is_not_cached(on: None) -> None:
    """fastapi-maintenance 0.0.5 sends no Cache-Control, so a cache may keep the site closed."""
    assert TestClient(closable()).get("/").headers["cache-control"] == "no-store"


def test_refusal_shows_the_state_that_decided(tmp_path: Path) -> None:
    """Laravel asks whether it is down and then reads how, and fails where it came up in
    between.
    """
    path = tmp_path / "switch"
    path.write_text('{"enabled": true, "message": "until four", "retry_after": 7}')

    async def opens(connection: HTTPConnection) -> bool:
        await set_maintenance_mode(False)
        return False

    with TestClient(closable(backend=LocalFileBackend(path), exempt_handler=opens)) as client:
        answer = client.get("/")
        assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (
            503,
            {"detail": "until four"},
            "7",
        )
        assert client.get("/").status_code == 200


def test_exempt_address_is_no_pattern(on: None) -> None:
    """Django's list takes 10.0.0.1 for a regular expression, unanchored and with dots for
    anything.
    """
    app = closable(exempt_handler=Network("10.0.0.1"))
    addresses = ("10.0.0.1", "10.0.0.199", "10.0.0.10", "10.0.011", "1050.0.0.1", "110.0.0.1")

    assert [
        TestClient(app, client=(address, 50000)).get("/").status_code for address in addresses
    ] == [200] + [503] * 5


def test_page_from_file_does_not_close_exempt_requests(on: None, tmp_path: Path) -> None:
    """Laravel's pre-rendered page overlooked what is exempt."""
    page = tmp_path / "page.html"
    page.write_text("<!doctype html>closed")
    client = TestClient(
        closable(response=ResponseOptions(file=page), exempt_handler=Header("x-ticket")),
        headers={"accept": "text/html"},
    )

    assert (client.get("/").status_code, client.get("/").text) == (503, "<!doctype html>closed")
    assert [client.get(path).status_code for path in ("/health", "/docs")] == [200, 200]
    assert client.get("/", headers={"x-ticket": "gold"}).json() == "open"


@pytest.mark.parametrize(
    "cookie",
    [
        "maintenance_bypass[mac]=1",
        "maintenance_bypass=",
        "maintenance_bypass",
        "maintenance_bypass=e30=.x.y",
    ],
)
def test_malformed_bypass_cookie_is_refused(cookie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of an odd shape was a fatal error in Laravel."""
    record = '{"id": "a", "until": "2100-01-01T00:00:00Z"}'
    monkeypatch.setenv(VARIABLE, f'{{"enabled": true, "bypass": [{record}]}}')
    client = TestClient(closable(bypass=Bypass("0123456789abcdef0123456789abcdef")))

    assert client.get("/", headers={"cookie": cookie}).status_code == 503


@pytest.mark.parametrize(("exempt", "status"), [(True, 200), (False, 503)])
def test_exempt_handler_is_not_inverted(on: None, exempt: bool, status: int) -> None:
    """An inverted check was released by Shopware, and nobody noticed."""
    assert TestClient(closable(exempt_handler=lambda _: exempt)).get("/").status_code == status
