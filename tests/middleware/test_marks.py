"""Marks end to end: the requests that a closed service admits or refuses because of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.testclient import TestClient, WebSocketDenialResponse

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_mark,
    maintenance_reads,
    maintenance_writes,
)

VARIABLE = "FASTAPI_MAINTENANCE_MODE"


def test_newline_opens_no_closed_route(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware)
    ran: list[str] = []

    @app.post("/api/orders")
    async def orders() -> None:
        ran.append("orders")

    @app.post("/api/never")
    @force_maintenance_mode_on
    async def never() -> None:
        ran.append("never")

    @app.post("/api/{rest:path}")
    @force_maintenance_mode_off
    async def rest() -> None:
        ran.append("rest")

    client = TestClient(app)
    paths = ("/api/orders%0A", "/api/never%0A", "/api/rest%0A")
    assert [client.post(path).status_code for path in paths] == [200, 503, 200]
    monkeypatch.setenv(VARIABLE, "1")
    assert [client.post(path).status_code for path in paths] == [503, 503, 200]
    assert ran == ["orders", "rest", "rest"]


def test_effect_decides_what_read_only_mode_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware)
    readers = APIRouter(prefix="/readers", dependencies=[maintenance_mark(maintenance_reads)])

    @app.post("/search")
    @maintenance_reads
    async def search() -> None: ...

    @app.get("/unsubscribe")
    @maintenance_writes
    async def unsubscribe() -> None: ...

    @readers.post("/graphql")
    async def graphql() -> None: ...

    @readers.get("/visit")
    @maintenance_writes
    async def visit() -> None: ...

    @readers.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    @app.websocket("/chat")
    async def chat(websocket: WebSocket) -> None: ...

    app.include_router(readers)
    monkeypatch.setenv(VARIABLE, json.dumps({"enabled": True, "mode": "read-only"}))
    client = TestClient(app)
    posts, gets = ("/search", "/readers/graphql"), ("/unsubscribe", "/readers/visit")
    assert [client.post(path).status_code for path in posts] == [200, 200]
    assert [client.get(path).status_code for path in gets] == [503, 503]
    with client.websocket_connect("/readers/live"):
        pass
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/chat"):
        pass
    monkeypatch.setenv(VARIABLE, "1")
    assert [client.post(path).status_code for path in posts] == [503, 503]


@pytest.mark.may_block  # Starlette reads the table of media types
def test_frontend_of_a_marked_router_is_marked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not hasattr(FastAPI, "frontend"):  # pragma: no cover - only with FastAPI older than 0.138
        pytest.skip("this FastAPI has no frontends")
    (tmp_path / "app.js").write_text("go()")
    app, router = FastAPI(), force_maintenance_mode_off(APIRouter())
    app.add_middleware(MaintenanceModeMiddleware)
    router.frontend("/ui", directory=tmp_path)
    app.frontend("/", directory=tmp_path)
    app.include_router(router)
    monkeypatch.setenv(VARIABLE, "1")
    client = TestClient(app)
    assert [client.get(path).status_code for path in ("/ui/app.js", "/app.js")] == [200, 503]
