"""The middleware end to end: what a client sees, whatever stands above it, beneath it and around
it.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Final

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.testclient import WebSocketDenialResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MaintenanceState,
    MaintenanceStateDep,
    ResponseOptions,
    configure_backend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.base import SnapshotListener
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF, ON
from fastapi_maintenance.responses.response import MaintenanceResponse
from fastapi_maintenance.runtime.requests import current_request

from ..apps import misconfigured
from ..support.asgi import UNUSED, exchange, http_scope, refusal_to_start, sending, websocket_scope
from ..support.doubles import StateBoard, Switchboard
from ..support.ports import free_port
from ..support.servers import RedisServer
from ..support.waiting import eventually, eventually_sync

ROOT: Final = Path(__file__).parents[2]
LOGGER: Final = "fastapi_maintenance"
VARIABLE: Final = "FASTAPI_MAINTENANCE_MODE"
DETAIL: Final = "Service temporarily unavailable due to maintenance"


def shop(**options: Any) -> FastAPI:
    """An application with something of everything, and without the middleware."""
    app = FastAPI(**options)

    @app.get("/items")
    async def items() -> str:
        return "items"

    @app.post("/items")
    async def add_item(request: Request) -> str:
        return (await request.body()).decode()

    @app.get("/closed")
    @force_maintenance_mode_on
    async def closed() -> None: ...

    @app.get("/health")
    @force_maintenance_mode_off
    async def health() -> str:
        return "ok"

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    return app


def added(app: FastAPI, **options: Any) -> ASGIApp:
    """With the middleware as most add it."""
    app.add_middleware(MaintenanceModeMiddleware, **options)
    return app


def wrapped(app: FastAPI, **options: Any) -> ASGIApp:
    """With the middleware around the whole application, as pure ASGI permits."""
    return MaintenanceModeMiddleware(app, **options)


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def during(block: Callable[[], AbstractAsyncContextManager[Any]]) -> Lifespan:
    """A lifespan that is spent inside a block."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with block():
            yield

    return lifespan


@pytest.fixture
def board() -> Switchboard:
    return Switchboard(ttl=0.1)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maintenance is on where no backend is given."""
    monkeypatch.setenv(VARIABLE, "1")


# -- precedence ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """One request; an exempt one carries the ticket that the exempt handler looks for."""

    path: str
    method: str = "GET"
    exempt: bool = False

    @property
    def headers(self) -> dict[str, str]:
        return {"x-ticket": "gold"} if self.exempt else {}

    def status(self, hold: str, override: bool | None, switch: bool) -> int:
        """What the table of precedence says: the first rule that applies."""
        table = (
            (self.path == "/closed", 503),
            (self.path == "/health", 200),
            (self.path == "/nowhere", 404),
            (self.path == "/items/", 307),
            (self.method == "DELETE", 405),
            (self.exempt or self.path in ("/docs", "/openapi.json"), 200),
            (hold != "none", 503 if hold == "on" else 200),
            (override is not None, 503 if override else 200),
            (True, 503 if switch else 200),
        )
        return next(status for applies, status in table if applies)


ASKS: Final = [
    *(
        Ask(path, exempt=exempt)
        for path in ("/closed", "/health", "/nowhere", "/items/", "/items")
        for exempt in (False, True)
    ),
    Ask("/items", "DELETE"),
    Ask("/docs"),
    Ask("/openapi.json"),
]
HOLDS: Final[dict[str, Callable[[], AbstractAsyncContextManager[Any]]]] = {
    "none": nullcontext,
    "on": maintenance_mode_on,
    "off": maintenance_mode_off,
}
SITUATIONS: Final = [*product(HOLDS, (None, True, False), (True, False))]


def has_ticket(connection: HTTPConnection) -> bool:
    return connection.headers.get("x-ticket") == "gold"


@pytest.mark.parametrize("how", [added, wrapped])
@pytest.mark.parametrize(("hold", "override", "switch"), SITUATIONS)
def test_rules_each_before_the_next(
    how: Callable[..., ASGIApp], hold: str, override: bool | None, switch: bool
) -> None:
    app = how(
        shop(lifespan=during(HOLDS[hold])),
        enable_maintenance=override,
        backend=Switchboard(switch),
        exempt_handler=has_ticket,
    )
    with TestClient(app, follow_redirects=False) as client:
        answers = {
            ask: client.request(ask.method, ask.path, headers=ask.headers).status_code
            for ask in ASKS
        }

    assert answers == {ask: ask.status(hold, override, switch) for ask in ASKS}


def test_rule_table_tells_all_rules_apart() -> None:
    """Else the test above would prove less than it seems to."""
    seen = {(ask, ask.status(*situation)) for ask in ASKS for situation in SITUATIONS}

    assert {status for _, status in seen} == {200, 307, 404, 405, 503}
    assert [
        ask.path for ask in ASKS if len({status for asked, status in seen if asked == ask}) > 1
    ] == ["/items"]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that is only ASGI: no routes, no lifespan."""
    assert scope["type"] == "http", "no lifespan here"
    await PlainTextResponse("hello")(scope, receive, send)


@pytest.mark.parametrize(("hold", "override", "switch"), SITUATIONS)
async def test_app_without_routes_follows_the_same_rules(
    hold: str, override: bool | None, switch: bool
) -> None:
    app = MaintenanceModeMiddleware(hello, override, Switchboard(switch), has_ticket)
    async with app.mode, HOLDS[hold]() if hold == "none" else HOLDS[hold](app.mode.backend):  # type: ignore[call-arg]
        for ask in (Ask("/items"), Ask("/items", exempt=True)):
            start, *_ = await exchange(app, http_scope(headers=ask.headers))
            assert start["status"] == ask.status(hold, override, switch)


