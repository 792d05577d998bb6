"""Whom a closing waits for: every request that was let in and that a closed service would refuse,
until its ASGI call has returned.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection as HTTPClient
from typing import Any, Final

import httpx2
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Host, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MaintenanceState,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_mode_on,
    untrack_current_request,
    wait_until_applied,
)
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF, ON
from fastapi_maintenance.model.workers import WAY_AROUND
from fastapi_maintenance.runtime.requests import InFlightRequest, current_request

from ..support.asgi import exchange, http_scope, websocket_scope
from ..support.doubles import Switchboard
from ..support.serving import serving
from ..support.waiting import eventually, eventually_sync

READ_ONLY: Final = MaintenanceState(enabled=True, mode="read-only")
FULL_AGAIN: Final = MaintenanceState(enabled=True, message="again")


class Desk(Switchboard):
    """A switch with details, that counts how often its worker has something new to register."""

    def __init__(self, name: str = "desk") -> None:
        super().__init__(ttl=30)
        self.state = OFF
        self.nudges = 0
        self.name = name

    async def read(self) -> Snapshot:
        return self._local_reading(self.state)

    async def flip(self, state: MaintenanceState) -> None:
        self.state = state
        await self._announce()

    def request_sync(self) -> None:
        self.nudges += 1

    def describe(self) -> str:
        return self.name


@dataclass
class Work:
    """Something that takes as long as the test wants."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> str:
        self.begun.set()
        await self.go.wait()
        return "done"


class SlowDoor:
    """A middleware beneath ours that lets nobody on before the work is done."""

    def __init__(self, app: ASGIApp, work: Work) -> None:
        self.app = app
        self.work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.work()
        await self.app(scope, receive, send)


class Service:
    """An application behind the middleware, and the requests that are made to it."""

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        self.desk = Desk()
        self.app = MaintenanceModeMiddleware(app, backend=self.desk, **options)
        self.mode = self.app.mode

    def request(
        self, method: str = "GET", path: str = "/jobs", headers: dict[str, str] | None = None
    ) -> asyncio.Task[list[Message]]:
        scope = http_scope(method, headers or {}, path=path, raw_path=path.encode())
        return asyncio.create_task(exchange(self.app, scope, receive=body))

    async def close(self, state: MaintenanceState = ON) -> None:
        """Close, and wait until everybody who is in flight has been classified."""
        await self.desk.flip(state)
        # Turns of the event loop that this takes, where no handler has to be asked.
        for _ in range(5):
            await asyncio.sleep(0)
        await eventually(
            lambda: all(admission.exempt is not None for admission in self.mode.requests),
            within=30,
        )

    @property
    def waited_for(self) -> tuple[int, int]:
        """How many HTTP requests and WebSockets, as the registry is told."""
        report = self.mode.report()
        assert report["drained"] is (
            report["closed"] and report["http"] == report["websockets"] == 0
        )
        return report["http"], report["websockets"]


async def body() -> Message:
    return {"type": "http.request", "body": b"text", "more_body": False}


@asynccontextmanager
async def running(app: ASGIApp, **options: Any) -> AsyncIterator[Service]:
    service = Service(app, **options)
    async with service.mode:
        yield service


def status(sent: list[Message]) -> int:
    code: int = sent[0]["status"]
    return code


@pytest.fixture
async def work() -> Work:
    return Work()


# -- until the ASGI call has returned --------------------------------------------------------------


def in_the_endpoint(app: FastAPI, work: Work) -> None:
    @app.get("/jobs")
    async def endpoint() -> str:
        return await work()


def in_a_thread(app: FastAPI, work: Work) -> None:
    loop = asyncio.get_running_loop()

    @app.get("/jobs")
    def endpoint() -> str:
        return asyncio.run_coroutine_threadsafe(work(), loop).result()


