"""The endpoint that is matched before routing, compared with what the app then does."""

from __future__ import annotations

import asyncio
import copy
import functools
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.routing import APIRoute, iter_route_contexts
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.convertors import CONVERTOR_TYPES, StringConvertor
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from fastapi_maintenance import (
    maintenance_component,
    maintenance_mark,
    maintenance_reads,
    maintenance_writes,
)
from fastapi_maintenance.decorators import Marks
from fastapi_maintenance.decorators import force_maintenance_mode_off as off
from fastapi_maintenance.decorators import force_maintenance_mode_on as on
from fastapi_maintenance.routing import RouteMatch, RouteTable
from fastapi_maintenance.routing.resolver import resolve

from ..support.asgi import http_scope

Place = Literal["outside", "inside"]
NOBODY_THERE = frozenset({307, 404, 405})  # no endpoint of these tests answers so

FREE = RouteMatch(found=True)
ON = RouteMatch(found=True, mark="on")
OFF = RouteMatch(found=True, mark="off")
DOCS = RouteMatch(found=True, docs=True)
NOT_FOUND = RouteMatch(found=False)


# -- a stand-in for the middleware ---


@dataclass
class Note:
    """The match of one request."""

    resolved: RouteMatch
    forced_on: bool


class Probe:
    """Stands where the middleware would stand; resolves every request, then lets it through."""

    def __init__(self, app: ASGIApp, notes: list[Note]) -> None:
        self.app = app
        self.table = RouteTable(app)
        self.notes = notes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        before = {
            key: copy.copy(value) if isinstance(value, dict | list) else value
            for key, value in scope.items()
        }
        resolved, forced_on = self.table.match(scope), self.table.scan(scope).forced_on
        assert dict(scope) == before, "resolving must leave the scope alone"
        self.notes.append(Note(resolved, forced_on))
        await self.app(scope, receive, send)


@dataclass
class Site:
    """An app with a probe in it or around it, and a client that visits it."""

    app: ASGIApp
    place: Place = "outside"
    root_path: str = ""
    notes: list[Note] = field(default_factory=list)
    status: int = 0

    def __post_init__(self) -> None:
        app = self.app
        if self.place == "inside":
            assert isinstance(app, Starlette)
            app.add_middleware(Probe, notes=self.notes)
        else:
            app = Probe(app, self.notes)
        self.client = TestClient(
            app, root_path=self.root_path, raise_server_exceptions=False, follow_redirects=False
        )

    def ask(self, path: str, method: str = "GET", *, host: str = "testserver") -> RouteMatch:
        """Match, and check the result against the status of the app's answer."""
        self.status = self.client.request(method, path, headers={"host": host}).status_code
        note = self.notes.pop()
        assert note.resolved.found is (self.status not in NOBODY_THERE), (
            f"{note.resolved} but {self.status}"
        )
        return note.resolved

    def ask_websocket(self, path: str) -> RouteMatch:
        try:
            with self.client.websocket_connect(path):
                accepted = True
        except WebSocketDisconnect:
            accepted = False
        note = self.notes.pop()
        assert note.resolved.found is accepted
        return note.resolved

    def has_forced_on(self, path: str = "/somewhere/else") -> bool:
        self.client.get(path)
        return self.notes.pop().forced_on


Visit = Callable[..., Site]


@pytest.fixture(params=["outside", "inside"])
def visit(request: pytest.FixtureRequest) -> Visit:
    """Makes sites with the middleware wrapped around the app, and added to the app."""
    return functools.partial(Site, place=request.param)


# -- endpoints ---


async def free() -> str:
    return "free"


@on
async def forced_on() -> str:
    return "on"


@off
async def forced_off() -> str:
    return "off"


async def text(request: Request) -> Response:
    return PlainTextResponse("free")


@on
async def text_on(request: Request) -> Response:
    return PlainTextResponse("on")


@off
async def text_off(request: Request) -> Response:
    return PlainTextResponse("off")


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


talk_on = on(functools.partial(talk))


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that is nothing but a function."""
    await PlainTextResponse("bare")(scope, receive, send)


def closure(app: ASGIApp) -> ASGIApp:
    """A middleware that hides what it wraps."""

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return inner


class Layer:
    """A middleware that keeps what it wraps as `app`, as most do."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Resource(HTTPEndpoint):
    @on
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("on")

    async def post(self, request: Request) -> Response:
        return PlainTextResponse("free")

    @off
    async def put(self, request: Request) -> Response:
        return PlainTextResponse("off")


@pytest.mark.parametrize(("method", "found"), [("GET", True), ("DELETE", False)])
def test_class_endpoint_behind_a_host_rejects_its_methods(method: str, found: bool) -> None:
    """A host is not looked up: its routes are asked in order."""
    table = RouteTable(Router([Host("b.example", Router([Route("/items", Resource)]))]))

    assert table.match(http_scope(method, {"host": "b.example"})).found is found


# -- decorators and what they stand on ---


def test_decorator_works_above_and_below_the_route_decorator(visit: Visit) -> None:
    app = FastAPI()

    @on
    @app.get("/above")
    async def above() -> None: ...

    @app.get("/below")
    @on
    async def below() -> None: ...

    @off
    @app.get("/off/above")
    async def off_above() -> None: ...

    @app.get("/off/below")
    @off
    async def off_below() -> None: ...

    site = visit(app)

    assert site.ask("/above") == site.ask("/below") == ON
    assert site.ask("/off/above") == site.ask("/off/below") == OFF


def test_endpoint_sync_or_async_is_matched(visit: Visit) -> None:
    app = FastAPI()

    @app.get("/sync/on")
    @on
    def sync_on() -> None: ...

    @app.get("/sync/off")
    @off
    def sync_off() -> None: ...

    @app.get("/sync")
    def sync() -> None: ...

    app.add_api_route("/async/on", forced_on)
    site = visit(app)

    assert site.ask("/sync/on") == site.ask("/async/on") == ON
    assert site.ask("/sync/off") == OFF
    assert site.ask("/sync") == FREE


def test_endpoint_of_any_callable_kind_is_matched(visit: Visit) -> None:
    class Service:
        @on
        async def method(self) -> None: ...

        @on
        async def __call__(self) -> None: ...

    app = FastAPI()
    app.add_api_route("/partial", functools.partial(forced_on))
    app.add_api_route("/method", Service().method)
    app.add_api_route("/object", Service())
    site = visit(app)

    assert site.ask("/partial") == site.ask("/method") == site.ask("/object") == ON


def test_endpoint_behind_a_wrapping_decorator_is_matched(visit: Visit) -> None:
    def logged(endpoint: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[str]]:
        @functools.wraps(endpoint)
        async def wrapper(*args: Any, **kwargs: Any) -> str:
            return await endpoint(*args, **kwargs)

        return wrapper

    app = FastAPI()
    app.get("/on")(logged(forced_on))
    app.get("/off")(off(logged(forced_on)))
    site = visit(app)

    assert site.ask("/on") == ON
    assert site.ask("/off") == OFF


@pytest.mark.parametrize("included", [True, False])
def test_mark_of_one_method_leaves_the_others(visit: Visit, included: bool) -> None:
    """A GET forced off must not open the POST of the same path (a bug of the modelled package)."""
    app = FastAPI()
    routes = APIRouter() if included else app
    routes.get("/items")(forced_off)
    routes.post("/items")(free)
    routes.delete("/items")(forced_on)
    if isinstance(routes, APIRouter):
        app.include_router(routes)
    site = visit(app)

    assert site.ask("/items") == OFF
    assert site.ask("/items", "POST") == FREE
    assert site.ask("/items", "DELETE") == ON
    assert site.ask("/items", "PATCH") == NOT_FOUND