@pytest.mark.parametrize("path", ["/items", "/closed", "/nowhere", "/health"])
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
async def test_response_without_client_or_server_is_the_same(
    on: None, path: str, accept: str
) -> None:
    app = added(shop())
    served = TestClient(app).get(path, headers={"accept": accept})
    start, body = await exchange(
        app, http_scope(path=path, headers={"accept": accept}), sending({"type": "http.request"})
    )

    assert start["status"] == served.status_code
    assert body["body"] == served.content
    assert {name.decode(): value.decode() for name, value in start["headers"]} == dict(
        served.headers
    )


# -- the answer ------------------------------------------------------------------------------------


def test_response_by_default_is_the_promised_one(on: None) -> None:
    answer = TestClient(added(shop())).get("/items")

    assert answer.status_code == 503
    assert answer.content == b'{"detail":"Service temporarily unavailable due to maintenance"}'
    assert answer.headers["retry-after"] == "3600"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"


def test_browser_gets_a_page(on: None) -> None:
    browser = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    answer = TestClient(added(shop())).get("/items", headers=browser)

    assert answer.status_code == 503
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<h1>Down for maintenance</h1>" in answer.text


def test_response_is_encoded_once_per_state(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str | None] = []

    class Counting(MaintenanceResponse):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            encoded.append(args[0].message)

    monkeypatch.setattr("fastapi_maintenance.middleware.middleware.MaintenanceResponse", Counting)
    client = TestClient(added(shop()))
    for message in ("until four", "until five"):
        monkeypatch.setenv(
            VARIABLE, f'{{"enabled": true, "message": "{message}", "retry_after": 7}}'
        )
        for _ in range(5):
            answer = client.get("/items")
            assert answer.json() == {"detail": message}
            assert answer.headers["retry-after"] == "7"
            assert client.get("/closed").json() == {"detail": DETAIL}

    assert encoded == [None, "until four", "until five"]


class Ahead(Switchboard):
    """Its clock is an hour ahead of this host's."""

    async def read(self) -> Snapshot:
        now = time.time() + 3600
        return Snapshot(
            MaintenanceState(enabled=True, ends_at=datetime.fromtimestamp(now + 60, UTC)), (), now
        )


def test_retry_after_counts_on_the_backend_clock() -> None:
    with TestClient(added(shop(), backend=Ahead())) as client:
        assert 55 <= int(client.get("/items").headers["retry-after"]) <= 60


def test_forced_on_route_ignores_details_of_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '{"enabled": true, "message": "until four"}')

    assert TestClient(added(shop())).get("/closed").json() == {"detail": DETAIL}