def in_the_stream(app: FastAPI, work: Work) -> None:
    async def lines() -> AsyncIterator[str]:
        yield "first"
        yield await work()

    @app.get("/jobs")
    async def endpoint() -> StreamingResponse:
        return StreamingResponse(lines())


def in_a_background_task(app: FastAPI, work: Work) -> None:
    @app.get("/jobs")
    async def endpoint(tasks: BackgroundTasks) -> str:
        tasks.add_task(work)
        return "begun"


def in_a_dependencys_end(app: FastAPI, work: Work) -> None:
    async def session() -> AsyncIterator[str]:
        yield "session"
        await work()

    @app.get("/jobs", dependencies=[Depends(session)])
    async def endpoint() -> str:
        return "begun"


STAGES: Final = [
    in_the_endpoint,
    in_a_thread,
    in_the_stream,
    in_a_background_task,
    in_a_dependencys_end,
]


@pytest.mark.parametrize("stage", STAGES)
async def test_request_counts_until_its_asgi_call_has_returned(
    stage: Callable[[FastAPI, Work], None], work: Work
) -> None:
    app = FastAPI()
    stage(app, work)
    async with running(app) as service:
        request = service.request()
        await asyncio.wait_for(work.begun.wait(), 10)
        assert service.waited_for == (1, 0)
        await service.close()
        assert service.waited_for == (1, 0)
        nudges = service.desk.nudges
        work.go.set()
        assert status(await request) == 200
        assert service.waited_for == (0, 0)
        assert service.desk.nudges == nudges + 1, "whoever waits for this worker is told at once"


async def test_websocket_counts_until_its_endpoint_has_returned(work: Work) -> None:
    app = FastAPI()

    @app.websocket("/jobs")
    async def endpoint(websocket: WebSocket) -> None:
        await work()

    async with running(app) as service:
        socket = asyncio.create_task(exchange(service.app, websocket_scope(path="/jobs")))
        request = service.request(path="/nowhere")
        await work.begun.wait()
        assert service.waited_for[1] == 1
        await request
        await service.close()
        assert service.waited_for == (0, 1)
        work.go.set()
        await socket
        assert service.waited_for == (0, 0)


@pytest.mark.parametrize("end", ["raises", "cancelled"])
async def test_request_that_fails_has_ended(end: str, work: Work) -> None:
    app = FastAPI()

    @app.get("/jobs")
    async def endpoint() -> None:
        await work()
        raise LookupError

    async with running(app) as service:
        request = service.request()
        await work.begun.wait()
        await service.close()
        if end == "cancelled":
            request.cancel()
        work.go.set()
        with pytest.raises((LookupError, asyncio.CancelledError)):
            await request
        assert service.waited_for == (0, 0)


async def test_report_while_open_counts_all_and_is_never_drained(work: Work) -> None:
    async with running(SlowDoor(FastAPI(), work)) as service:
        assert service.mode.report()["drained"] is False
        requests = [service.request(path=path) for path in ("/docs", "/nowhere")]
        await work.begun.wait()
        await asyncio.sleep(0)
        assert service.waited_for == (2, 0)
        work.go.set()
        await asyncio.gather(*requests)
        assert service.waited_for == (0, 0)
        assert service.desk.nudges == 0


# -- requests without a route ----------------------------------------------------------------------


class Legacy:
    """A middleware that answers what lies under /legacy by itself."""

    def __init__(self, app: ASGIApp, work: Work | None = None, status: int = 200) -> None:
        self.app = app
        self.work = work
        self.status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith("/legacy"):
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        if self.work is not None:
            await self.work()
        await send({"type": "http.response.body", "body": b"legacy"})


@pytest.mark.parametrize("closed", ["before", "meanwhile"])
async def test_unrouted_request_counts_until_its_last_byte(closed: str, work: Work) -> None:
    async with running(Legacy(counter(), work)) as service:
        if closed == "before":
            await service.close()
        request = service.request("POST", "/legacy/pay")
        await work.begun.wait()
        if closed == "meanwhile":
            await service.close()
        assert service.waited_for == (1, 0)
        work.go.set()
        assert status(await request) == 200
        assert service.waited_for == (0, 0)