def test_parameterised_route_shadows_no_earlier_exact_one(visit: Visit) -> None:
    """`/users/{id}` forced on leaves `/users/me` open (a bug of the modelled package)."""
    app = FastAPI()
    app.get("/users/me")(forced_off)
    app.get("/users/{id}")(forced_on)
    site = visit(app)

    assert site.ask("/users/me") == OFF
    assert site.ask("/users/1") == ON


def test_parameterised_route_shadows_a_later_exact_one(visit: Visit) -> None:
    app = FastAPI()
    app.get("/users/{id}")(free)
    app.get("/users/me")(forced_on)
    app.get("/posts/{id}")(forced_on)
    app.get("/posts/new")(forced_off)
    site = visit(app)

    assert site.ask("/users/me") == FREE
    assert site.ask("/posts/new") == ON


def test_later_route_with_the_right_method_is_matched(visit: Visit) -> None:
    app = FastAPI()
    app.post("/users/{id}")(forced_on)
    app.get("/users/me")(forced_off)

    assert visit(app).ask("/users/me") == OFF


# -- routers ---


def test_included_router_with_prefix_is_matched(visit: Visit) -> None:
    """`include_router` fails no request (a bug of the modelled package since FastAPI 0.137)."""
    router = APIRouter(prefix="/own")
    router.get("/on")(forced_on)
    router.get("/off")(forced_off)
    router.get("/free")(free)
    app = FastAPI()
    app.include_router(router, prefix="/given")
    site = visit(app)

    assert site.ask("/given/own/on") == ON
    assert site.ask("/given/own/off") == OFF
    assert site.ask("/given/own/free") == FREE
    assert site.ask("/own/on") == NOT_FOUND
    assert site.ask("/given/own/on", "POST") == NOT_FOUND


def test_nested_router_is_matched(visit: Visit) -> None:
    innermost, inner, outer = APIRouter(), APIRouter(prefix="/inner"), APIRouter()
    innermost.get("/{id}")(forced_on)
    inner.get("/me")(forced_off)
    inner.include_router(innermost, prefix="/innermost")
    outer.include_router(inner, prefix="/{tenant}")
    app = FastAPI()
    app.include_router(outer, prefix="/outer")
    site = visit(app)

    assert site.ask("/outer/acme/inner/me") == OFF
    assert site.ask("/outer/acme/inner/innermost/1") == ON
    assert site.ask("/outer/acme/inner/innermost") == NOT_FOUND


def test_router_included_twice_is_matched_at_both_places(visit: Visit) -> None:
    router = APIRouter()
    router.get("/items")(forced_on)
    app = FastAPI()
    app.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v2")
    site = visit(app)

    assert site.ask("/v1/items") == site.ask("/v2/items") == ON


def test_included_router_with_every_kind_of_route_is_matched(visit: Visit) -> None:
    router = APIRouter()
    router.add_route("/plain", text_on)
    router.add_route("/class", Resource)  # type: ignore[arg-type]
    router.add_api_websocket_route("/talk", talk_on)
    router.add_websocket_route("/plain/talk", talk_on)
    router.mount("/mount", FastAPI(routes=[Route("/on", text_on)]))
    router.host("on.example", Starlette(routes=[Route("/hosted", text_on)]))
    app = FastAPI()
    app.include_router(router, prefix="/p")
    site = visit(app)

    assert site.ask("/p/plain") == ON
    assert site.ask("/p/class") == ON
    assert site.ask("/p/class", "POST") == FREE
    assert site.ask("/p/class", "DELETE") == NOT_FOUND
    assert site.ask_websocket("/p/talk") == site.ask_websocket("/p/plain/talk") == ON
    assert site.ask("/p/mount/on") == ON
    assert site.ask("/p/hosted", host="on.example") == ON


class VersionedRoute(APIRoute):
    """A route class that looks at a header too."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        version = b"v" + self.name.encode()[-1:]
        return (
            super().matches(scope) if (b"host", version) in scope["headers"] else (Match.NONE, {})
        )


@pytest.mark.parametrize("included", [True, False])
def test_route_class_with_custom_matching_is_asked(visit: Visit, included: bool) -> None:
    router = APIRouter(route_class=VersionedRoute)
    router.add_api_route("/items", forced_on, name="1")
    router.add_api_route("/items", forced_off, name="2")
    app = FastAPI()
    if included:
        app.include_router(router, prefix="/p")
    else:
        app.router.routes += router.routes
    site = visit(app)
    path = "/p/items" if included else "/items"

    assert site.ask(path, host="v1") == ON
    assert site.ask(path, host="v2") == OFF
    assert site.ask(path, host="v3") == NOT_FOUND


class Odd(BaseRoute):
    """An unknown kind of route, which names its endpoint only when it matches."""

    def __init__(self, endpoint: object) -> None:
        self.named = endpoint

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (
            (Match.FULL, {"endpoint": self.named}) if scope["path"] == "/odd" else (Match.NONE, {})
        )

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("odd")(scope, receive, send)


def test_route_of_an_unknown_kind_counts_as_forced_on(visit: Visit) -> None:
    app = FastAPI(routes=[Odd(forced_on)], docs_url=None)
    site = visit(app)

    assert site.ask("/odd") == ON
    assert site.ask("/even") == NOT_FOUND
    assert site.has_forced_on(), "what cannot be looked into may be forced on"


def test_included_router_with_unknown_internals_is_found(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should FastAPI rename what we look at, requests are still resolved, only more slowly."""
    router = APIRouter()
    router.get("/items")(free)
    app = FastAPI()
    app.include_router(router)
    monkeypatch.setattr("fastapi_maintenance.routing.resolver.Router", Starlette)
    site = visit(app)

    assert site.ask("/items") == FREE
    assert site.has_forced_on()


# -- mounts ---


def sub_fastapi() -> FastAPI:
    app = FastAPI()
    app.get("/on")(forced_on)
    app.get("/off")(forced_off)
    app.get("/free")(free)
    return app


def sub_routes() -> list[BaseRoute]:
    return [Route("/on", text_on), Route("/off", text_off), Route("/free", text)]


def sub_router() -> APIRouter:
    router = APIRouter()
    router.include_router(sub_fastapi().router)
    return router


SUB_APPS: Final[dict[str, Callable[[], ASGIApp]]] = {
    "fastapi": sub_fastapi,
    "starlette": lambda: Starlette(routes=sub_routes()),
    "router": lambda: Router(sub_routes()),
    "apirouter": sub_router,
    "bound method": lambda: Router(sub_routes()).app,
    "bound call": lambda: Starlette(routes=sub_routes()).__call__,
    "wrapped": lambda: Layer(Layer(sub_fastapi())),
    "wrapped starlette": lambda: CORSMiddleware(GZipMiddleware(Starlette(routes=sub_routes()))),
}


@pytest.mark.parametrize("kind", SUB_APPS)
def test_mounted_app_is_matched(visit: Visit, kind: str) -> None:
    """`mount` must not fail every request (a bug of the modelled package)."""
    app = FastAPI()
    app.mount("/sub", SUB_APPS[kind]())
    app.get("/sub/later")(forced_on)
    site = visit(app)

    assert site.ask("/sub/on") == ON
    assert site.ask("/sub/off") == OFF
    assert site.ask("/sub/free") == FREE
    assert site.ask("/sub/nowhere") == NOT_FOUND
    assert site.ask("/sub/on", "POST") == NOT_FOUND
    assert site.ask("/sub/later") == NOT_FOUND, "a mount answers for everything beneath it"
    assert site.has_forced_on()


def test_mount_within_a_mount_is_matched(visit: Visit) -> None:
    middle = Starlette(routes=[Mount("/{tenant}", routes=[Mount("/in", app=sub_fastapi())])])
    app = FastAPI()
    app.mount("/out", middle)
    site = visit(app, root_path="/proxy")

    assert site.ask("/proxy/out/acme/in/on") == ON
    assert site.ask("/proxy/out/acme/in/nowhere") == NOT_FOUND


