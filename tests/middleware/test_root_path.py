"""An application's own `root_path`: rules, the allow list, marks and docs see one path, wherever
the middleware stands.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from fastapi_maintenance import MaintenanceModeMiddleware, force_maintenance_mode_on
from fastapi_maintenance.exemptions import Path

from ..support.asgi import exchange, http_scope, sending
from ..support.doubles import Switchboard
from ..support.waiting import eventually

VARIABLE = "FASTAPI_MAINTENANCE_MODE"


def app_of(root_path: str = "/api") -> FastAPI:
    app = FastAPI()
    # As FastAPI(root_path=…), which warns that servers should be told instead.
    app.root_path = root_path

    @app.get("/health")
    @app.get("/items")
    async def endpoint() -> str:
        return "ok"

    @app.get("/closed")
    @force_maintenance_mode_on
    async def closed() -> None: ...

    return app


def added(app: FastAPI, **options: Any) -> ASGIApp:
    app.add_middleware(MaintenanceModeMiddleware, **options)
    return app


def wrapped(app: FastAPI, **options: Any) -> ASGIApp:
    return MaintenanceModeMiddleware(app, **options)


def twice(app: FastAPI, **options: Any) -> ASGIApp:
    """Wrapped, with another middleware between."""

    class Between:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, *call: Any) -> None:
            await self.app(*call)

    return MaintenanceModeMiddleware(Between(app), **options)


How = Callable[..., ASGIApp]


@pytest.fixture(params=[added, wrapped, twice])
def how(request: pytest.FixtureRequest) -> How:
    place: How = request.param
    return place


@pytest.mark.parametrize("prefix", ["/api", ""])
def test_path_rule_sees_the_path_beneath_it(
    monkeypatch: pytest.MonkeyPatch, how: How, prefix: str
) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    client = TestClient(how(app_of(), exempt_handler=Path("/health", "/closed")))
    statuses = {
        path: client.get(prefix + path).status_code
        for path in ("/health", "/items", "/closed", "/docs", "/openapi.json")
    }
    assert statuses == {
        "/health": 200,
        "/items": 503,
        "/closed": 503,
        "/docs": 200,
        "/openapi.json": 200,
    }


def test_allow_list_sees_the_path_beneath_it(monkeypatch: pytest.MonkeyPatch, how: How) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps({"enabled": True, "allow": ["/health"]}))
    client = TestClient(how(app_of()))
    assert [
        client.get(f"/api{path}").status_code for path in ("/health", "/items", "/api/health")
    ] == [200, 503, 404]


def test_handlers_see_the_root_path(monkeypatch: pytest.MonkeyPatch, how: How) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    seen: list[tuple[str, str]] = []

    def handler(connection: HTTPConnection) -> bool:
        seen.append((connection.scope["root_path"], str(connection.base_url)))
        connection.state.seen = True
        return True

    app = app_of()

    @app.get("/state")
    async def state(request: HTTPConnection) -> bool:
        seen_there: bool = request.state.seen
        return seen_there

    assert TestClient(how(app, exempt_handler=handler)).get("/api/state").json() is True
    assert seen == [("/api", "http://testserver/api/")]


async def test_request_in_flight_is_classified_beneath_it() -> None:
    app, board, running, done = app_of(), Switchboard(ttl=0.1), asyncio.Event(), asyncio.Event()

    @app.get("/slow")
    async def slow() -> None:
        running.set()
        await done.wait()

    middleware = MaintenanceModeMiddleware(app, backend=board, exempt_handler=Path("/slow"))
    async with middleware.mode as mode:
        scope = http_scope(path="/api/slow")
        request = asyncio.create_task(
            exchange(middleware, scope, receive=sending({"type": "http.request"}))
        )
        await asyncio.wait_for(running.wait(), 10)
        board.value = True
        await eventually(lambda: not mode.gate.is_open, within=30)
        await eventually(lambda: mode.requests.is_drained(mode.gate), within=30)
        done.set()
        await request
