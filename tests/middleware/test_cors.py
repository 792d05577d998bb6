"""Scripts of another origin can read the answer, whatever the order of the middlewares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import httpx2
import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.convertors import CONVERTOR_TYPES, Convertor
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    ResponseOptions,
    force_maintenance_mode_on,
)

from ..support.asgi import exchange, websocket_scope
from ..support.serving import SERVERS

pytestmark = pytest.mark.anyio

ORIGIN: Final = "https://shop.example"
CORS: Final[dict[str, Any]] = {
    "allow_origins": [ORIGIN],
    "allow_methods": ["POST"],
    "allow_credentials": True,
}
FROM_THERE: Final = {"origin": ORIGIN}
PREFLIGHT: Final = {**FROM_THERE, "access-control-request-method": "POST"}


@pytest.fixture(autouse=True)
def _on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")


def shop(**options: Any) -> FastAPI:
    """An application without middlewares."""
    app = FastAPI(**options)

    @app.post("/orders")
    async def order() -> None: ...

    @app.api_route("/anything", methods=["POST", "OPTIONS"])
    async def anything() -> None: ...

    @app.post("/closed")
    @force_maintenance_mode_on
    async def closed() -> None: ...

    return app


class Hiding:
    """A middleware that shows nobody what it wraps."""

    def __init__(self, app: ASGIApp) -> None:
        self._hidden = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._hidden(scope, receive, send)


class Cors(CORSMiddleware):
    """A user's own version."""


THEIRS: Final = Middleware(CORSMiddleware, **CORS)
OURS: Final = Middleware(MaintenanceModeMiddleware)
ZIPPING: Final = Middleware(GZipMiddleware)


def within(*layers: Middleware) -> FastAPI:
    """The application with these middlewares, the innermost first, as they are added."""
    app = shop()
    for layer in layers:
        app.add_middleware(layer.cls, *layer.args, **layer.kwargs)
    return app