def test_mount_with_hiding_middleware_is_matched(visit: Visit) -> None:
    app = FastAPI(routes=[Mount("/sub", routes=sub_routes(), middleware=[Middleware(closure)])])
    site = visit(app)

    assert site.ask("/sub/on") == ON
    assert site.ask("/sub/off") == OFF
    assert site.ask("/sub/nowhere") == NOT_FOUND
    assert site.has_forced_on()


def test_mount_with_a_replaced_app_is_matched(visit: Visit) -> None:
    mount = Mount("/sub", app=sub_fastapi())
    mount.app = Layer(FastAPI(routes=[Route("/on", text_off)]))
    site = visit(FastAPI(routes=[mount]))

    assert site.ask("/sub/on") == OFF


@pytest.mark.parametrize(
    "mounted", [on(StaticFiles(directory=".")), Layer(on(StaticFiles(directory=".")))]
)
def test_mounted_app_without_routes_may_be_marked(visit: Visit, mounted: ASGIApp) -> None:
    app = FastAPI()
    app.mount("/static", mounted)
    app.mount("/bare", bare)
    site = visit(app)

    assert site.ask("/static/pyproject.toml") == ON
    assert site.ask("/bare/anything", "DELETE") == FREE
    assert site.has_forced_on()


def test_marked_app_marks_its_unmarked_routes(visit: Visit) -> None:
    app = FastAPI()
    app.mount("/closed", on(sub_fastapi()))
    app.mount("/open", Layer(off(Starlette(routes=[*sub_routes(), Mount("/static", app=bare)]))))
    site = visit(app)

    assert [site.ask(f"/closed/{name}") for name in ("free", "off", "nowhere")] == [
        ON,
        OFF,
        NOT_FOUND,
    ]
    app.mount("/both", on(Layer(off(Layer(bare)))))
    assert [site.ask(f"/open/{name}") for name in ("free", "on", "static/x")] == [OFF, ON, OFF]
    assert site.ask("/both/x") == OFF, "the inner mark is the nearer one"


def test_marked_app_beneath_the_middleware_marks_its_routes() -> None:
    app = on(FastAPI())
    app.get("/free")(free)
    site = Site(app)

    assert site.ask("/free") == ON
    assert site.has_forced_on()


def test_host_is_matched(visit: Visit) -> None:
    app = FastAPI()
    app.host("api.example", sub_fastapi())
    app.host("{tenant}.example", Layer(Starlette(routes=[Route("/on", text_off)])))
    app.get("/on")(free)
    site = visit(app)

    assert site.ask("/on", host="api.example") == ON
    assert site.ask("/on", host="api.example:8000") == ON
    assert site.ask("/on", host="acme.example") == OFF
    assert site.ask("/nowhere", host="acme.example") == NOT_FOUND
    assert site.ask("/on") == FREE


def test_app_mounted_in_itself_does_not_hang() -> None:
    app = sub_fastapi()
    app.mount("/v1", app)
    site = Site(app)

    assert site.ask("/v1/v1/on") == ON
    assert site.has_forced_on()


# -- root paths ---


def test_prefix_of_a_proxy_is_removed(visit: Visit) -> None:
    """A `root_path` bypasses nothing, stripped or not (a bug of the modelled package)."""
    app = sub_fastapi()
    router = APIRouter()
    router.get("/on")(forced_on)
    app.include_router(router, prefix="/r")
    app.mount("/m", sub_fastapi())
    site = visit(app, root_path="/api")

    for prefix in ("/api", ""):
        assert site.ask(f"{prefix}/on") == site.ask(f"{prefix}/r/on") == ON
        assert site.ask(f"{prefix}/docs") == DOCS
        assert site.ask(f"{prefix}/nowhere") == NOT_FOUND
    assert site.ask("/api/m/on") == ON
    assert site.ask("/api/m/docs") == DOCS
    assert site.ask("/m/on") == NOT_FOUND, "Starlette's mounts want the prefix to be there"
    assert site.ask("/api") == NOT_FOUND
    assert site.ask("/apix/on") == NOT_FOUND


def test_root_path_of_an_app_is_removed(visit: Visit) -> None:
    app = sub_fastapi()
    app.root_path = "/api"
    site = visit(app)

    assert site.ask("/api/on") == site.ask("/on") == ON
    assert site.ask("/api/docs") == DOCS


def test_root_path_of_a_mounted_app_replaces_the_mounts(visit: Visit) -> None:
    sub = sub_fastapi()
    sub.root_path = "/api/sub"
    app = FastAPI()
    app.mount("/sub", sub)
    site = visit(app, root_path="/api")

    assert site.ask("/api/sub/on") == ON
    assert site.ask("/sub/on") == NOT_FOUND, (
        "FastAPI takes the root path it was told, not where it is"
    )


# -- what is not found ---


def test_request_answered_404_or_405_is_not_found(visit: Visit) -> None:
    app = FastAPI()
    app.get("/items/{id:int}")(forced_on)
    site = visit(app)

    assert [(site.ask(path), site.status) for path in ("/", "/items", "/items/one")] == [
        (NOT_FOUND, 404)
    ] * 3
    assert [(site.ask("/items/1", method), site.status) for method in ("POST", "HEAD")] == [
        (NOT_FOUND, 405)
    ] * 2


def test_request_redirected_for_a_slash_is_not_found(visit: Visit) -> None:
    app = FastAPI()
    app.get("/with/")(forced_on)
    app.get("/without")(forced_on)
    app.mount("/sub", sub_fastapi())
    site = visit(app)

    assert [(site.ask(path), site.status) for path in ("/with", "/without/", "/sub")] == [
        (NOT_FOUND, 307)
    ] * 3


def test_wrong_slash_without_redirects_is_not_found(visit: Visit) -> None:
    app = FastAPI(redirect_slashes=False)
    app.get("/with/")(forced_on)
    site = visit(app)

    assert (site.ask("/with"), site.status) == (NOT_FOUND, 404)


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_router_with_a_default_uses_it(visit: Visit, root_path: str) -> None:
    """A request without a route goes to the default, unless a slash makes it a redirect."""
    app = FastAPI(routes=[Route("/with/", text_on, methods=["POST"]), Route("/without", text_on)])
    legacy = [
        Route("/", text),
        Route("/legacy", text_on),
        *(Route(path, text_off) for path in ("/with", "/with/", "/without/")),
    ]
    app.router.default = Layer(Starlette(routes=[*legacy, Mount("/bare", app=bare)]))
    site = visit(app, root_path=root_path)

    assert site.ask(f"{root_path}/legacy") == ON
    assert site.ask(f"{root_path}/bare/x") == site.ask(f"{root_path}/") == FREE
    assert site.ask(f"{root_path}/nowhere") == NOT_FOUND
    assert (site.ask(f"{root_path}/with/"), site.status) == (NOT_FOUND, 405), (
        "not even where the method is wrong"
    )
    assert (site.ask(f"{root_path}/with"), site.status) == (NOT_FOUND, 307)
    assert (site.ask(f"{root_path}/without/"), site.status) == (NOT_FOUND, 307)
    assert site.has_forced_on()


def test_root_of_an_app_is_never_redirected() -> None:
    app = FastAPI()
    app.get("")(forced_on)
    app.router.default = bare
    site = Site(app, root_path="/api")

    assert site.ask("/api") == ON
    assert site.ask("/api/") == site.ask("/") == FREE


def test_marks_in_a_router_default_are_noticed() -> None:
    assert Site(Router(default=Router(sub_routes()))).has_forced_on()
    assert not Site(Router(default=bare)).has_forced_on()


def test_default_without_redirects_is_used(visit: Visit) -> None:
    app = FastAPI(routes=[Route("/with/", text_on)], redirect_slashes=False)
    app.router.default = bare
    site = visit(app)

    assert site.ask("/with") == FREE
    assert site.ask("/") == FREE


