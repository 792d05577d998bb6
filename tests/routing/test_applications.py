"""Routes of whole applications behind the middleware.

The docstring of a test names a fault that another package had in 2026.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.testclient import TestClient
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fastapi_maintenance import (
    force_maintenance_mode_off,
    force_maintenance_mode_on,
)
from fastapi_maintenance.routing import RouteTable

from ..support.shops import closable, shop

VARIABLE: Final = "FASTAPI_MAINTENANCE_MODE"


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maintenance is on where no backend is given."""
    monkeypatch.setenv(VARIABLE, "1")


@pytest.mark.parametrize("value", ["0", "1"])
def test_included_routers_and_mounts_are_matched(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """fastapi-maintenance 0.0.5 answers 500 to everything on FastAPI 0.137 and newer, once a
    router is included or anything is mounted.
    """
    monkeypatch.setenv(VARIABLE, value)
    app, router, inner = shop(), APIRouter(), FastAPI()
    router.add_api_route("/items", lambda: "items")
    inner.add_api_route("/items", lambda: "inner items")
    app.include_router(router, prefix="/api")
    app.mount("/inner", inner)
    client = TestClient(closable(app))

    for path in ("/", "/api/items", "/inner/items"):
        assert client.get(path).status_code == (503 if value == "1" else 200)


@pytest.mark.parametrize("where", ["behind a proxy", "on a mounted application"])
def test_root_path_does_not_bypass_maintenance(on: None, where: str) -> None:
    """fastapi-maintenance 0.0.5 matches with a component that it made without `root_path`,
    finds no such route and lets everybody pass.
    """
    if where == "behind a proxy":
        client = TestClient(closable(), root_path="/api")
    else:
        outer = FastAPI()
        outer.mount("/api", closable())
        client = TestClient(outer)

    assert client.get("/api/").status_code == 503


def test_root_path_does_not_close_forced_off_route(on: None) -> None:
    """waygate 0.2.0 has the mirror image of that fault: its always-active health route answers
    503 under a prefix.
    """
    client = TestClient(closable(), root_path="/api")

    assert client.get("/api/health").status_code == 200
    assert client.get("/health").status_code == 200


def test_mark_of_get_does_not_apply_to_post(on: None) -> None:
    """In fastapi-maintenance 0.0.5 a forced-off GET opens the POST of the same path, too."""
    app = shop()
    app.add_api_route("/items", force_maintenance_mode_off(lambda: None), methods=["GET"])
    app.add_api_route("/items", lambda: None, methods=["POST"])
    client = TestClient(closable(app))

    assert client.get("/items").status_code == 200
    assert client.post("/items").status_code == 503


def test_forced_on_parameter_route_does_not_close_exact_route() -> None:
    """In fastapi-maintenance 0.0.5 a forced-on /users/{id} also closes /users/me, although that
    is answered by another route.
    """
    app = shop()
    app.add_api_route("/users/me", force_maintenance_mode_off(lambda: None))
    app.add_api_route("/users/{id}", force_maintenance_mode_on(lambda: None))
    client = TestClient(closable(app))

    assert client.get("/users/me").status_code == 200
    assert client.get("/users/7").status_code == 503


def test_open_gate_matches_no_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """fastapi-maintenance 0.0.5 walks all routes for every path that it does not remember: half
    a millisecond with 60 of them.
    """
    matched: list[str] = []

    class Counted(Route):
        def matches(self, scope: Any) -> Any:
            matched.append(self.path)
            return super().matches(scope)

    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse("open")

    monkeypatch.delattr(RouteTable, "match")
    app = FastAPI(routes=[Counted(f"/{number}/{{id}}", answer) for number in range(60)])
    client = TestClient(closable(app))
    for id in range(3):
        assert client.get(f"/59/{id}").text == "open"

    assert len(matched) == 3 * 60


def test_documentation_is_exempt_at_docs_url(on: None) -> None:
    """fastapi-maintenance 0.0.5 knows four fixed paths, whatever the application's `docs_url`
    is.
    """
    client = TestClient(closable(shop(docs_url="/manual")))

    assert client.get("/manual").status_code == 200
    assert client.get("/docs").status_code == 404


def test_path_that_begins_like_docs_is_closed(on: None) -> None:
    """In waygate 0.2.0 whatever begins with "/docs" is open."""
    app = shop()
    app.add_api_route("/docs-export", lambda: None)
    client = TestClient(closable(app))

    assert client.get("/docs-export").status_code == 503
    assert client.get("/docs").status_code == 200


def test_slash_redirect_leads_to_refusal(on: None) -> None:
    """What the application itself says to a wrong address stays: whoever follows it is refused
    then.
    """
    app = shop()
    app.add_api_route("/items", lambda: None)
    client = TestClient(closable(app), follow_redirects=False)

    assert client.get("/items/").status_code == 307
    assert client.get("/items/", follow_redirects=True).status_code == 503