ORDERS: Final[dict[str, Callable[[], ASGIApp]]] = {
    "outside": lambda: within(OURS, THEIRS),
    "beneath": lambda: within(THEIRS, OURS),
    "far beneath": lambda: within(Middleware(Cors, **CORS), ZIPPING, OURS),
    "beneath and hidden": lambda: within(THEIRS, Middleware(Hiding), OURS),
    "in the application that is wrapped": lambda: MaintenanceModeMiddleware(
        within(THEIRS, ZIPPING)
    ),
    "in the list of middlewares": lambda: shop(middleware=[OURS, THEIRS]),
    "around everything": lambda: CORSMiddleware(MaintenanceModeMiddleware(shop()), **CORS),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("path", ["/orders", "/anything", "/closed"])
def test_cors_response_and_preflight_are_readable(order: str, path: str) -> None:
    client = TestClient(ORDERS[order]())
    preflight = client.options(path, headers=PREFLIGHT)
    answer = client.post(path, headers=FROM_THERE)

    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert answer.status_code == 503
    assert answer.headers.get_list("access-control-allow-origin") == [ORIGIN]
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-expose-headers"] == "retry-after, x-maintenance-mode"
    assert {value.strip().lower() for value in answer.headers["vary"].split(",")} == {
        "accept",
        "origin",
    }


@pytest.mark.parametrize("order", ["outside", "beneath"])
@pytest.mark.parametrize("server", SERVERS)
def test_cors_response_of_real_servers_is_the_same(order: str, server: str) -> None:
    with (
        SERVERS[server](ORDERS[order]()) as address,
        httpx2.Client(base_url=f"http://{address}", trust_env=False) as client,
    ):
        preflight = client.options("/anything", headers=PREFLIGHT)
        answer = client.post("/anything", headers=FROM_THERE)
        stranger = client.post("/anything", headers={"origin": "https://stranger.example"})

    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (
        200,
        ORIGIN,
    )
    assert (answer.status_code, answer.headers.get_list("access-control-allow-origin")) == (
        503,
        [ORIGIN],
    )
    assert answer.headers["access-control-expose-headers"] == "retry-after, x-maintenance-mode"
    assert (stranger.status_code, stranger.headers.get("access-control-allow-origin")) == (
        503,
        None,
    )


@pytest.mark.parametrize("order", ORDERS)
def test_cors_response_to_other_origins_stays_unreadable(order: str) -> None:
    client = TestClient(ORDERS[order]())
    stranger = {"origin": "https://stranger.example"}

    assert client.options("/orders", headers=PREFLIGHT | stranger).status_code == 400
    assert "access-control-allow-origin" not in client.post("/orders", headers=stranger).headers


@pytest.mark.parametrize("order", ORDERS)
def test_response_without_origin_has_no_cors_headers(order: str) -> None:
    headers = TestClient(ORDERS[order]()).post("/orders").headers

    assert not [name for name in headers if name.startswith("access-control-allow-origin")]
    assert "access-control-expose-headers" not in headers


@pytest.mark.parametrize("order", ORDERS)
async def test_websocket_with_cors_is_refused(order: str) -> None:
    app = ORDERS[order]()
    routes: Any = app
    while not isinstance(routes, FastAPI):
        routes = routes.app

    @routes.websocket("/ws")
    async def ws() -> None: ...

    start, _ = await exchange(app, websocket_scope(FROM_THERE, path="/ws"))
    assert start["status"] == 503


@pytest.mark.parametrize("inner", [True, False])
def test_cors_response_of_handlers_is_readable(inner: bool) -> None:
    def refuse(request: Request) -> bool:
        raise HTTPException(403)

    for options, status in (
        ({"response_handler": lambda request: JSONResponse({}, 418)}, 418),
        ({"exempt_handler": refuse}, 403),
    ):
        order = THEIRS, Middleware(MaintenanceModeMiddleware, **options)
        app = within(*order) if inner else within(*reversed(order))
        answer = TestClient(app).post("/orders", headers=FROM_THERE)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (
            status,
            ORIGIN,
        )


def test_cors_headers_exposed_by_the_app_are_kept() -> None:
    app = within(
        Middleware(CORSMiddleware, **CORS, expose_headers=["Retry-After", "X-Total"]), OURS
    )
    answer = TestClient(app).post("/orders", headers=FROM_THERE)

    assert answer.headers["access-control-expose-headers"] == "Retry-After, X-Total"


def test_preflight_without_cors_is_refused() -> None:
    answer = TestClient(within(OURS)).options("/anything", headers=PREFLIGHT)

    assert answer.status_code == 503
    assert "access-control-allow-origin" not in answer.headers


def test_cors_middleware_outside_is_not_applied_twice() -> None:
    """What it adds would be added twice."""
    app = within(Middleware(Hiding), OURS, THEIRS)

    assert TestClient(app).post("/orders", headers=FROM_THERE).headers["vary"].lower().split(
        ", "
    ) == ["accept", "origin"]


def test_cors_response_with_options_is_readable() -> None:
    app = within(
        THEIRS,
        Middleware(
            MaintenanceModeMiddleware, response=ResponseOptions(redirect="https://status.example")
        ),
    )
    answer = TestClient(app).post(
        "/orders", headers=FROM_THERE | {"accept": "text/html"}, follow_redirects=False
    )

    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (302, ORIGIN)


def mounting(*mounts: BaseRoute) -> ASGIApp:
    """An application without CORS around others that may have it."""
    app = shop()
    app.router.routes.extend(mounts)
    app.add_middleware(MaintenanceModeMiddleware)
    return app


def shared() -> FastAPI:
    """An application that other origins may use."""
    return within(THEIRS)


@pytest.mark.parametrize(
    ("app", "path"),
    [
        (lambda: mounting(Mount("/v1", shop()), Mount("/v2", shared())), "/v2/orders"),
        (
            lambda: mounting(Mount("/api", FastAPI(routes=[Mount("/v1", shared())]))),
            "/api/v1/orders",
        ),
        (lambda: mounting(Mount("/api", shop(), middleware=[THEIRS])), "/api/orders"),
        (lambda: mounting(Host("testserver", Router([Mount("/shop", shared())]))), "/shop/orders"),
    ],
)
def test_mounted_app_has_its_own_cors(app: Callable[[], ASGIApp], path: str) -> None:
    client = TestClient(app())
    preflight = client.options(path, headers=PREFLIGHT)
    answer = client.post(path, headers=FROM_THERE)

    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (
        200,
        ORIGIN,
    )
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (503, ORIGIN)
    assert "access-control-allow-origin" not in client.post("/orders", headers=FROM_THERE).headers


@pytest.mark.parametrize("path", ["/v1/orders", "/orders", "/v2/closed/first"])
def test_route_beside_a_mounted_app_has_no_cors(path: str) -> None:
    app = shop()
    app.add_api_route("/v2/closed/first", lambda: None, methods=["POST"])
    app.mount("/v1", shop())
    app.mount("/v2", shared())
    app.add_middleware(MaintenanceModeMiddleware)
    answer = TestClient(app).post(path, headers=FROM_THERE)

    assert answer.status_code == 503
    assert "access-control-allow-origin" not in answer.headers


def test_mounted_app_behind_another_method_has_its_cors() -> None:
    app = Starlette(
        routes=[
            Route("/v2/orders", lambda request: PlainTextResponse("list"), methods=["GET"]),
            Mount("/v2", shared()),
        ]
    )
    app.add_middleware(MaintenanceModeMiddleware)

    assert (
        TestClient(app)
        .post("/v2/orders", headers=FROM_THERE)
        .headers["access-control-allow-origin"]
        == ORIGIN
    )


def test_cors_lookup_survives_a_failing_convertor(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Convertor[str]):
        regex = ".*"

        def convert(self, value: str) -> str:
            raise RuntimeError("cannot")

        def to_string(self, value: str) -> str:
            return value

    monkeypatch.setitem(CONVERTOR_TYPES, "failing", Failing())
    app = Starlette(
        routes=[Route("/v2/{x:failing}", PlainTextResponse("never")), Mount("/v2", shared())]
    )
    app.add_middleware(MaintenanceModeMiddleware)

    assert TestClient(app).post("/v2/orders", headers=FROM_THERE).status_code == 503


def test_default_app_of_a_router_has_no_cors() -> None:
    app = Starlette(routes=[Mount("/v2", shared())], middleware=[OURS])
    app.router.default = PlainTextResponse("the rest")
    answer = TestClient(app).get("/elsewhere", headers=FROM_THERE)

    assert answer.status_code == 503
    assert "access-control-allow-origin" not in answer.headers