# -- class-based endpoints ---


def test_endpoint_class_is_matched_by_its_handlers(visit: Visit) -> None:
    app = FastAPI(
        routes=[Route("/things", Resource), Route("/partial", functools.partial(Resource))]
    )
    site = visit(app)

    for path in ("/things", "/partial"):
        assert [site.ask(path, method) for method in ("GET", "HEAD", "POST", "PUT")] == [
            ON,
            ON,
            FREE,
            OFF,
        ]
        assert [(site.ask(path, method), site.status) for method in ("DELETE", "OPTIONS")] == [
            (NOT_FOUND, 405)
        ] * 2
    assert site.has_forced_on()


def test_head_needs_a_get_or_head_handler(visit: Visit) -> None:
    class Posts(HTTPEndpoint):
        async def post(self, request: Request) -> None: ...

    class Heads(HTTPEndpoint):
        @off
        async def head(self, request: Request) -> Response:
            return PlainTextResponse()

    site = visit(FastAPI(routes=[Route("/posts", Posts), Route("/heads", Heads)]))

    assert (site.ask("/posts", "HEAD"), site.status) == (NOT_FOUND, 405)
    assert (site.ask("/heads"), site.status) == (NOT_FOUND, 405)
    assert site.ask("/heads", "HEAD") == OFF


def test_endpoint_class_with_own_dispatch_takes_every_method(visit: Visit) -> None:
    @off
    class Anything(HTTPEndpoint):
        async def dispatch(self) -> None:
            await PlainTextResponse("any")(self.scope, self.receive, self.send)

    site = visit(FastAPI(routes=[Route("/x", Anything)]))

    assert [site.ask("/x", method) for method in ("GET", "DELETE", "PURGE")] == [OFF] * 3


def test_endpoint_that_is_an_app_takes_every_method(visit: Visit) -> None:
    site = visit(FastAPI(routes=[Route("/x", on(Layer(bare)))]))

    assert [site.ask("/x", method) for method in ("GET", "DELETE")] == [ON, ON]


# -- WebSockets ---


def test_websocket_route_is_matched(visit: Visit) -> None:
    @off
    class Chat(WebSocketEndpoint): ...

    router = APIRouter()
    router.websocket("/talk/{room}")(talk)
    sub = FastAPI()
    sub.websocket("/on")(talk_on)
    app = FastAPI(routes=[WebSocketRoute("/chat", Chat)])
    app.websocket("/on")(talk_on)
    app.get("/on")(forced_off)
    app.include_router(router, prefix="/r")
    app.mount("/m", sub)
    site = visit(app, root_path="/api")

    assert site.ask_websocket("/api/on") == site.ask_websocket("/api/m/on") == ON
    assert site.ask_websocket("/api/r/talk/1") == FREE
    assert site.ask_websocket("/api/chat") == OFF
    assert site.ask("/api/on") == OFF, "the same path over HTTP is another route"
    assert site.ask("/api/chat") == NOT_FOUND
    assert site.ask_websocket("/api/nowhere") == NOT_FOUND
    assert site.ask_websocket("/api/on/") == NOT_FOUND, "no redirects here"
    assert site.ask_websocket("/api/docs") == NOT_FOUND


def test_websocket_to_a_default_is_never_redirected() -> None:
    app = Router(
        routes=[WebSocketRoute("/talk/", talk)], default=Router([WebSocketRoute("/talk", talk_on)])
    )

    assert Site(app).ask_websocket("/talk") == ON


# -- documentation ---


def test_docs_at_default_urls_are_found(visit: Visit) -> None:
    site = visit(FastAPI())

    for path in ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"):
        assert site.ask(path) == site.ask(path, "HEAD") == DOCS
        assert (site.ask(path, "POST"), site.status) == (NOT_FOUND, 405)


def test_docs_at_configured_urls_are_found(visit: Visit) -> None:
    app = FastAPI(
        docs_url="/d", redoc_url="/r", openapi_url="/schema", swagger_ui_oauth2_redirect_url="/back"
    )
    app.get("/docs")(free)
    app.post("/d")(free)
    site = visit(app)

    assert [site.ask(path) for path in ("/d", "/r", "/schema", "/back")] == [DOCS] * 4
    assert site.ask("/docs") == FREE
    assert site.ask("/d", "POST") == FREE
    assert site.ask("/redoc") == NOT_FOUND


def test_path_that_only_begins_like_the_docs_is_not_docs(visit: Visit) -> None:
    """`/docs-export` must not pass for documentation (a bug of Waygate)."""
    app = FastAPI()
    app.get("/docs-export")(free)
    app.get("/docs/{page}")(free)
    app.get("/openapi.json/raw")(free)
    site = visit(app)

    assert [site.ask(path) for path in ("/docs-export", "/docs/more", "/openapi.json/raw")] == [
        FREE
    ] * 3


@pytest.mark.parametrize("disabled", [{"docs_url": None}, {"openapi_url": None}])
def test_endpoint_in_place_of_disabled_docs_is_not_docs(
    visit: Visit, disabled: dict[str, None]
) -> None:
    app = FastAPI(**disabled)  # type: ignore[arg-type]
    app.get("/docs")(free)
    app.get("/docs/oauth2-redirect")(free)
    site = visit(app)

    assert site.ask("/docs") == site.ask("/docs/oauth2-redirect") == FREE


def test_docs_of_a_mounted_app_are_found(visit: Visit) -> None:
    app = FastAPI(docs_url="/outer-docs")
    app.mount("/sub", Layer(FastAPI(docs_url="/inner-docs", routes=[Route("/outer-docs", text)])))
    app.mount("/plain", Router([Route("/outer-docs", text)]))
    site = visit(app, root_path="/api")

    assert site.ask("/api/outer-docs") == site.ask("/api/sub/inner-docs") == DOCS
    assert site.ask("/api/sub/outer-docs") == site.ask("/api/plain/outer-docs") == FREE


def test_starlette_app_has_no_docs(visit: Visit) -> None:
    site = visit(Starlette(routes=[Route("/docs", text)]))

    assert site.ask("/docs") == FREE


# -- frontends ---


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    if not hasattr(FastAPI, "frontend"):  # pragma: no cover - only with FastAPI older than 0.138
        pytest.skip("this FastAPI has no frontends")
    (tmp_path / "index.html").write_text("<p>home</p>")
    (tmp_path / "app.js").write_text("go()")
    return tmp_path


def test_frontend_is_found(visit: Visit, dist: Path) -> None:
    app = FastAPI(routes=[Route("/with/", text_on)])
    app.frontend("/", directory=dist)
    site = visit(app)

    assert site.ask("/") == site.ask("/index.html") == FREE
    assert site.ask("/with/") == ON
    assert site.ask("/docs") == DOCS
    assert (site.ask("/with"), site.status) == (NOT_FOUND, 307)
    assert (site.ask("/index.html", "POST"), site.status) == (NOT_FOUND, 405)
    assert site.ask_websocket("/index.html") == NOT_FOUND


def test_frontend_of_an_included_router_or_mount_is_found(visit: Visit, dist: Path) -> None:
    router = APIRouter(prefix="/r")
    router.frontend("/ui", directory=dist)
    sub = FastAPI()
    sub.frontend("/ui", directory=dist)
    app = FastAPI()
    app.include_router(router, prefix="/p")
    app.mount("/free", sub)
    app.mount("/off", off(Layer(sub)))
    site = visit(app)

    assert site.ask("/p/r/ui/") == site.ask("/free/ui/") == FREE
    assert site.ask("/off/ui/") == OFF
    assert site.ask("/ui/") == NOT_FOUND


# -- where the middleware stands ---


