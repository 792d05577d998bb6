"""The comparison of test suites, on a suite of a few lines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .__main__ import compare

SUITE = """
import secrets

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route


class Reads(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse("class")


class Custom(BaseRoute):
    def matches(self, scope):
        return (Match.FULL if scope["path"] == "/custom" else Match.NONE), {}

    async def handle(self, scope, receive, send):
        await PlainTextResponse("custom")(scope, receive, send)


def make_app():
    router, child, app = APIRouter(), FastAPI(), FastAPI(redirect_slashes=True)
    router.get("/included")(lambda: "included")
    child.get("/inner")(lambda: "inner")
    app.include_router(router, prefix="/api")
    app.get("/slash/")(lambda: "slash")
    app.routes.append(Custom())
    app.routes.append(Route("/class", Reads))
    app.mount("/child", child)
    app.mount("/raw", PlainTextResponse("raw"))

    @app.websocket("/ws")
    async def ws(websocket: WebSocket):
        await websocket.accept()
        await websocket.close()

    return app


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/api/included", 200),
        ("POST", "/api/included", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/custom", 200),
        ("GET", "/class", 200),
        ("POST", "/class", 405),
        ("GET", "/slash", 307),
        ("GET", "/child/inner", 200),
        ("GET", "/child/other", 404),
        ("GET", "/raw/x", 200),
        ("GET", "/docs", 200),
    ],
)
def test_answer(method, path, status):
    client = TestClient(make_app(), follow_redirects=False)
    assert client.request(method, path).status_code == status


def test_websocket():
    with TestClient(make_app()).websocket_connect("/ws"):
        pass


@pytest.mark.parametrize("token", [secrets.token_urlsafe(32)])
def test_random_parameter(token):
    pass


@pytest.mark.parametrize("backend", ["asyncio", ("trio", {})])
def test_of_one_loop(backend):
    assert backend == "asyncio"
"""

DIFFERENT = """
from fastapi import FastAPI
from fastapi.testclient import TestClient


def test_that_looks_at_its_middlewares():
    app = FastAPI()
    layer = app.build_middleware_stack()
    while layer is not None:
        assert type(layer).__name__ != "MaintenanceModeMiddleware"
        layer = getattr(layer, "app", None)


def test_of_a_host_that_a_middleware_changes():
    app, shop = FastAPI(), FastAPI()
    shop.get("/")(lambda: "shop")
    app.host("shop", shop)

    class Renames:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            await self.app({**scope, "headers": [(b"host", b"shop")]}, receive, send)

    app.add_middleware(Renames)
    assert TestClient(app).get("/").status_code == 200
"""


@pytest.fixture(autouse=True)
def without_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start faster."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def lines_of(suite: str, directory: Path) -> list[str]:
    """Compare a suite of one file."""
    (directory / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (directory / "test_suite.py").write_text(suite)
    return list(compare(sys.executable, directory, []))


def test_suite_unchanged_by_the_middleware_has_no_difference(tmp_path: Path) -> None:
    bare, outermost, asking, closed, row = lines_of(SUITE, tmp_path)

    assert bare.endswith("bare: 14 passed")
    assert outermost.endswith("open: 14 passed")
    assert asking.endswith("gate: 14 passed")
    assert "in 14 of 14 requests, 0 others" in closed
    assert row == f"| {tmp_path.name} | 14 passed | 14 passed | 14 of 14 |"


def test_suite_changed_by_the_middleware_names_differences(tmp_path: Path) -> None:
    _, _, _, _, outcome, request, _ = lines_of(DIFFERENT, tmp_path)

    assert outcome.startswith("DIFFERENT test_suite.py::test_that_looks_at_its_middlewares")
    assert outcome.endswith("passed, with the middleware failed")
    assert "GET '' '/' was let through, and an endpoint was reached" in request