def test_response_options_apply_to_forced_on_routes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(added(shop(), response=ResponseOptions(status_code=500, retry_after=7)))
    assert (answer := client.get("/closed")).status_code == 500
    assert answer.headers["retry-after"] == "7"
    monkeypatch.setenv(VARIABLE, '{"enabled": true, "message": "until four"}')

    for path in ("/items", "/closed"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (500, "7")


def test_change_is_logged_once_and_no_request_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    with TestClient(added(shop())) as client:
        for value in ("1", "0"):
            monkeypatch.setenv(VARIABLE, value)
            for _ in range(10):
                client.get("/items")

    assert [record.message for record in caplog.records if record.name == LOGGER] == [
        "maintenance on (full, env)",
        "maintenance off (env)",
    ]


# -- methods and paths -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_route_closes_for_every_method(on: None, method: str) -> None:
    app = FastAPI()
    app.add_api_route("/any", lambda: None, methods=[method])

    assert TestClient(added(app)).request(method, "/any").status_code == 503


def test_head_gets_the_headers_of_get_and_no_body(on: None) -> None:
    app = FastAPI()
    app.add_api_route("/page", lambda: None, methods=["GET", "HEAD"])
    client = TestClient(added(app))
    get, head = client.get("/page"), client.head("/page")

    assert head.status_code == 503
    assert head.headers == get.headers
    assert int(head.headers["content-length"]) == len(get.content)
    assert head.content == b""


def test_unknown_route_keeps_the_answer_of_the_app(on: None) -> None:
    app = shop()

    @app.exception_handler(404)
    async def lost(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("lost?", 404)

    client = TestClient(added(app), follow_redirects=False)

    assert client.get("/nowhere").text == "lost?"
    assert client.delete("/items").headers["allow"]
    assert client.get("/items/").headers["location"] == "http://testserver/items"
    assert client.get("/items/", follow_redirects=True).status_code == 503


def test_route_added_later_is_judged_like_any_other(on: None) -> None:
    app = shop()
    client = TestClient(added(app))
    assert client.get("/new").status_code == 404

    app.add_api_route("/new", lambda: None)
    app.add_api_route("/new-and-open", force_maintenance_mode_off(lambda: None))

    assert client.get("/new").status_code == 503
    assert client.get("/new-and-open").status_code == 200


COMING: Final = '{"enabled": true, "starts_at": "2100-01-01T00:00:00.5Z", "mode": "read-only"}'


def test_upcoming_window_is_announced_if_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(added(shop(), announce=True))
    assert "x-maintenance-coming" not in client.get("/items").headers
    monkeypatch.setenv(VARIABLE, COMING)
    for path in ("/items", "/health", "/missing"):
        assert client.get(path).headers["x-maintenance-coming"] == "read-only;starts_at=@4102444800"
    assert "x-maintenance-coming" not in client.get("/closed").headers, (
        "what is refused has begun already"
    )
    assert "x-maintenance-coming" not in TestClient(added(shop())).get("/items").headers


def test_upcoming_window_is_announced_with_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        VARIABLE,
        '{"enabled": true, "starts_at": "2100-01-01T00:00:00Z", "ends_at": '
        '"2100-01-01T00:00:00.5Z"}',
    )
    assert TestClient(added(shop(), announce=True)).get("/items").headers[
        "x-maintenance-coming"
    ] == ("full;starts_at=@4102444800;ends_at=@4102444801")


@pytest.mark.parametrize("order", ["cors outside", "cors inside"])
def test_upcoming_window_is_exposed_to_other_origins(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, COMING)
    layers: list[tuple[Any, dict[str, Any]]] = [
        (MaintenanceModeMiddleware, {"announce": True}),
        (CORSMiddleware, {"allow_origins": ["https://shop.example"]}),
    ]
    app = shop()
    for cls, options in layers if order == "cors outside" else reversed(layers):
        app.add_middleware(cls, **options)
    answer = TestClient(app).get("/items", headers={"origin": "https://shop.example"})

    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert answer.headers["access-control-expose-headers"] == "x-maintenance-coming"
    assert "access-control-expose-headers" not in TestClient(app).get("/items").headers


@pytest.mark.parametrize("override", [True, False])
def test_upcoming_window_overridden_is_not_announced(
    monkeypatch: pytest.MonkeyPatch, override: bool
) -> None:
    monkeypatch.setenv(VARIABLE, COMING)
    client = TestClient(added(shop(), announce=True, enable_maintenance=override))
    assert "x-maintenance-coming" not in client.get("/health").headers


def test_upcoming_window_is_not_announced_to_websockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, COMING)
    assert talk(TestClient(added(shop(), announce=True))) == "hello"


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE"]
)
def test_read_only_mode_admits_safe_methods(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setenv(VARIABLE, '{"enabled": true, "mode": "read-only"}')
    app = FastAPI()
    app.add_api_route("/any", lambda: None, methods=[method])
    app.add_api_route("/closed", force_maintenance_mode_on(lambda: None), methods=[method])
    client = TestClient(added(app))

    assert client.request(method, "/any").status_code == (
        200 if method in ("GET", "HEAD", "OPTIONS", "TRACE") else 503
    )
    assert client.request(method, "/closed").status_code == 503


async def test_exempt_read_of_read_only_mode_holds_up_no_drain() -> None:
    """A stream that was admitted because it reads is asked about at the next closing."""
    board, finish = StateBoard(ON.replace(mode="read-only")), asyncio.Event()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await finish.wait()

    middleware = MaintenanceModeMiddleware(
        stream, backend=board, exempt_handler=lambda request: request.url.path == "/events"
    )
    requests = middleware.mode.requests
    async with middleware.mode as mode:
        asked = [
            asyncio.create_task(middleware(http_scope(path=path), UNUSED, UNUSED))
            for path in ("/events", "/items")
        ]
        await eventually(lambda: len(requests) == 2, within=30)
        assert requests.count(mode.gate) == (0, 0)
        await board.flip(ON)
        await eventually(lambda: requests.count(mode.gate) == (1, 0), within=30)
        finish.set()
        await asyncio.gather(*asked)


# -- documentation ---------------------------------------------------------------------------------

ELSEWHERE: Final = {
    "docs_url": "/manual",
    "redoc_url": "/reference",
    "openapi_url": "/schema.json",
    "swagger_ui_oauth2_redirect_url": "/manual/back",
}


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize("via", ["proxy", "app", "mount"])
def test_docs_are_exempt_at_their_configured_urls(on: None, via: str, prefix: str) -> None:
    app = shop(**ELSEWHERE)
    if via == "app":
        app.root_path = prefix
    if via == "mount":
        outer = FastAPI()
        outer.mount(prefix or "/", app)
        app = outer
    client = TestClient(added(app), root_path=prefix if via == "proxy" else "")

    for url in ELSEWHERE.values():
        assert client.get(prefix + url).status_code == 200, url
    assert client.get(f"{prefix}/items").status_code == 503
    # The outer one has docs, too.
    assert client.get(f"{prefix}/docs").status_code == (404 if via != "mount" or prefix else 200)


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_docs_are_closed_without_exempt_docs(on: None, path: str) -> None:
    assert TestClient(added(shop(), exempt_docs=False)).get(path).status_code == 503
    assert TestClient(added(shop(), exempt_docs=True)).get(path).status_code == 200


def test_docs_replaced_by_a_route_are_not_exempt(on: None) -> None:
    app = shop(docs_url=None)
    for path in ("/docs", "/docs-export", "/redoc/more"):
        app.add_api_route(path, lambda: None)
    client = TestClient(added(app))

    assert [
        client.get(path).status_code for path in ("/docs", "/docs-export", "/redoc/more", "/redoc")
    ] == [503, 503, 503, 200]


# -- WebSockets ------------------------------------------------------------------------------------


def talk(client: TestClient, path: str = "/echo", **headers: str) -> str:
    with client.websocket_connect(path, headers=headers) as websocket:
        websocket.send_text("hello")
        return websocket.receive_text()


@pytest.mark.parametrize("options", [{}, {"close_websockets": 5}])
def test_websocket_while_open_is_admitted(options: dict[str, Any]) -> None:
    with TestClient(added(shop(), backend=Switchboard(), **options)) as client:
        assert talk(client) == "hello"


@pytest.mark.parametrize("value", ["1", '{"enabled": true, "mode": "read-only"}'])
def test_websocket_while_closed_is_denied_with_the_response(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """In read-only mode, too: whoever is let in can write."""
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(WebSocketDenialResponse) as denied:
        talk(TestClient(added(shop())))

    assert denied.value.status_code == 503
    assert denied.value.json()["detail"].endswith("due to maintenance")
    assert denied.value.headers["cache-control"] == "no-store"


async def test_websocket_without_denial_is_closed_before_accept(on: None) -> None:
    sent = await exchange(added(shop()), websocket_scope(denial=False, path="/echo"))

    assert sent == [{"type": "websocket.close", "code": 1013, "reason": DETAIL}]


@pytest.mark.parametrize("options", [{}, {"close_websockets": 5}])
def test_websocket_forced_off_or_exempt_is_admitted(on: None, options: dict[str, Any]) -> None:
    app = shop()

    @app.websocket("/support")
    @force_maintenance_mode_off
    async def support(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())

    client = TestClient(added(app, exempt_handler=has_ticket, **options))

    assert talk(client, "/support") == "hello"
    assert talk(client, "/echo", **{"x-ticket": "gold"}) == "hello"


def test_websocket_forced_on_is_always_denied() -> None:
    app = FastAPI()

    @app.websocket("/closed")
    @force_maintenance_mode_on
    async def closed(websocket: WebSocket) -> None: ...

    with pytest.raises(WebSocketDenialResponse) as denied:
        talk(TestClient(added(app)), "/closed")

    assert denied.value.status_code == 503


def test_websocket_without_route_is_refused_by_the_app(on: None) -> None:
    with pytest.raises(WebSocketDisconnect) as refused:
        talk(TestClient(added(shop())), "/nowhere")

    assert not isinstance(refused.value, WebSocketDenialResponse)


def test_response_handler_answers_websockets_too(on: None) -> None:
    given: list[type[HTTPConnection]] = []

    def answer(connection: HTTPConnection) -> Response:
        given.append(type(connection))
        return PlainTextResponse(f"no {connection.url.path} today", 418)

    client = TestClient(added(shop(), response_handler=answer))
    with pytest.raises(WebSocketDenialResponse) as denied:
        talk(client)

    assert (denied.value.status_code, denied.value.text) == (418, "no /echo today")
    assert client.get("/items").text == "no /items today"
    assert given == [HTTPConnection, Request]


# -- a worker closed by its fence ------------------------------------------------------------------


def test_fenced_worker_answers_retry_after_of_a_few_seconds() -> None:
    backend = Switchboard(ttl=0.1)
    backend.error = OSError("gone")
    seen: set[str] = set()

    def answer(request: Request, state: MaintenanceState) -> Response:
        return PlainTextResponse(str(state.retry_after), 503)

    for options in ({}, {"response_handler": answer}):
        client = TestClient(added(shop(), backend=backend, on_unreachable="closed", **options))
        assert client.get("/closed").headers.get("retry-after", "3600") == "3600"
        answers = [client.get("/items") for _ in range(60)]
        seen = {answer.headers["retry-after"] if not options else answer.text for answer in answers}

        assert {answer.status_code for answer in answers} == {503}
        assert seen == {"2", "3", "4", "5"}


# -- the state inside a request --------------------------------------------------------------------


def banner(backend: Switchboard, **options: Any) -> TestClient:
    """An application that shows the state to those whom it serves."""
    app = FastAPI()

    async def told(
        state: MaintenanceStateDep, on: Annotated[bool, Depends(get_maintenance_mode)]
    ) -> list[Any]:
        assert state == await get_maintenance_state()
        return [state.enabled, state.message, on]

    app.get("/items")(told)
    app.post("/items")(told)
    app.add_api_route("/health", force_maintenance_mode_off(told))
    app.add_middleware(MaintenanceModeMiddleware, backend=backend, **options)
    return TestClient(app)


def test_state_dependency_tells_what_the_gate_decided_by() -> None:
    read_only = MaintenanceState(enabled=True, message="reads only", mode="read-only")

    assert banner(StateBoard(OFF)).get("/items").json() == [False, None, False]
    assert banner(StateBoard(read_only)).get("/items").json() == [True, "reads only", True]
    assert banner(StateBoard(read_only)).get("/health").json() == [True, "reads only", True]
    assert banner(StateBoard(read_only), exempt_handler=lambda _: True).post("/items").json() == [
        True,
        "reads only",
        True,
    ]
    assert banner(StateBoard(read_only), enable_maintenance=False).get("/items").json() == [
        False,
        None,
        True,
    ]


def test_state_dependency_takes_nothing_from_the_request() -> None:
    client = banner(StateBoard(OFF))

    assert (
        client.get(
            "/items", params={"backend": "redis://evil", "scope": "x", "component": "x"}
        ).status_code
        == 200
    )
    assert "parameters" not in client.get("/openapi.json").json()["paths"]["/items"]["get"]


def test_response_handler_sees_the_state_that_refused() -> None:
    async def answer(request: Request) -> Response:
        return PlainTextResponse(str((await get_maintenance_state()).message), 503)

    app = shop()
    app.add_middleware(
        MaintenanceModeMiddleware,
        backend=StateBoard(MaintenanceState(enabled=True, message="soon")),
        response_handler=answer,
    )

    assert TestClient(app).get("/items").text == "soon"
    assert TestClient(app).get("/closed").text == "None", (
        "a forced-on route does not borrow what the switch says"
    )


async def test_state_of_a_request_stays_as_it_was_decided() -> None:
    backend = StateBoard(OFF)
    app = FastAPI()

    @app.get("/items")
    async def items() -> list[bool]:
        before = await get_maintenance_state()
        await backend.flip(ON)
        return [
            before.enabled,
            (await get_maintenance_state()).enabled,
            await get_maintenance_mode(),
        ]

    middleware = MaintenanceModeMiddleware(app, backend=backend)
    async with middleware.mode:
        *_, body = await exchange(middleware, http_scope())
    assert body["body"] == b"[false,false,true]"


async def test_state_outside_of_requests_is_the_effective_one() -> None:
    configure_backend(backend := StateBoard(MaintenanceState(enabled=True, message="soon")))

    assert (await get_maintenance_state()).message == "soon"
    assert (await get_maintenance_state(StateBoard(OFF), component="x")) == OFF
    seen: list[bool] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        seen.append((await get_maintenance_state()).enabled)
        yield

    with TestClient(added(FastAPI(lifespan=lifespan), backend=backend)):
        assert seen == [True]


# -- handlers --------------------------------------------------------------------------------------


async def has_ticket_async(connection: HTTPConnection) -> bool:
    return has_ticket(connection)


def has(name: str, connection: HTTPConnection) -> bool:
    return name in connection.headers


class Porter:
    def __call__(self, connection: HTTPConnection) -> bool:
        return has_ticket(connection)


class AsyncPorter:
    async def __call__(self, connection: HTTPConnection) -> bool:
        return has_ticket(connection)


EXEMPT: Final = {
    "function": has_ticket,
    "async function": has_ticket_async,
    "partial": partial(has, "x-ticket"),
    "partial of an async function": partial(has_ticket_async),
    "object": Porter(),
    "async object": AsyncPorter(),
    "method": AsyncPorter().__call__,
}


@pytest.mark.parametrize("handler", EXEMPT.values(), ids=EXEMPT)
def test_exempt_handler_of_any_shape_is_called(on: None, handler: Any) -> None:
    client = TestClient(added(shop(), exempt_handler=handler))

    assert client.get("/items", headers={"x-ticket": "gold"}).json() == "items"
    assert client.get("/items").status_code == 503


def teapot(connection: HTTPConnection) -> Response:
    return PlainTextResponse("short and stout", 418)


async def teapot_async(connection: HTTPConnection) -> Response:
    return teapot(connection)


def pot(status: int, connection: HTTPConnection) -> Response:
    return PlainTextResponse("short and stout", status)


class Teapot:
    def __call__(self, connection: HTTPConnection) -> Response:
        return teapot(connection)


class AsyncTeapot:
    async def __call__(self, connection: HTTPConnection) -> Response:
        return teapot(connection)


RESPOND: Final = {
    "function": teapot,
    "async function": teapot_async,
    "partial": partial(pot, 418),
    "partial of an async function": partial(teapot_async),
    "object": Teapot(),
    "async object": AsyncTeapot(),
    "method": Teapot().__call__,
}


@pytest.mark.parametrize("handler", RESPOND.values(), ids=RESPOND)
def test_response_handler_of_any_shape_is_called(on: None, handler: Any) -> None:
    answer = TestClient(added(shop(), response_handler=handler)).get("/items")

    assert (answer.status_code, answer.text) == (418, "short and stout")


def test_response_handler_answers_for_forced_on_routes() -> None:
    assert TestClient(added(shop(), response_handler=teapot)).get("/closed").status_code == 418


def test_exempt_handler_is_called_only_if_it_matters(on: None) -> None:
    asked: list[str] = []

    def ask(request: Request) -> bool:
        asked.append(request.url.path)
        return False

    client = TestClient(added(shop(), exempt_handler=ask))
    for path in ("/closed", "/health", "/nowhere", "/docs", "/items"):
        client.get(path)

    assert asked == ["/items"]


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_exempt_handler_may_read_the_body_before_the_endpoint(on: None, size: int) -> None:
    async def is_signed(request: Request) -> bool:
        return (await request.body()).endswith(b"signed")

    client = TestClient(added(shop(), exempt_handler=is_signed))
    text = "x" * size

    assert client.post("/items", content=f"{text} signed").json() == f"{text} signed"
    assert client.post("/items", content=text).status_code == 503


async def test_body_in_pieces_is_whole_for_the_endpoint(on: None) -> None:
    async def peeks(request: Request) -> bool:
        return await anext(aiter(request.stream())) == b"first "

    pieces = (
        {"type": "http.request", "body": body, "more_body": body != b"third"}
        for body in (b"first ", b"second ", b"third")
    )
    scope = http_scope("POST", path="/items", state={})
    _, answer = await exchange(added(shop(), exempt_handler=peeks), scope, sending(*pieces))

    assert answer["body"] == b'"first second third"'


def test_response_handler_may_read_the_body(on: None) -> None:
    async def mirror(request: Request) -> Response:
        return PlainTextResponse(f"not now: {(await request.body()).decode()}", 503)

    assert (
        TestClient(added(shop(), response_handler=mirror)).post("/items", content="buy").text
        == "not now: buy"
    )


class Tea(Exception):
    """An error that the application has a handler for."""


def failing(error: Exception, connection: HTTPConnection) -> Any:
    raise error


def tea_room(**options: Any) -> FastAPI:
    app = shop()

    @app.exception_handler(Tea)
    async def serve(request: Request, error: Tea) -> PlainTextResponse:
        return PlainTextResponse("tea is served", 418)

    @app.get("/fail")
    @force_maintenance_mode_off
    async def fail() -> None:
        raise options["error"]

    return app


@pytest.mark.parametrize("role", ["exempt_handler", "response_handler"])
@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (
            HTTPException(401, "who are you?", {"www-authenticate": "Basic"}),
            401,
            '{"detail":"who are you?"}',
        ),
        (Tea(), 418, "tea is served"),
        (LookupError("no such tea"), 500, "Internal Server Error"),
    ],
)
def test_handler_error_is_answered_as_an_endpoints(
    on: None, role: str, error: Exception, status: int, text: str
) -> None:
    app = added(tea_room(error=error), **{role: partial(failing, error)})
    client = TestClient(app, raise_server_exceptions=False)

    for path in ("/items", "/fail"):
        answer = client.get(path)
        assert (answer.status_code, answer.text) == (status, text)
        assert answer.headers.get("www-authenticate") == ("Basic" if status == 401 else None)


