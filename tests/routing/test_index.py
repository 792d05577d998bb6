"""The route index: what it finds by lookup, and when the routes must be asked."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.convertors import CONVERTOR_TYPES, StringConvertor
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Match, Mount, Route, Router
from starlette.types import Scope

from fastapi_maintenance import (
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_component,
)
from fastapi_maintenance.routing import RouteMatch, RouteTable, table
from fastapi_maintenance.routing.resolver import resolve as ask

from ..support.asgi import http_scope, websocket_scope

FREE = RouteMatch(found=True)
ON = RouteMatch(found=True, mark="on")
OFF = RouteMatch(found=True, mark="off")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths for which the routes were asked in turn."""
    paths: list[str] = []

    def resolving(app: object, scope: Scope) -> RouteMatch:
        paths.append(scope["path"])
        return ask(app, scope)

    monkeypatch.setattr(table, "resolve", resolving)
    return paths


async def free() -> None: ...


@force_maintenance_mode_on
async def closed() -> None: ...


@force_maintenance_mode_off
async def spared() -> None: ...


def resolve(routes: RouteTable, path: str, method: str = "GET", **more: Any) -> RouteMatch:
    return routes.match(http_scope(method, path=path, **more))


def test_index_with_a_thousand_routes_asks_none(asked: list[str]) -> None:
    app = FastAPI()
    for number in range(1000):
        app.get(f"/things-{number}/{{id}}/parts")(closed if number == 998 else free)
        app.post(f"/things-{number}/{{id}}/parts")(spared)
    routes = RouteTable(app)
    assert resolve(routes, "/things-998/7/parts") == ON
    assert resolve(routes, "/things-999/7/parts") == FREE
    assert resolve(routes, "/things-999/7/parts", "POST") == OFF
    assert asked == []
    assert (
        resolve(routes, "/things-999/7/parts", "PUT")
        == resolve(routes, "/nowhere")
        == RouteMatch(found=False)
    )
    assert asked == ["/things-999/7/parts", "/nowhere"]


def test_index_finds_included_and_mounted_routes(asked: list[str]) -> None:
    inner = maintenance_component("billing")(APIRouter())
    inner.get("/{id}")(free)
    inner.websocket("/live")(closed)
    outer = APIRouter()
    outer.include_router(inner, prefix="/bills")
    below = FastAPI()
    below.get("/")(free)
    app = FastAPI()
    app.include_router(outer, prefix="/v1")
    app.mount("/below", maintenance_component("below")(below))
    app.mount("/files", PlainTextResponse("x"))
    routes = RouteTable(app)
    assert resolve(routes, "/v1/bills/7") == RouteMatch(found=True, component="billing")
    assert routes.match(websocket_scope(path="/v1/bills/live")) == RouteMatch(
        found=True, mark="on", component="billing"
    )
    assert resolve(routes, "/below/") == RouteMatch(found=True, component="below")
    assert resolve(routes, "/below/docs") == RouteMatch(found=True, component="below", docs=True)
    assert resolve(routes, "/files/any/thing", "BREW") == FREE
    assert resolve(routes, "/api/v1/bills/7", root_path="/api") == RouteMatch(
        found=True, component="billing"
    )
    assert asked == []


def test_index_returns_the_first_route_that_matches(asked: list[str]) -> None:
    app = FastAPI()
    app.get("/a/{x}/c")(free)
    app.get("/{rest:path}")(closed)
    app.get("/a/b/c")(spared)
    routes = RouteTable(app)
    assert [resolve(routes, path) for path in ("/a/b/c", "/a/b/d", "/")] == [FREE, ON, ON]
    assert asked == []


class Resource(HTTPEndpoint):
    async def get(self, request: object) -> None: ...

    @force_maintenance_mode_on
    async def query(self, request: object) -> None: ...


def test_index_keeps_matches_of_standard_methods_only(asked: list[str]) -> None:
    routes = RouteTable(Router([Route("/", Resource)]))
    for _ in range(2):
        assert [resolve(routes, "/", method) for method in ("GET", "POST", "QUERY")] == [
            FREE,
            RouteMatch(found=False),
            ON,
        ]
    assert asked == []
    blocks = sys.getallocatedblocks()
    for number in range(1000):
        resolve(routes, "/", f"METHOD-{number}")
    assert sys.getallocatedblocks() - blocks < 1000


# -- who may choose as they like ---


class Picky(APIRoute):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (
            super().matches(scope) if (b"x-picky", b"yes") in scope["headers"] else (Match.NONE, {})
        )


class PickyRouter(APIRouter):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (
            super().matches(scope) if (b"x-picky", b"yes") in scope["headers"] else (Match.NONE, {})
        )


class OddConvertor(StringConvertor):
    """Registered by a user."""


@pytest.fixture
def odd_convertor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONVERTOR_TYPES, "odd", OddConvertor())