def test_middlewares_between_are_unwrapped() -> None:
    async def pass_on(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        return await call_next(request)

    app = sub_fastapi()
    app.add_middleware(CORSMiddleware)
    app.add_middleware(GZipMiddleware)
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.add_middleware(Layer)
    site = Site(app, "inside")

    assert [site.ask(path) for path in ("/on", "/off", "/free", "/nowhere", "/docs")] == [
        ON,
        OFF,
        FREE,
        NOT_FOUND,
        DOCS,
    ]
    assert site.has_forced_on()


def test_wrappers_around_an_app_are_unwrapped() -> None:
    site = Site(Layer(GZipMiddleware(sub_fastapi())))

    assert [site.ask(path) for path in ("/on", "/off", "/free", "/nowhere", "/docs")] == [
        ON,
        OFF,
        FREE,
        NOT_FOUND,
        DOCS,
    ]


def test_table_around_a_bare_router_matches() -> None:
    site = Site(Router(sub_routes()))

    assert [site.ask(path) for path in ("/on", "/off", "/free", "/nowhere")] == [
        ON,
        OFF,
        FREE,
        NOT_FOUND,
    ]


@pytest.mark.parametrize("above", [[], [Layer], [closure]])
def test_hiding_middleware_beneath_is_bypassed(above: list[Callable[[ASGIApp], ASGIApp]]) -> None:
    """The app whose middleware it is says then what there is."""
    app = sub_fastapi()
    app.add_middleware(closure)
    site = Site(app, "inside")
    for middleware in above:
        app.add_middleware(middleware)

    assert [site.ask(path) for path in ("/on", "/off", "/free", "/nowhere", "/docs")] == [
        ON,
        OFF,
        FREE,
        NOT_FOUND,
        DOCS,
    ]
    assert site.has_forced_on()


@pytest.mark.parametrize("above", [[], [Layer]])
def test_hiding_middleware_in_a_mounted_app_is_bypassed(
    above: list[Callable[[ASGIApp], ASGIApp]],
) -> None:
    notes: list[Note] = []
    sub = sub_fastapi()
    sub.add_middleware(closure)
    sub.add_middleware(Probe, notes=notes)
    for middleware in above:
        sub.add_middleware(middleware)
    app = FastAPI()
    app.mount("/sub", sub)
    app.get("/free")(forced_on)
    client = TestClient(app)

    client.get("/sub/on")
    client.get("/sub/free")
    client.get("/sub/nowhere")

    assert [note.resolved for note in notes] == [ON, FREE, NOT_FOUND]
    assert notes[0].forced_on


def test_table_on_a_mount_of_another_app_matches() -> None:
    """The paths are the mounted app's then, and not those of the app in the scope."""
    notes: list[Note] = []
    app = FastAPI()
    app.get("/free")(forced_on)
    app.mount("/sub", Probe(sub_fastapi(), notes))
    client = TestClient(app, root_path="/api")

    for name in ("on", "free", "nowhere", "docs"):
        client.get(f"/api/sub/{name}")

    assert [note.resolved for note in notes] == [ON, FREE, NOT_FOUND, DOCS]


@pytest.mark.parametrize("hidden", [closure(sub_fastapi()), bare])
def test_table_on_an_opaque_mount_finds_everything(hidden: ASGIApp) -> None:
    notes: list[Note] = []
    app = FastAPI()
    app.get("/on")(forced_on)
    app.mount("/sub", Layer(Probe(hidden, notes)))

    TestClient(app).get("/sub/on")

    assert notes[0].resolved == FREE
    assert not notes[0].forced_on


def test_table_beneath_a_base_http_middleware_matches() -> None:
    """Another app is around us, but nothing was routed by it: what is beneath us counts."""
    notes: list[Note] = []
    app = FastAPI()
    app.get("/free")(forced_on)
    app.add_middleware(lambda _: Probe(sub_fastapi(), notes))

    TestClient(app).get("/free")

    assert notes[0].resolved == FREE


def test_table_beneath_two_apps_matches_both() -> None:
    """The app in the scope is asked each time."""
    table = RouteTable(bare)
    apps = FastAPI(), sub_fastapi()

    assert [table.scan({"type": "http", "app": app}).forced_on for app in (*apps, *apps)] == [
        False,
        True,
        False,
        True,
    ]


def test_table_around_an_opaque_app_finds_everything() -> None:
    table = RouteTable(bare)
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}

    assert table.match(scope) == FREE
    assert not table.scan(scope).forced_on


def test_table_on_a_router_or_route_middleware_matches() -> None:
    notes: list[Note] = []
    probe = [Middleware(Probe, notes=notes)]
    router = Router(sub_routes(), middleware=probe)
    app = FastAPI(
        routes=[
            Route("/only", text_on, middleware=probe),
            Mount("/m", routes=sub_routes(), middleware=probe),
        ]
    )
    app.mount("/r", router)
    client = TestClient(app)

    for path in ("/r/on", "/r/nowhere", "/m/off", "/m/nowhere", "/only"):
        client.get(path)

    assert [note.resolved for note in notes] == [ON, NOT_FOUND, OFF, NOT_FOUND, FREE]


def test_object_with_an_endless_chain_of_apps_does_not_hang() -> None:
    class Endless(Layer):
        def __getattribute__(self, name: str) -> Any:
            return Endless(bare) if name == "app" else super().__getattribute__(name)

    assert (
        RouteTable(Endless(bare)).match(
            {"type": "http", "method": "GET", "path": "/", "headers": []}
        )
        == FREE
    )


# -- errors ---


class Fickle(StringConvertor):
    """Fails on one word."""

    def convert(self, value: str) -> str:
        if value == "bad":
            raise LookupError(value)
        return super().convert(value)


@pytest.fixture
def fickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONVERTOR_TYPES, "fickle", Fickle())


@pytest.mark.usefixtures("fickle")
@pytest.mark.parametrize("included", [True, False])
def test_route_that_fails_to_match_counts_as_found(visit: Visit, included: bool) -> None:
    """The app's own 500 while open, and nothing that slips past while closed."""
    router = APIRouter()
    router.get("/first")(forced_off)
    router.get("/{name:fickle}")(forced_on)
    app = FastAPI()
    if included:
        app.include_router(router)
    else:
        app.router.routes += router.routes
    site = visit(app)

    assert site.ask("/good") == ON
    assert site.ask("/first") == OFF
    assert (site.ask("/bad"), site.status) == (FREE, 500)