@pytest.mark.parametrize(
    ("option", "code"),
    [({}, 200), ({"unknown_routes": "pass"}, 200), ({"unknown_routes": "refuse"}, 503)],
)
async def test_unrouted_request_is_refused_if_configured(option: dict[str, Any], code: int) -> None:
    async with running(Legacy(counter()), exempt_handler=has_ticket, **option) as service:
        assert status(await service.request(path="/legacy/pay")) == 200
        await service.close()
        assert status(await service.request(path="/legacy/pay")) == code
        assert (
            status(await service.request(path="/legacy/pay", headers={"x-ticket": "gold"})) == 200
        )
        assert status(await service.request(path="/nowhere")) == (404 if code == 200 else 503)
        assert service.mode.report()["drained"]


async def test_unrouted_answer_is_logged_and_reported_once_per_path(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(Legacy(counter())) as service:
        await service.request("POST", "/legacy/open")
        await service.close()
        for path in ("/legacy/pay", "/legacy/pay", "/nowhere", "/legacy/\nforged " + "x" * 200):
            await service.request("POST", path)
        await exchange(service.app, websocket_scope(path="/legacy/talk"), receive=body)
        records = [record for record in caplog.records if record.levelno == logging.WARNING]
        pay, forged, talk = (record.getMessage() for record in records)
        reported = service.mode.report()["unrouted"]

        assert pay == f"/legacy/pay {WAY_AROUND}"
        assert "unknown_routes=" in WAY_AROUND
        assert forged.startswith(r"/legacy/\nforged xxx")
        assert talk.startswith("/legacy/talk ")
        assert [path[:20] for path in reported] == [
            "/legacy/pay",
            r"/legacy/\nforged xxx",
            "/legacy/talk",
        ]
        assert len(reported[1]) == 100
        for number in range(20):
            await service.request("POST", f"/legacy/{number}")
        assert len(service.mode.report()["unrouted"]) == 8


async def test_unrouted_answer_of_an_exempt_request_is_not_reported() -> None:
    async with running(Legacy(counter()), exempt_handler=has_ticket) as service:
        await service.close()
        await service.request("POST", "/legacy/pay", {"x-ticket": "gold"})
        await service.close(READ_ONLY)
        await service.request("GET", "/legacy/pay")

        assert service.mode.report()["unrouted"] == ()


@pytest.mark.parametrize("code", [301, 307, 401, 403, 404, 405])
async def test_unrouted_refusal_is_not_reported(code: int) -> None:
    async with running(Legacy(counter(), status=code)) as service:
        await service.close()
        await service.request(path="/legacy/pay")

        assert service.mode.report()["unrouted"] == ()


async def test_unrouted_preflight_is_not_reported() -> None:
    headers = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    async with running(Legacy(counter())) as service:
        await service.close()
        await service.request("OPTIONS", "/legacy/pay", headers)

        assert service.mode.report()["unrouted"] == ()


# -- left out of a drain ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["call", "dependency"])
async def test_untracked_request_is_not_waited_for(how: str, work: Work) -> None:
    app = FastAPI()

    async def endpoint() -> str:
        if how == "call":
            untrack_current_request()
        return await work()

    app.add_api_route(
        "/jobs", endpoint, dependencies=[] if how == "call" else [Depends(untrack_current_request)]
    )
    async with running(MaintenanceModeMiddleware(app, backend=Desk("inner"))) as service:
        request = service.request()
        await work.begun.wait()
        assert service.waited_for == (0, 0)
        await service.close()
        assert service.mode.report()["drained"]
        work.go.set()
        assert status(await request) == 200


async def test_untracking_the_last_request_is_reported_at_once(work: Work) -> None:
    async def untracking(scope: Scope, receive: Receive, send: Send) -> None:
        await work()
        untrack_current_request()
        assert service.desk.nudges == nudges + 1

    async with running(untracking) as service:
        request = service.request()
        await work.begun.wait()
        await service.close()
        nudges = service.desk.nudges
        work.go.set()
        await request


def test_untracking_without_a_request_does_nothing() -> None:
    untrack_current_request()


# -- whom a closing does not wait for --------------------------------------------------------------


def counter() -> FastAPI:
    """An application with something for everybody."""
    app = FastAPI()

    @app.get("/jobs")
    async def read() -> None: ...

    @app.post("/jobs")
    async def write(request: Request) -> bytes:
        return await request.body()

    @app.get("/health")
    @force_maintenance_mode_off
    async def health() -> None: ...

    return app


def has_ticket(connection: HTTPConnection) -> bool:
    return "x-ticket" in connection.headers


@pytest.mark.parametrize(
    ("method", "path", "headers", "state", "waited_for"),
    [
        ("GET", "/jobs", {}, ON, True),
        ("POST", "/jobs", {}, ON, True),
        ("GET", "/health", {}, ON, False),
        ("GET", "/jobs", {"x-ticket": "gold"}, ON, False),
        ("GET", "/docs", {}, ON, False),
        ("GET", "/openapi.json", {}, ON, False),
        ("GET", "/nowhere", {}, ON, True),
        ("GET", "/nowhere", {"x-ticket": "gold"}, ON, False),
        ("GET", "/nowhere", {}, READ_ONLY, False),
        ("POST", "/nowhere", {}, READ_ONLY, True),
        ("DELETE", "/jobs", {}, ON, True),
        ("GET", "/jobs/", {}, ON, True),
        ("GET", "/jobs", {}, READ_ONLY, False),
        ("POST", "/jobs", {}, READ_ONLY, True),
        ("POST", "/jobs", {"x-ticket": "gold"}, READ_ONLY, False),
    ],
)
@pytest.mark.parametrize("has_forced_on_route", [False, True])
async def test_drain_waits_only_for_requests_it_would_refuse(
    method: str,
    path: str,
    headers: dict[str, str],
    state: MaintenanceState,
    waited_for: bool,
    has_forced_on_route: bool,
    work: Work,
) -> None:
    """An application that has a forced-on route judges every request while open, and nobody's
    standing is known for that.
    """
    app = counter()
    if has_forced_on_route:
        app.add_api_route("/closed", force_maintenance_mode_on(lambda: None))
    async with running(SlowDoor(app, work), exempt_handler=has_ticket) as service:
        request = service.request(method, path, headers)
        await work.begun.wait()
        await service.close(state)
        assert service.waited_for == (int(waited_for), 0)
        work.go.set()
        assert status(await request) != 503


def of_the_application(endpoint: Any) -> ASGIApp:
    return FastAPI(routes=[Route("/jobs", endpoint)])


def of_an_included_router(endpoint: Any) -> ASGIApp:
    app, router = FastAPI(), APIRouter(prefix="/v1")
    router.add_api_route("/jobs", endpoint)
    app.include_router(router, prefix="/api")
    return app


def of_a_mounted_application(endpoint: Any) -> ASGIApp:
    app, inner = FastAPI(), FastAPI()
    inner.add_api_route("/jobs", endpoint)
    app.mount("/api", inner)
    return app


def of_mounts_within_mounts(endpoint: Any) -> ASGIApp:
    inner = Starlette(routes=[Mount("/v1", Starlette(routes=[Route("/jobs", endpoint)]))])
    return Starlette(routes=[Mount("/api", inner)])


def of_a_router_included_in_a_mounted_application(endpoint: Any) -> ASGIApp:
    app = FastAPI()
    app.mount("/shop", of_an_included_router(endpoint))
    return app


def of_a_host(endpoint: Any) -> ASGIApp:
    return Starlette(routes=[Host("api.example", Starlette(routes=[Route("/jobs", endpoint)]))])


PLACES: Final[list[tuple[Callable[[Any], ASGIApp], str]]] = [
    (of_the_application, "/jobs"),
    (of_an_included_router, "/api/v1/jobs"),
    (of_a_mounted_application, "/api/jobs"),
    (of_mounts_within_mounts, "/api/v1/jobs"),
    (of_a_router_included_in_a_mounted_application, "/shop/api/v1/jobs"),
    (of_a_host, "/jobs"),
]


@pytest.mark.parametrize("forced_off", [False, True])
@pytest.mark.parametrize(("place", "path"), PLACES)
async def test_request_is_classified_as_it_came(
    place: Callable[[Any], ASGIApp], path: str, forced_off: bool, work: Work
) -> None:
    """Routers write into the scope: in a mounted application, `root_path` has moved by the time
    somebody closes.
    """

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(await work())

    async with running(
        place(force_maintenance_mode_off(endpoint) if forced_off else endpoint)
    ) as service:
        request = service.request(path=path, headers={"host": "api.example"})
        await asyncio.wait_for(work.begun.wait(), 10)
        await service.close()
        assert service.waited_for == (0 if forced_off else 1, 0)
        work.go.set()
        assert status(await request) == 200


async def test_request_admitted_by_read_only_blocks_a_full_drain(work: Work) -> None:
    async with running(SlowDoor(counter(), work)) as service:
        await service.close(READ_ONLY)
        request = service.request()
        await work.begun.wait()
        assert service.waited_for == (0, 0)
        await service.close(ON)
        assert service.waited_for == (1, 0)
        nudges = service.desk.nudges
        work.go.set()
        await request
        assert service.waited_for == (0, 0)
        assert service.desk.nudges == nudges + 1


async def test_request_between_two_closings_blocks_the_second_drain(work: Work) -> None:
    async with running(SlowDoor(counter(), work)) as service:
        await service.close()
        await service.desk.flip(OFF)
        request = service.request()
        await work.begun.wait()
        await service.close(FULL_AGAIN)
        assert service.waited_for == (1, 0)
        work.go.set()
        await request
        assert service.waited_for == (0, 0)


# -- asking at the closing -------------------------------------------------------------------------


async def test_exempt_handler_is_called_at_the_closing(work: Work) -> None:
    asked: list[str] = []

    def handler(request: Request) -> bool:
        asked.append(f"{request.method} {request.url.path}")
        return True

    async with running(SlowDoor(counter(), work), exempt_handler=handler) as service:
        requests = [service.request("POST"), service.request(path="/docs")]
        await work.begun.wait()
        await asyncio.sleep(0)
        assert asked == []
        await service.close()
        assert asked == ["POST /jobs"]
        assert service.waited_for == (0, 0)
        await service.close(FULL_AGAIN)
        assert asked == ["POST /jobs"], "once is enough"
        work.go.set()
        await asyncio.gather(*requests)


async def test_exempt_handler_at_the_closing_cannot_read_the_body(
    work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """The body is the application's by now, so this request is waited for as if the handler had not
    been there.
    """

    async def is_signed(request: Request) -> bool:
        return bool(await request.body())

    async with running(SlowDoor(counter(), work), exempt_handler=is_signed) as service:
        request = service.request("POST")
        await work.begun.wait()
        await service.close()
        assert service.waited_for == (1, 0)
        work.go.set()
        assert (await request)[1]["body"] == b'"text"'
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "its body cannot be read again" in caplog.text


async def test_exempt_handler_at_the_closing_cannot_send(
    work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    async def answers(request: Request) -> Any:
        await request._send({"type": "http.response.start", "status": 418})

    async with running(SlowDoor(counter(), work), exempt_handler=answers) as service:
        request = service.request()
        await work.begun.wait()
        await service.close()
        assert service.waited_for == (1, 0)
        work.go.set()
        assert status(await request) == 200
    assert "The application is answering this request already." in caplog.text


# -- who never counts ------------------------------------------------------------------------------


@pytest.mark.parametrize("exempt", [False, True])
async def test_request_being_decided_does_not_block_the_drain(work: Work, exempt: bool) -> None:
    """Else a handler that asks a database would keep a busy worker from ever having drained."""

    async def ask(connection: HTTPConnection) -> bool:
        await work()
        return exempt

    async with running(counter(), exempt_handler=ask) as service:
        await service.close()
        request = service.request()
        await work.begun.wait()
        assert service.waited_for == (0, 0)
        work.go.set()
        assert status(await request) == (200 if exempt else 503)


async def test_exempt_request_is_in_flight_without_blocking(work: Work) -> None:
    async with running(SlowDoor(counter(), work), exempt_handler=has_ticket) as service:
        await service.close()
        request = service.request(headers={"x-ticket": "gold"})
        await work.begun.wait()
        assert service.waited_for == (0, 0)
        await service.desk.flip(OFF)
        assert service.waited_for == (1, 0)
        work.go.set()
        await request


async def test_refused_request_does_not_block_the_drain(work: Work) -> None:
    async def answer(connection: HTTPConnection) -> Response:
        return PlainTextResponse(await work(), 503)

    async with running(counter(), response_handler=answer) as service:
        await service.close()
        nudges = service.desk.nudges
        request = service.request()
        await work.begun.wait()
        assert service.waited_for == (0, 0)
        work.go.set()
        await request
        assert service.desk.nudges == nudges, "nothing has changed that anybody waits for"


# -- the request that closed it --------------------------------------------------------------------


async def test_holding_request_does_not_block_the_drain(work: Work) -> None:
    app, other = counter(), Work()
    app.add_api_route("/other", other)

    @app.post("/migrate")
    async def migrate() -> tuple[int, int]:
        async with maintenance_mode_on():
            await work()
        return service.waited_for

    async with running(app) as service:
        request = service.request(path="/other")
        await other.begun.wait()
        holder = service.request("POST", "/migrate")
        await work.begun.wait()
        await eventually(lambda: service.waited_for == (1, 0), within=30)
        nudges = service.desk.nudges
        other.go.set()
        await request
        assert service.waited_for == (0, 0)
        assert service.desk.nudges == nudges + 1
        work.go.set()
        assert (await holder)[1]["body"] == b"[1,0]", "with its block, its excuse ends"


async def test_holding_request_may_run_in_a_thread(work: Work) -> None:
    app = FastAPI()
    loop = asyncio.get_running_loop()

    @app.post("/migrate")
    def migrate() -> None:
        with maintenance_mode_on():
            asyncio.run_coroutine_threadsafe(work(), loop).result()

    async with running(app) as service:
        holder = service.request("POST", "/migrate")
        await asyncio.wait_for(work.begun.wait(), 10)
        await eventually(lambda: service.mode.gate.closure, within=30)
        assert service.waited_for == (0, 0)
        work.go.set()
        assert status(await holder) == 200


async def test_holding_request_does_not_block_enclosing_apps(work: Work) -> None:
    desk, inner, outer = Desk(), FastAPI(), FastAPI()

    @inner.post("/migrate")
    async def migrate() -> None:
        async with maintenance_mode_on():
            await work()

    middleware = MaintenanceModeMiddleware(inner, backend=desk)
    outer.mount("/inner", middleware)
    async with running(outer) as service, middleware.mode:
        holder = service.request("POST", "/inner/migrate")
        await work.begun.wait()
        await service.close()
        assert middleware.mode.report()["drained"] is True
        assert service.waited_for == (0, 0)
        work.go.set()
        assert status(await holder) == 200


async def test_holding_request_of_another_switch_blocks_the_drain(work: Work) -> None:
    """Else a request that holds one tenant's switch could go on writing under everybody's
    migration.
    """
    app, tenant = FastAPI(), Desk("tenant")

    @app.post("/tenant")
    async def endpoint() -> None:
        async with maintenance_mode_on(tenant):
            await work()

    async with running(app) as service:
        request = service.request("POST", "/tenant")
        await work.begun.wait()
        await service.close()
        assert service.waited_for == (1, 0)
        work.go.set()
        assert status(await request) == 200


async def test_lifespan_is_never_in_flight() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(current_request.get())

    service = Service(app)
    await exchange(service.app, {"type": "lifespan"})

    assert [admission.scope["type"] for admission in seen] == ["lifespan"]
    assert not service.mode.requests
    assert seen[0].excluded == ()


async def test_unclassified_request_blocks_the_drain(work: Work) -> None:
    """Between the closing and the answer of a slow exempt handler, the worker has not drained."""

    async def ask(connection: HTTPConnection) -> bool:
        await work()
        return True

    door = Work()
    async with running(SlowDoor(counter(), door), exempt_handler=ask) as service:
        request = service.request()
        await door.begun.wait()
        (admission,) = service.mode.requests
        await service.desk.flip(ON)
        await work.begun.wait()
        assert admission.exempt is None
        assert admission.blocks_drain(service.mode.gate)
        assert service.waited_for == (1, 0)
        nudges = service.desk.nudges
        work.go.set()
        await eventually(lambda: service.waited_for == (0, 0), within=30)
        assert service.desk.nudges == nudges + 1
        door.go.set()
        assert status(await request) == 200


async def test_exempt_handler_that_hangs_delays_nothing_else(work: Work) -> None:
    """The request that it hangs for is waited for, as one that is not exempt, and asked about again
    at the next closing.
    """
    asked: list[str] = []

    async def ask(request: Request) -> bool:
        asked.append(request.method)
        if request.method == "POST":
            await asyncio.Event().wait()
        return True

    async with running(SlowDoor(counter(), work), exempt_handler=ask) as service:
        requests = [service.request("POST"), service.request(), service.request()]
        await eventually(lambda: len(service.mode.requests) == 3, within=30)
        await service.desk.flip(ON)
        await eventually(lambda: service.waited_for == (1, 0), within=30)
        await service.desk.flip(FULL_AGAIN)
        await eventually(lambda: sorted(asked) == ["GET", "GET", "POST", "POST"], within=30)
        assert service.waited_for == (1, 0)
        work.go.set()
        await asyncio.gather(*requests)
        assert service.waited_for == (0, 0)


# -- at a real server ------------------------------------------------------------------------------


class Shift:
    """Work in a server's thread, that a test in another can wait for and end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    async def __call__(self) -> str:
        self.begun.set()
        await eventually(self.go.is_set, within=30)
        return "done"


def office(shift: Shift) -> FastAPI:
    app = FastAPI()

    async def lines() -> AsyncIterator[str]:
        yield "first\n"
        yield await shift()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(lines())

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(shift)
        return "begun"

    return app


@pytest.mark.parametrize("path", ["/stream", "/background"])
def test_real_request_counts_until_its_tasks_are_done(path: str) -> None:
    shift, board = Shift(), Switchboard(ttl=0.05)
    app = MaintenanceModeMiddleware(office(shift), backend=board)
    with serving(app) as address:
        client = HTTPClient(address, timeout=10)
        client.request("GET", path)
        response = client.getresponse()
        assert response.status == 200
        assert response.read(5) in (b"first", b'"begu')
        assert shift.begun.wait(10)
        board.value = True
        eventually_sync(lambda: app.mode.report()["closed"], within=30)
        assert app.mode.report()["http"] == 1
        shift.go.set()
        eventually_sync(lambda: app.mode.report()["drained"], within=30)
        response.read()
        client.request("GET", path)
        assert client.getresponse().status == 503
        client.close()


def test_pipelined_request_is_not_nested_in_the_previous() -> None:
    """Else it would excuse that from a closing of its own, and a connection's memory would grow
    with each of its requests.
    """
    around: list[object] = []
    app = FastAPI()

    @app.get("/")
    async def endpoint() -> None:
        admission = current_request.get()
        assert admission is not None
        around.append(admission.outer)

    with serving(MaintenanceModeMiddleware(app, backend=Switchboard())) as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n" * 20)
            eventually_sync(lambda: len(around) == 20, within=30)

    assert around == [None] * 20


async def test_pipelined_requests_are_not_kept_in_memory() -> None:
    """A server starts the next request while it sends the response of the previous."""
    served: list[weakref.ref[InFlightRequest]] = []
    tasks: list[asyncio.Task[None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        served.append(weakref.ref(current_request.get()))  # type: ignore[arg-type]
        if len(served) < 50:
            tasks.append(asyncio.create_task(middleware(http_scope(), receive, send)))

    middleware = MaintenanceModeMiddleware(app, backend=Switchboard())
    await exchange(middleware, http_scope())
    for task in tasks:  # which grows
        await task
    tasks.clear()  # and their contexts
    del task
    gc.collect()

    assert sum(request() is not None for request in served) <= 2


async def test_app_that_calls_another_in_process_encloses_it(work: Work) -> None:
    """Else the holder would wait for a request that waits for the holder."""
    desk, inner, outer = Desk(), FastAPI(), FastAPI()

    @inner.post("/migrate")
    async def migrate() -> None:
        async with maintenance_mode_on():
            await work()

    middleware = MaintenanceModeMiddleware(inner, backend=desk)

    @outer.post("/pass-on")
    async def pass_on() -> None:
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(middleware), base_url="http://inner"
        ) as client:
            await client.post("/migrate")

    async with running(outer) as service, middleware.mode:
        holder = service.request("POST", "/pass-on")
        await work.begun.wait()
        await service.close()
        assert service.waited_for == (0, 0)
        work.go.set()
        assert status(await holder) == 200


def test_disconnected_client_does_not_block_the_drain() -> None:
    shift, board = Shift(), Switchboard(ttl=0.05)
    app = MaintenanceModeMiddleware(office(shift), backend=board)
    with serving(app) as address:
        client = HTTPClient(address, timeout=10)
        client.request("GET", "/stream")
        client.getresponse().read(5)
        assert shift.begun.wait(10)
        board.value = True
        eventually_sync(lambda: app.mode.report()["closed"], within=30)
        client.close()
        eventually_sync(lambda: app.mode.report()["drained"], within=30)
        shift.go.set()


async def test_barrier_waits_for_the_reported_requests(redis_url: str) -> None:
    """The whole way: a request in a real server, its worker's registration, and whoever waits for
    it elsewhere.
    """
    shift = Shift()
    app = MaintenanceModeMiddleware(office(shift), backend=RedisBackend(redis_url, ttl=1.0))
    elsewhere = RedisBackend(redis_url)
    in_flight: list[int] = []

    def ask() -> None:
        client = HTTPClient(address, timeout=30)
        client.request("GET", "/stream")
        client.getresponse().read()
        client.close()

    with serving(app) as address:
        client = asyncio.create_task(asyncio.to_thread(ask))
        await eventually(shift.begun.is_set, within=30)
        await elsewhere.set_value(True)
        early = await wait_until_applied(elsewhere, drained=True, timeout=4)
        assert [(worker.http, worker.websockets) for worker in early.applied] == [(1, 0)]
        waiting = asyncio.create_task(
            wait_until_applied(
                elsewhere,
                drained=True,
                timeout=30,
                progress=lambda result: in_flight.append(
                    sum(worker.http for worker in result.applied)
                ),
            )
        )
        await eventually(lambda: 1 in in_flight, within=30)
        shift.go.set()
        result = await waiting
        await client

    assert result.ok
    assert [worker.http for worker in result.drained] == [0]
    assert in_flight[-1] == 0