def test_error_handler_reads_the_body_after_exempt_handler(on: None) -> None:
    async def reads(request: Request) -> bool:
        raise Tea(await request.body())

    app = shop()

    @app.exception_handler(Tea)
    async def serve(request: Request, error: Tea) -> PlainTextResponse:
        return PlainTextResponse(f"{error}, again {await request.body()!r}", 418)

    assert (
        TestClient(added(app, exempt_handler=reads)).post("/items", content="milk").text
        == "b'milk', again b'milk'"
    )


@pytest.mark.parametrize("role", ["exempt_handler", "response_handler"])
def test_handler_error_names_the_handler_in_log_and_traceback(
    on: None, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = shop()

    @app.exception_handler(Exception)
    async def apologise(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("sorry", 500)

    handler = partial(failing, LookupError("no such tea"))
    with pytest.raises(LookupError) as raised:
        TestClient(added(app, **{role: handler})).get("/items")

    assert raised.value.__notes__ == [
        f"Raised by the {role} tests.middleware.test_middleware.failing."
    ]
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        f"The {role} tests.middleware.test_middleware.failing failed: LookupError('no such tea')"
    ]
    assert TestClient(app, raise_server_exceptions=False).get("/items").text == "sorry"


# -- lifespan --------------------------------------------------------------------------------------


def test_lifespan_runs_while_the_switch_is_watched(board: Switchboard) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        events.append(f"on: {await get_maintenance_mode()}")
        board.value = False
        await eventually(is_off, within=30)
        events.append("off")
        yield {"greeting": "hello"}
        events.append("over")

    async def is_off() -> bool:
        return not await get_maintenance_mode()

    app = shop(lifespan=lifespan)

    @app.get("/greeting")
    async def greeting(request: Request) -> Any:
        return request.state.greeting

    board.value = True
    with TestClient(added(app, backend=board)) as client:
        assert client.get("/greeting").json() == "hello"
        assert events == ["on: True", "off"]
        board.value = True
        eventually_sync(lambda: client.get("/items").status_code == 503, within=30)

    assert events == ["on: True", "off", "over"]
    reads = board.reads
    time.sleep(2 * board.ttl)
    assert board.reads == reads, "still watched"


def test_switch_is_read_before_startup_for_the_first_request() -> None:
    """A worker that boots in the middle of a maintenance must not serve a single request."""
    board = Switchboard(True, ttl=30)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        assert board.reads == 1
        board.hang()
        yield

    with TestClient(added(shop(lifespan=lifespan), backend=board)) as client:
        assert client.get("/items").status_code == 503
    assert board.reads == 1


async def test_watch_ends_with_the_lifespan(board: Switchboard) -> None:
    app = MaintenanceModeMiddleware(shop(), backend=board)
    before = asyncio.all_tasks()
    await exchange(
        app,
        {"type": "lifespan"},
        sending({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}),
    )

    assert board.reads == 1
    assert asyncio.all_tasks() == before


@pytest.fixture
def default() -> Switchboard:
    """The process' default, which must stay out of it."""
    default = Switchboard()
    configure_backend(default)
    return default


async def flip() -> None:
    await set_maintenance_mode(True)


def test_lifespan_sets_the_switch_of_its_own_app(board: Switchboard, default: Switchboard) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await set_maintenance_mode(True)
        yield
        await set_maintenance_mode(False)

    with TestClient(added(shop(lifespan=lifespan), backend=board)) as client:
        assert client.get("/items").status_code == 503
        while_served = board.value
    assert (while_served, board.value, default.value) == (True, False, False)


def test_lifespan_holds_its_own_app(board: Switchboard, default: Switchboard) -> None:
    with TestClient(added(shop(lifespan=during(maintenance_mode_on)), backend=board)) as client:
        assert client.get("/items").status_code == 503
        assert asyncio.run(board.read()).holds
        assert not asyncio.run(default.read()).holds
    assert not asyncio.run(board.read()).holds


def test_task_of_a_lifespan_belongs_to_its_app(board: Switchboard, default: Switchboard) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(flip())
        yield
        await task

    with TestClient(added(shop(lifespan=lifespan), backend=board)) as client:
        eventually_sync(lambda: client.get("/items").status_code == 503, within=30)
    assert not default.value


def test_endpoint_flips_the_switch_of_its_own_app(board: Switchboard, default: Switchboard) -> None:
    app = shop()

    @app.post("/flip")
    async def flip_now() -> bool:
        await flip()
        return await get_maintenance_mode()

    with TestClient(added(app, backend=board)) as client:
        assert client.post("/flip").json() is True
        assert client.get("/items").status_code == 503, (
            "at once, not when the board is next looked at"
        )
    assert board.value
    assert not default.value


def test_startup_failure_ends_the_watch_and_is_reported(board: Switchboard) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        yield failing(LookupError("no database"), UNUSED)

    with (
        pytest.raises(LookupError, match="no database"),
        TestClient(added(shop(lifespan=lifespan), backend=board)),
    ):
        ...

    reads = board.reads
    time.sleep(2 * board.ttl)
    assert board.reads == reads, "still watched"


async def test_app_without_lifespan_support_is_served(board: Switchboard) -> None:
    board.value = True
    app = MaintenanceModeMiddleware(hello, backend=board)
    with pytest.raises(AssertionError, match="no lifespan here"):  # by which servers know
        await exchange(app, {"type": "lifespan"})
    try:
        assert (await exchange(app, http_scope()))[0]["status"] == 503
    finally:
        await app.mode.stop()


# -- options that cannot be meant ------------------------------------------------------------------

WRONG: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "enable_maintenance": (
        {"enable_maintenance": "no"},
        "enable_maintenance must be True, False or None, got 'no'",
    ),
    "unknown_routes": (
        {"unknown_routes": "close"},
        "unknown_routes must be one of pass, refuse, got 'close'",
    ),
    "a URL of nothing": (
        {"backend": "mongodb://localhost"},
        "A backend URL cannot start with 'mongodb'",
    ),
    "no backend": ({"backend": 42}, "backend must be a backend or its URL, got 42"),
    "exempt_handler": (
        {"exempt_handler": "/health"},
        "exempt_handler must be callable, got '/health'",
    ),
    "response_handler": ({"response_handler": 503}, "response_handler must be callable, got 503"),
    "on_unreachable": (
        {"on_unreachable": "maybe"},
        "on_unreachable must be one of last-known, open, closed, got 'maybe'",
    ),
    "stale_after": ({"stale_after": 0}, "stale_after must be a positive number of seconds"),
    "fallback": ({"fallback": [42]}, "fallback must be backends or their URLs, got 42"),
    "answer": (
        {"response": {"status_code": 500}},
        "response must be a ResponseOptions, got {'status_code': 500}",
    ),
    "two answers": (
        {
            "response": ResponseOptions(
                status_code=500, headers={"x-by": "us"}, redirect="/status"
            ),
            "response_handler": PlainTextResponse,
        },
        "response must be None beside a response_handler",
    ),
    "trusted_proxies": ({"trusted_proxies": ["proxy"]}, "A network must be like 10.0.0.0/8"),
    "forwarded": (
        {"forwarded": "via", "trusted_proxies": "127.0.0.1"},
        "forwarded must be one of x-forwarded-for, forwarded, got 'via'",
    ),
    "forwarded by nobody": (
        {"forwarded": "forwarded"},
        "trusted_proxies must name the proxies that write",
    ),
    "close_websockets": (
        {"close_websockets": -1},
        "close_websockets must be a positive number of seconds",
    ),
}