def picky(kind: str) -> FastAPI:
    """Its second route is closed, but only for those whom it picks."""
    app = FastAPI()
    app.get("/first")(free)
    if kind == "route":
        app.router.add_api_route("/second", closed, route_class_override=Picky)
    elif kind == "router":
        router = PickyRouter()
        router.get("/second")(closed)
        app.include_router(router)
    else:
        app.router.routes.append(Host("picky", Router([Route("/second", closed)])))
    app.get("/second")(spared)
    return app


@pytest.mark.parametrize("kind", ["route", "router", "host"])
def test_routes_behind_a_custom_matching_one_are_asked(asked: list[str], kind: str) -> None:
    routes = RouteTable(picky(kind))
    assert resolve(routes, "/first") == FREE
    assert asked == []
    picked: dict[str, Any] = {"headers": [("x-picky", "yes"), ("host", "picky")]}
    assert (resolve(routes, "/second"), resolve(routes, "/second", **picked)) == (OFF, ON)
    assert asked == ["/second", "/second"]


def test_docs_behind_a_custom_matching_route_are_found(asked: list[str]) -> None:
    app = FastAPI(routes=[Host("elsewhere", Router())])
    app.post("/docs")(free)
    routes = RouteTable(app)
    assert (resolve(routes, "/docs"), resolve(routes, "/docs", "HEAD")) == (
        RouteMatch(found=True, docs=True),
    ) * 2
    assert resolve(routes, "/docs", "POST") == FREE
    assert asked == ["/docs"] * 3


@pytest.mark.usefixtures("odd_convertor")
def test_routes_with_a_custom_expression_are_asked(asked: list[str]) -> None:
    app = FastAPI()
    app.get("/Case")(closed)
    app.get("/{any}")(spared)
    (route,) = (
        route
        for route in app.router.routes
        if isinstance(route, APIRoute) and route.path == "/Case"
    )
    route.path_regex = re.compile(route.path_regex.pattern, re.IGNORECASE)
    odd = FastAPI()
    odd.get("/{x:odd}")(closed)
    assert (resolve(RouteTable(app), "/cASE"), resolve(RouteTable(odd), "/x")) == (ON, ON)
    assert asked == ["/cASE", "/x"]


# -- what changes ---


def test_route_replaced_or_moved_is_matched_anew(asked: list[str]) -> None:
    inner = Router([Route("/a", free), Route("/b", free)])
    routes = RouteTable(Router([Mount("/in", inner), Route("/c", free)]))
    assert [resolve(routes, path) for path in ("/in/a", "/in/b")] == [FREE, FREE]
    assert asked == []
    inner.routes[0] = Route("/a", closed)
    assert resolve(routes, "/in/a") == ON
    del inner.routes[0]
    routes_left = [route.path for route in inner.routes if isinstance(route, Route)]
    assert (routes_left, resolve(routes, "/in/b")) == (["/b"], FREE)


def test_router_that_only_the_framework_knows_is_asked(asked: list[str]) -> None:
    """FastAPI keeps what it made of an included router until that is told of a new route."""
    picky, other, outer, holder, app = (
        PickyRouter(),
        APIRouter(),
        APIRouter(),
        APIRouter(),
        FastAPI(),
    )
    picky.get("/a")(closed)
    other.get("/b")(closed)
    holder.include_router(other)
    outer.include_router(picky)
    outer.get("/{x}")(spared)
    app.include_router(outer)
    routes = RouteTable(app)
    assert resolve(routes, "/a") == OFF
    outer.routes[0] = holder.routes[0]
    assert (resolve(routes, "/a"), resolve(routes, "/a", headers=[("x-picky", "yes")])) == (OFF, ON)


def test_equal_route_with_another_mark_is_asked(asked: list[str]) -> None:
    router = Router([Route("/a", free), Route("/b", free)])
    routes = RouteTable(router)
    assert resolve(routes, "/a") == FREE
    router.routes[0] = force_maintenance_mode_on(Route("/a", free))
    assert resolve(routes, "/a") == ON
    assert asked == ["/a"]


def test_removed_routes_are_not_found() -> None:
    inner, other = Router([Route("/a", free)]), Router([Route("/x", free)])
    routes = RouteTable(Router([Mount("/in", inner), Mount("/other", other)]))
    assert resolve(routes, "/in/a") == FREE
    inner.routes.clear()
    other.routes.append(Route("/y", free))  # as many as before, all in all
    assert resolve(routes, "/in/a") == RouteMatch(found=False)


def test_docs_of_two_applications_are_told_apart(asked: list[str]) -> None:
    first, second = FastAPI(), FastAPI(docs_url="/first-docs")
    second.get("/docs")(free)
    routes = RouteTable(first.router)
    assert resolve(routes, "/docs", app=first) == RouteMatch(found=True, docs=True)
    assert resolve(routes, "/docs", app=second) == FREE
    assert asked == []