def test_route_that_needs_an_inner_middleware_counts_as_found() -> None:
    """It cannot be told what answers, so nothing may slip past."""

    class Adds(Layer):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope, "tenant": "acme"}, receive, send)

    class Tenants(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            assert scope["tenant"]
            return super().matches(scope)

    app = FastAPI()
    app.router.route_class = Tenants
    app.get("/items")(free)
    app.add_middleware(Adds)
    site = Site(app, "inside")

    assert (site.ask("/items"), site.status) == (FREE, 200)


def test_matching_leaves_the_scope_of_the_request_unchanged() -> None:
    class Writes(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            scope["written"] = scope.setdefault("fastapi", {})["written"] = True
            return super().matches(scope)

    app = FastAPI()
    app.router.route_class = Writes
    app.get("/items")(free)
    scope: Scope = {"type": "http", "method": "GET", "path": "/items", "headers": [], "fastapi": {}}

    assert RouteTable(app).match(scope) == FREE
    assert scope == {
        "type": "http",
        "method": "GET",
        "path": "/items",
        "headers": [],
        "fastapi": {},
    }


# -- has_forced_on ---


def test_app_without_forced_on_routes_needs_no_matching(visit: Visit) -> None:
    router = APIRouter()
    router.get("/off")(forced_off)
    app = FastAPI(routes=[Route("/free", text), Mount("/m", app=FastAPI())])
    app.include_router(router)

    assert not visit(app).has_forced_on()


def test_route_added_after_the_first_request_is_noticed(visit: Visit) -> None:
    app = FastAPI()
    site = visit(app)
    assert not site.has_forced_on()

    app.get("/free")(free)
    assert not site.has_forced_on()

    app.get("/late")(forced_on)

    assert site.has_forced_on()
    assert site.ask("/late") == ON


def test_router_included_after_the_first_request_is_noticed(visit: Visit) -> None:
    app = FastAPI()
    site = visit(app)
    assert not site.has_forced_on()

    router = APIRouter()
    router.get("/late")(forced_on)
    app.include_router(router)

    assert site.has_forced_on()
    assert site.ask("/late") == ON


def places_to_add(app: FastAPI) -> Iterator[tuple[str, Callable[[], object]]]:
    """An app's tree, and ways to add a forced-on route at some place deep within it."""
    inner, outer = APIRouter(), APIRouter()
    outer.include_router(inner, prefix="/inner")
    app.include_router(outer, prefix="/outer")
    fastapi, starlette, router, hosted, default = (
        FastAPI(),
        Starlette(),
        Router(),
        FastAPI(),
        Router(),
    )
    app.mount("/fastapi", Layer(fastapi))
    fastapi.mount("/starlette", starlette)
    inner.mount("/router", router)
    app.host("hosted.example", hosted)
    fastapi.router.default = default
    yield "/outer/late", lambda: outer.add_api_route("/late", forced_on)
    yield "/outer/inner/late", lambda: inner.add_api_route("/late", forced_on)
    yield "/fastapi/late", lambda: fastapi.add_api_route("/late", forced_on)
    yield "/fastapi/starlette/late", lambda: starlette.routes.append(Route("/late", text_on))
    yield "/outer/inner/router/late", lambda: router.routes.insert(0, Route("/late", text_on))
    yield "//hosted.example/late", lambda: hosted.get("/late")(forced_on)
    yield "/fastapi/late", lambda: default.routes.append(Route("/late", text_on))


@pytest.mark.parametrize("place", range(7))
def test_route_added_deep_within_later_is_noticed(visit: Visit, place: int) -> None:
    app = FastAPI()
    path, add = list(places_to_add(app))[place]
    site = visit(app)
    host = "hosted.example" if path.startswith("//") else "testserver"
    path = path.removeprefix(f"//{host}")
    assert site.ask(path, host=host) == NOT_FOUND
    assert not site.has_forced_on()

    add()

    assert site.has_forced_on()
    assert site.ask(path, host=host) == ON


def test_last_route_replaced_is_noticed(visit: Visit) -> None:
    app = FastAPI()
    app.get("/free")(free)
    site = visit(app)
    assert not site.has_forced_on()

    app.router.routes.pop()
    app.get("/late")(forced_on)

    assert site.has_forced_on()


def test_new_list_of_routes_is_noticed(visit: Visit) -> None:
    app = FastAPI()
    site = visit(app)
    assert not site.has_forced_on()

    app.router.routes = [*app.router.routes, Route("/late", text_on)]

    assert site.has_forced_on()
    assert site.ask("/late") == ON


def test_app_without_routes_finds_nothing() -> None:
    router = Router()
    site = Site(router)
    assert not site.has_forced_on()

    router.routes.append(Route("/late", text_on))

    assert site.has_forced_on()


def test_tree_is_scanned_only_after_it_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[object] = []

    def count(endpoint: object) -> tuple[()]:
        walks.append(endpoint)
        return ()

    app = FastAPI()
    app.include_router(sub_router())
    app.mount("/sub", sub_fastapi())
    table = RouteTable(app)
    scope: Scope = {"type": "http"}
    monkeypatch.setattr("fastapi_maintenance.routing.table.all_marks", count)

    table.scan(scope)
    seen = len(walks)
    table.scan(scope)
    assert len(walks) == seen

    app.get("/free")(free)
    table.scan(scope)
    assert len(walks) > seen


# -- raw paths and other ways to another endpoint ---


def kept_orders() -> FastAPI:
    """A closed route, and a later catch-all that is always open."""
    app = FastAPI()

    @app.post("/api/orders")
    @on
    async def orders() -> Response:
        return PlainTextResponse("orders")

    @app.post("/{rest:path}")
    @off
    async def rest(rest: str) -> Response:
        return PlainTextResponse("rest")

    return app


def test_newline_at_the_end_matches_the_same_route(visit: Visit) -> None:
    site = visit(kept_orders())
    assert [
        site.ask(f"/api/orders{end}", "POST") for end in ("", "%0A", "%0A%0A", "%0Ax", "%0D")
    ] == [ON, ON, NOT_FOUND, NOT_FOUND, OFF]


def test_newline_behind_a_mount_is_matched_as_the_mount_does(visit: Visit) -> None:
    """Starlette counts the newline to the mount, so only a catch-all inside it matches."""
    app = FastAPI()
    app.mount("/v1", kept_orders())
    site = visit(app)
    assert [site.ask(f"/v1/api/orders{end}", "POST") for end in ("", "%0A")] == [ON, OFF]
    assert site.client.post("/v1/api/orders%0A").text == "rest"


def test_newline_of_a_component_is_attributed_to_it(visit: Visit) -> None:
    app = FastAPI()
    app.add_api_route("/billing", maintenance_component("billing")(functools.partial(free)))
    app.add_api_route("/{rest:path}", maintenance_component("rest")(functools.partial(free)))
    assert visit(app).ask("/billing%0A").component == "billing"


def test_number_too_long_to_convert_is_asked(visit: Visit) -> None:
    """Python converts at most 4,300 digits: the app answers 500, and no later route runs."""
    app = FastAPI()
    app.router.routes.append(Route("/{number:int}", text_off))
    table = RouteTable(app)
    assert table.match(http_scope(path="/" + "9" * 5000)) == FREE


def test_replaced_routes_are_noticed_at_the_next_request(visit: Visit) -> None:
    """A route put in the place of an earlier one answers what only a later one did."""
    app = FastAPI(openapi_url=None)
    app.add_api_route("/first", free)
    app.add_api_route("/{rest:path}", forced_off)
    table = RouteTable(app)
    assert table.match(http_scope("GET", path="/second")) == OFF
    app.router.routes[0] = APIRoute("/second", forced_on)
    assert table.match(http_scope("GET", path="/second")) == ON


def test_new_list_of_mounted_routes_is_noticed() -> None:
    inner = Router([Route("/a", text), Route("/{x}", text_off)])
    table = RouteTable(Router([Mount("/in", inner)]))
    assert table.match(http_scope("GET", path="/in/b")) == OFF
    inner.routes = [Route("/b", text_on), *inner.routes[1:]]
    assert table.match(http_scope("GET", path="/in/b")) == ON


def test_expression_with_alternatives_is_asked() -> None:
    route = Route("/a", text_on)
    route.path_regex = re.compile("^/a$|^/b$")
    table = RouteTable(Router([route, Route("/{x}", text_off)]))
    assert [table.match(http_scope("GET", path=path)) for path in ("/a", "/b", "/c")] == [
        ON,
        ON,
        OFF,
    ]


def test_matching_replaced_on_one_route_is_asked() -> None:
    route = Route("/a", text_on)
    vars(route)["matches"] = lambda scope: (Match.FULL, {"endpoint": route.endpoint})
    table = RouteTable(Router([route, Route("/{x}", text_off)]))
    assert table.match(http_scope("GET", path="/b")) == ON


class HiddenRouter(APIRouter):
    """Answers no request."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.NONE, {}


def test_nested_router_that_hides_its_routes_is_skipped(visit: Visit) -> None:
    hidden, outer, app = HiddenRouter(), APIRouter(), FastAPI()
    hidden.add_api_route("/x", forced_off)
    outer.include_router(hidden)
    outer.add_api_route("/x", forced_on)
    app.include_router(outer)
    assert visit(app).ask("/x") == ON


class GreedyRouter(APIRouter):
    """Takes everything, and answers by its default what no route of it answers."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.FULL, {}


def test_router_that_matches_everything_uses_its_default(visit: Visit) -> None:
    router, app = off(GreedyRouter(default=PlainTextResponse("default"))), FastAPI(openapi_url=None)
    router.add_api_route("/x", forced_on)
    app.include_router(router)
    site = visit(app)
    assert (site.ask("/x"), site.ask("/y")) == (ON, OFF)
    router.default = router.not_found
    assert site.ask("/y") == NOT_FOUND


def test_application_as_an_endpoint_is_matched_inside(visit: Visit) -> None:
    inner = FastAPI()
    inner.add_api_route("/in/on", forced_on)
    app = Starlette(routes=[Route("/in/{rest:path}", inner), Route("/free", text)])
    site = visit(app)
    assert site.ask("/in/on") == ON
    assert site.ask("/in/none") == NOT_FOUND
    assert site.has_forced_on()


def test_endpoint_that_keeps_an_app_is_matched_itself(visit: Visit) -> None:
    """An object with an `app` need not be a middleware."""

    class Controller(Layer):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("mine")(scope, receive, send)

    app = Starlette()
    app.router.routes.append(Route("/x", on(Controller(app))))
    assert visit(app).ask("/x") == ON


class Lenient(Route):
    """Runs its endpoint for other methods than its own too."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def test_partial_match_that_runs_anyway_is_found(visit: Visit) -> None:
    app = Starlette(routes=[Lenient("/x", text_on, methods=["GET"])])
    site = visit(app)
    assert (site.ask("/x"), site.ask("/x", "POST")) == (ON, ON)


@pytest.mark.parametrize("root_path", ["/api", "/api/"])
def test_slash_redirect_beneath_a_root_path_is_not_found(visit: Visit, root_path: str) -> None:
    app = FastAPI(openapi_url=None)
    app.router.default = off(Layer(PlainTextResponse("default")))
    app.add_api_route("/a/", forced_on)
    site = visit(app, root_path=root_path)
    for path in ("/a", "/a/", "/", "/api", "/api/", "/api/a", "/api/a/", "/api//"):
        site.ask(path)


class Taught(Resource):
    """Takes another method than Starlette knows."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self._allowed_methods.append("BREW")

    async def brew(self, request: Request) -> Response:
        return PlainTextResponse("tea")


def test_endpoint_class_with_invented_method_is_not_found(visit: Visit) -> None:
    site = visit(
        Starlette(
            routes=[Route("/x", off(type("Endpoint", (Resource,), {}))), Route("/taught", Taught)]
        )
    )
    for method in ("DISPATCH", "METHOD_NOT_ALLOWED", "BREW", "get", "TRACE"):
        site.ask("/x", method)
    assert site.ask("/taught", "BREW") == FREE


# -- marks around routes ---


def test_marks_on_a_router_count_for_its_routes(visit: Visit) -> None:
    inner, outer, app = off(APIRouter()), on(APIRouter(prefix="/v1")), FastAPI()
    inner.add_api_route("/a", free)
    inner.add_api_route("/b", forced_on)
    outer.include_router(inner, prefix="/in")
    outer.add_api_route("/c", free)
    app.include_router(outer)
    site = visit(app)
    assert [site.ask(f"/v1/{path}") for path in ("in/a", "in/b", "c")] == [OFF, ON, ON]
    assert site.has_forced_on()


def test_mark_of_an_app_counts_wherever_its_middleware_is(visit: Visit) -> None:
    app = on(sub_fastapi())
    site = visit(app)
    assert [site.ask(path) for path in ("/free", "/off", "/docs", "/nowhere")] == [
        ON,
        OFF,
        DOCS._replace(mark="on"),
        NOT_FOUND,
    ]
    assert site.has_forced_on()


def test_marks_on_mounts_hosts_and_routes_count(visit: Visit) -> None:
    routes: list[BaseRoute] = [
        on(Mount("/on", app=Layer(Starlette(routes=[Route("/x", text), Route("/off", text_off)])))),
        off(Host("b.example", Starlette(routes=[Route("/y", text)]))),
        on(Route("/z", text)),
        Route("/z/free", text),
    ]
    site = visit(Starlette(routes=routes))
    assert [site.ask(path) for path in ("/on/x", "/on/off", "/z", "/z/free")] == [ON, OFF, ON, FREE]
    assert site.ask("/y", host="b.example") == OFF
    assert site.has_forced_on()


def test_maintenance_mark_counts_for_the_route_it_is_given_to(visit: Visit) -> None:
    forced = [maintenance_mark(on)]
    router, app = (
        APIRouter(dependencies=[maintenance_mark(maintenance_component("inner"))]),
        FastAPI(),
    )
    app.add_api_route(
        "/once", free, dependencies=[maintenance_mark(off, maintenance_component("billing"))]
    )
    app.add_api_route("/twice", free, dependencies=forced)
    app.add_api_route("/other", free, dependencies=[Depends(forced_off)])
    router.add_api_route("/a", free)
    router.add_api_route("/b", free, dependencies=[maintenance_mark(maintenance_component("own"))])
    router.add_api_route("/c", forced_on)
    app.include_router(
        router, prefix="/in", dependencies=[maintenance_mark(off, maintenance_component("around"))]
    )
    site = visit(app)
    assert site.ask("/once") == RouteMatch(found=True, mark="off", component="billing")
    assert (site.ask("/twice"), site.ask("/other")) == (ON, FREE)
    assert site.ask("/in/a") == RouteMatch(found=True, mark="off", component="inner")
    assert site.ask("/in/b") == RouteMatch(found=True, mark="off", component="own")
    assert site.ask("/in/c") == RouteMatch(found=True, mark="on", component="inner")
    assert site.has_forced_on()


def test_frontend_of_a_marked_router_is_in_its_component(visit: Visit, dist: Path) -> None:
    inner, outer, app = maintenance_component("billing")(APIRouter()), on(APIRouter()), FastAPI()
    inner.frontend("/ui", directory=dist)
    outer.add_api_route("/route", free)
    outer.include_router(inner, prefix="/billing")
    outer.frontend("/plain", directory=dist)
    app.include_router(outer)
    app.include_router(
        outer, prefix="/again", dependencies=[maintenance_mark(maintenance_component("again"))]
    )
    app.frontend("/free", directory=dist)
    site = visit(app)
    assert site.ask("/billing/ui/app.js") == RouteMatch(found=True, mark="on", component="billing")
    assert site.ask("/plain/app.js") == ON
    assert site.ask("/again/plain/app.js") == RouteMatch(found=True, mark="on", component="again")
    assert site.ask("/free/app.js") == FREE


def test_frontend_keeps_its_marks_when_routes_are_moved(visit: Visit, dist: Path) -> None:
    first, second, outer, app = off(APIRouter()), on(APIRouter()), APIRouter(), FastAPI()
    first.frontend("/a", directory=dist)
    second.frontend("/b", directory=dist)
    outer.include_router(first)
    outer.include_router(second)
    app.include_router(outer)
    site = visit(app)
    assert (site.ask("/a/app.js"), site.ask("/b/app.js")) == (OFF, ON)
    outer.routes.reverse()
    assert (site.ask("/a/app.js"), site.ask("/b/app.js")) == (OFF, ON)


def test_frontend_that_only_the_framework_knows_is_found(visit: Visit, dist: Path) -> None:
    """Its own marks are unknown then. Those around it count."""
    inner, other, holder = off(APIRouter()), APIRouter(), APIRouter()
    outer, app = APIRouter(), maintenance_component("shop")(FastAPI())
    inner.frontend("/ui", directory=dist)
    other.get("/other")(free)
    holder.include_router(other)
    outer.include_router(inner)
    app.include_router(outer)
    site = visit(app)
    assert site.ask("/ui/app.js") == OFF._replace(component="shop")
    outer.routes[0] = holder.routes[0]
    assert site.ask("/ui/app.js") == FREE._replace(component="shop")


def test_mount_that_only_the_framework_knows_is_followed(visit: Visit) -> None:
    """FastAPI keeps what it made of an included router until that is told of a new route."""
    inner, router, app = (
        Router([Route("/b", text_off), Route("/{x}", text)]),
        APIRouter(),
        FastAPI(),
    )
    router.mount("/in", inner)
    app.include_router(router)
    site = visit(app)
    assert site.ask("/in/b") == OFF
    router.routes[0] = Route("/other", text)
    assert site.ask("/in/b") == OFF
    inner.routes.reverse()
    assert site.ask("/in/b") == FREE


def test_marks_of_effect_are_found(visit: Visit) -> None:
    app = FastAPI()
    app.add_api_route("/graphql", maintenance_reads(functools.partial(free)), methods=["POST"])
    app.add_api_route("/visit", maintenance_writes(functools.partial(free)))
    site = visit(app)
    assert site.ask("/graphql", "POST") == RouteMatch(found=True, effect="reads")
    assert site.ask("/visit") == RouteMatch(found=True, effect="writes")


# -- any tree whatever ---

SEGMENTS = st.sampled_from(["a", "b", "{x}", "{x:int}", "{x:path}"])
PATHS = st.one_of(
    st.just("/"),
    st.tuples(SEGMENTS, st.sampled_from(["", "/"])).map(lambda parts: "/" + "".join(parts)),
)
PREFIXES = st.sampled_from(["", "/a", "/b", "/a/b", "/{y}"])
MARKS = st.sampled_from([None, "on", "off"])
METHODS = st.sampled_from(["GET", "HEAD", "POST", "DELETE"])


@dataclass(frozen=True)
class Leaf:
    kind: Literal["api", "plain", "class", "method", "websocket"]
    path: str
    methods: tuple[str, ...]
    mark: str | None


@dataclass(frozen=True)
class Branch:
    kind: Literal["include", "fastapi", "starlette", "router", "layer", "host"]
    prefix: str
    children: tuple[Leaf | Branch, ...]


LEAVES = st.builds(
    Leaf,
    st.sampled_from(["api", "api", "plain", "class", "method", "websocket"]),
    PATHS,
    st.lists(METHODS, min_size=1, max_size=2, unique=True).map(tuple),
    MARKS,
)
BRANCHES = st.sampled_from(
    ["include", "include", "fastapi", "starlette", "router", "layer", "host"]
)
TREES: st.SearchStrategy[tuple[Leaf | Branch, ...]] = st.recursive(
    st.lists(LEAVES, max_size=4).map(tuple),
    lambda children: st.lists(
        st.one_of(LEAVES, st.builds(Branch, BRANCHES, PREFIXES, children)), max_size=4
    ).map(tuple),
    max_leaves=12,
)
ASKED_PATHS = st.lists(st.sampled_from(["a", "b", "1", "zz", ""]), max_size=5).map(
    lambda parts: "/" + "/".join(parts)
)
ASKED_METHODS = st.one_of(METHODS, st.just("WEBSOCKET"))
HOSTS = st.sampled_from(["testserver", "b.example", "other.example"])


def mark(endpoint: Any, mark: str | None) -> Any:
    return {"on": on, "off": off}.get(mark or "", lambda given: given)(endpoint)


def make_leaf(leaf: Leaf) -> BaseRoute:
    async def converse(websocket: WebSocket) -> None:
        await websocket.accept()

    if leaf.kind == "websocket":
        return WebSocketRoute(leaf.path, mark(converse, leaf.mark))
    if leaf.kind in ("class", "method"):
        return Route(leaf.path, make_class(leaf))
    if leaf.kind == "plain":
        return Route(leaf.path, mark(make_answer(), leaf.mark), methods=leaf.methods)
    return APIRoute(
        leaf.path, mark(make_answer(), leaf.mark), methods=list(leaf.methods), response_model=None
    )


def make_answer() -> Any:
    async def answer(request: Request) -> Response:
        return PlainTextResponse("here")

    return answer


def make_class(leaf: Leaf) -> Any:
    """An endpoint class that bears the mark itself, or on the handler of its first method."""
    handlers = {method.lower(): staticmethod(make_answer()) for method in leaf.methods}
    endpoint = type("Endpoint", (HTTPEndpoint,), handlers)
    mark(handlers[leaf.methods[0].lower()] if leaf.kind == "method" else endpoint, leaf.mark)
    return endpoint


def fill(router: Router, children: tuple[Leaf | Branch, ...], depth: int = 0) -> None:
    """Build what a tree describes. Parameters get names by depth, for a path has none twice."""
    for child in children:
        if isinstance(child, Leaf):
            router.routes.append(make_leaf(child))
        else:
            add_branch(router, child, depth)


def add_branch(router: Router, branch: Branch, depth: int) -> None:
    prefix = branch.prefix.replace("y", f"y{depth}")
    if branch.kind == "include" and isinstance(router, APIRouter):
        included = APIRouter()
        fill(included, branch.children, depth + 1)
        if any(context.path == "" for context in iter_route_contexts(included.routes)):
            prefix = prefix or "/a"  # FastAPI refuses a mount at "" here
        router.include_router(included, prefix=prefix)
        return
    app: Any = {"starlette": Starlette, "router": Router}.get(branch.kind, FastAPI)()
    fill(app if branch.kind == "router" else app.router, branch.children, depth + 1)
    if branch.kind == "host":
        router.routes.append(Host("{subdomain}.example" if "y" in prefix else "b.example", app))
    else:
        router.routes.append(Mount(prefix, Layer(app) if branch.kind == "layer" else app))


def has_on(children: tuple[Leaf | Branch, ...]) -> bool:
    return any(
        child.mark == "on" if isinstance(child, Leaf) else has_on(child.children)
        for child in children
    )


async def real_answer(app: ASGIApp, scope: Scope) -> tuple[bool, object]:
    """Return whether an endpoint answered, and which one."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return (
            {"type": "websocket.connect"}
            if scope["type"] == "websocket"
            else {"type": "http.request", "body": b""}
        )

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    answered = sent[0]["type"] == "websocket.accept" or sent[0].get("status") == 200
    return answered, scope.get("endpoint")


@example((Leaf("websocket", "/", ("GET",), "on"),), "/", "WEBSOCKET", "b.example", "")
@example(
    (Branch("host", "", (Leaf("method", "/", ("GET",), "on"),)),), "/", "HEAD", "b.example", ""
)
@example(
    (Branch("include", "", (Branch("router", "", (Leaf("plain", "/", ("GET",), "on"),)),)),),
    "/a/",
    "GET",
    "testserver",
    "",
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES, ASKED_PATHS, ASKED_METHODS, HOSTS, st.sampled_from(["", "/a", "/proxy"]))
def test_any_tree_is_matched_as_the_app_routes_it(
    tree: tuple[Leaf | Branch, ...], path: str, method: str, host: str, root_path: str
) -> None:
    app = FastAPI(openapi_url=None)
    fill(app.router, tree)
    table = RouteTable(app)
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": root_path,
        "query_string": b"",
    }
    if method == "WEBSOCKET":
        scope = {"type": "websocket", "path": path, "root_path": root_path, "query_string": b""}
    scope["headers"] = [(b"host", host.encode())]

    resolved = table.match(scope)
    answered, endpoint = asyncio.run(real_answer(app, dict(scope)))

    assert resolved == resolve(app, scope), "what is found at once is what asking every route finds"
    assert resolved.found is answered
    assert resolved.mark == (
        Marks().extend(endpoint, scope.get("method")).mark if answered else None
    )
    assert table.scan(scope).forced_on is has_on(tree)