@pytest.mark.parametrize(("options", "sentence"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("how", [added, wrapped])
async def test_invalid_option_fails_the_startup(
    how: Callable[..., ASGIApp],
    options: dict[str, Any],
    sentence: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = how(shop(), **options)
    failed, error = await refusal_to_start(app)

    assert isinstance(error, ConfigurationError)
    assert failed["type"] == "lifespan.startup.failed"
    assert failed["message"].startswith("MaintenanceModeMiddleware: ")
    assert sentence in failed["message"]
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    assert sentence in caplog.text


@pytest.mark.parametrize(("options", "sentence"), WRONG.values(), ids=WRONG)
def test_invalid_option_without_lifespan_fails_each_request(
    options: dict[str, Any], sentence: str
) -> None:
    client = TestClient(added(shop(), **options))

    for path in ("/items", "/health"):
        with pytest.raises(ConfigurationError, match=sentence):
            client.get(path)


def test_invalid_option_fails_the_test_client() -> None:
    with (
        pytest.raises(ConfigurationError, match="on_unreachable must be one of"),
        TestClient(misconfigured.app),
    ):
        pytest.fail("It has started.")


def test_invalid_url_in_the_environment_fails_the_startup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", "redis//localhost")

    with pytest.raises(ConfigurationError, match="A backend URL cannot start with"):
        TestClient(added(shop())).get("/items")


def test_invalid_option_ends_a_real_server_with_its_message() -> None:
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "tests.apps.misconfigured:app",
        "--port",
        str(free_port()),
    ]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )

    assert ended.returncode not in (0, None)
    assert "on_unreachable must be one of last-known, open, closed, got 'maybe'." in ended.stderr
    assert "Traceback" not in ended.stderr


# -- where it can stand ----------------------------------------------------------------------------


def test_url_selects_the_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHOP_CLOSED", "yes")
    (tmp_path / "switch").write_text("on")

    for url in ("env:SHOP_CLOSED", f"file://{tmp_path}/switch"):
        with TestClient(added(shop(), backend=url)) as client:
            assert client.get("/items").status_code == 503


def test_redis_url_selects_the_backend(redis_server: RedisServer) -> None:
    redis_server.cli("SET", "shop", "1")
    app = MaintenanceModeMiddleware(shop(), backend=f"{redis_server.url}?key=shop")
    assert isinstance(app.mode.backend, RedisBackend)
    with TestClient(app) as client:
        assert client.get("/items").status_code == 503
        redis_server.cli("DEL", "shop")
        eventually_sync(lambda: client.get("/items").status_code == 200, within=30)


def test_mounted_app_works_without_lifespan(board: Switchboard) -> None:
    outer, inner = FastAPI(), shop()
    outer.add_api_route("/items", lambda: "outer")
    outer.mount("/inner", added(inner, backend=board))

    with TestClient(outer) as client:
        assert client.get("/inner/items").status_code == 200
        board.value = True
        eventually_sync(lambda: client.get("/inner/items").status_code == 503, within=30)
        assert client.get("/inner/health").status_code == 200
        assert client.get("/inner/docs").status_code == 200
        assert client.get("/inner/nowhere").status_code == 404
        assert client.get("/items").json() == "outer"
        board.value = False
        eventually_sync(lambda: client.get("/inner/items").status_code == 200, within=30)


def test_event_loop_per_request_is_right_within_ttl(board: Switchboard) -> None:
    """As TestClient has outside `with`, and as servers have that start one for each call."""
    client = TestClient(added(shop(), backend=board))
    for value, status in ((False, 200), (True, 503), (False, 200)):
        board.value = value
        time.sleep(board.ttl)
        assert client.get("/items").status_code == status


def test_two_apps_do_not_see_each_other() -> None:
    boards = [Switchboard(ttl=30), Switchboard(ttl=30)]
    apps = [shop(), shop()]
    for app, board in zip(apps, boards, strict=True):
        app.add_api_route("/flip", flip, methods=["POST"])
        app.add_middleware(MaintenanceModeMiddleware, backend=board)

    with TestClient(apps[0]) as first, TestClient(apps[1]) as second:
        first.post("/flip")
        assert first.get("/items").status_code == 503
        assert second.get("/items").status_code == 200
    assert [board.value for board in boards] == [True, False]


def test_nested_middlewares_make_the_innermost_current() -> None:
    boards = Switchboard(ttl=30), Switchboard(ttl=30)
    inner, outer = shop(), FastAPI()
    inner.add_api_route("/flip", flip, methods=["POST"])
    outer.add_api_route("/flip", flip, methods=["POST"])
    outer.mount("/inner", added(inner, backend=boards[1]))

    with TestClient(added(outer, backend=boards[0])) as client:
        client.post("/inner/flip")
        assert [board.value for board in boards] == [False, True]
        assert client.get("/inner/items").status_code == 503
        client.post("/flip")
        assert [board.value for board in boards] == [True, True]


# -- many at once, and those that do not stay ------------------------------------------------------


class Watched(Switchboard):
    """Counts its watches."""

    watches = 0

    async def watch(self, feed: SnapshotListener) -> None:
        self.watches += 1
        await super().watch(feed)


async def test_first_requests_share_one_watch_and_one_read() -> None:
    board = Watched(True, ttl=30)
    board.hang()
    app = MaintenanceModeMiddleware(hello, backend=board)
    requests = [asyncio.create_task(exchange(app, http_scope())) for _ in range(200)]
    await eventually(lambda: board.reads, within=30)
    assert not any(request.done() for request in requests)
    assert board.gate is not None
    board.gate.set()
    try:
        assert {(await request)[0]["status"] for request in requests} == {503}
        assert (board.watches, board.reads) == (1, 1)
    finally:
        await app.mode.stop()


def at_once(request: Coroutine[Any, Any, list[Message]]) -> int:
    """The status of an answer that is there without a single wait, be it for one turn of the event
    loop.
    """
    with pytest.raises(StopIteration) as returned:
        request.send(None)
    status: int = returned.value.value[0]["status"]
    return status


@pytest.mark.parametrize(("fallback", "status"), [("0", 200), ("1", 503)])
async def test_first_requests_wait_for_ttl_at_most_and_once(
    fallback: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, fallback)
    board = Switchboard(ttl=0.5)
    board.hang()
    app = MaintenanceModeMiddleware(hello, backend=board)
    began = time.monotonic()
    try:
        start, *_ = await asyncio.create_task(exchange(app, http_scope()))
        assert start["status"] == status
        assert 0.5 <= time.monotonic() - began < 5
        assert at_once(exchange(app, http_scope())) == status
    finally:
        await app.mode.stop()


async def test_backend_that_hangs_later_delays_no_request() -> None:
    board = Switchboard(True, ttl=0.2)
    app = MaintenanceModeMiddleware(hello, backend=board)
    async with app.mode:
        board.hang()
        for _ in range(3):  # the last of them beyond `stale_after`
            assert at_once(exchange(app, http_scope())) == 503
            await asyncio.sleep(board.ttl)


async def test_first_request_cancelled_cancels_no_other() -> None:
    board = Watched(True, ttl=30)
    board.hang()
    app = MaintenanceModeMiddleware(hello, backend=board)
    first, second = (asyncio.create_task(exchange(app, http_scope())) for _ in range(2))
    await eventually(lambda: board.reads, within=30)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert board.gate is not None
    board.gate.set()
    try:
        assert (await second)[0]["status"] == 503
        assert board.watches == 1
    finally:
        await app.mode.stop()


@pytest.mark.parametrize("status", [200, 503])
async def test_cancelled_request_leaves_nothing_behind(status: int) -> None:
    begun = asyncio.Event()

    async def forever(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def undecided(connection: HTTPConnection) -> Any:
        await forever(connection.scope, UNUSED, UNUSED)

    app = MaintenanceModeMiddleware(
        forever, backend=Switchboard(status == 503), exempt_handler=undecided
    )
    async with app.mode:
        request = asyncio.create_task(exchange(app, http_scope()))
        await begun.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert not app.mode.requests


@pytest.mark.parametrize("error", [None, LookupError("no such tea")])
async def test_current_request_ends_with_the_request(error: Exception | None) -> None:
    at_hand: list[Any] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        at_hand.append(current_request.get())
        if error is not None:
            raise error

    app = MaintenanceModeMiddleware(look, backend=Switchboard())
    async with app.mode:
        for scope in (http_scope(), websocket_scope()):
            with pytest.raises(LookupError) if error else nullcontext():
                await exchange(app, scope)
            assert current_request.get() is None
            assert not app.mode.requests

    assert [admission.owner for admission in at_hand] == [app.mode, app.mode]
    assert [admission.scope["type"] for admission in at_hand] == ["http", "websocket"]


async def test_asgi_scope_stays_unchanged(board: Switchboard) -> None:
    """The application, and whoever stands outside, see the very object that the server made."""
    seen: list[Scope] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    app = MaintenanceModeMiddleware(look, backend=board)
    scope = http_scope()
    before = dict(scope)
    async with app.mode:
        await exchange(app, scope)

    assert seen[0] is scope
    assert scope == before
