"""Handlers of every shape are called right, and what they raise is answered as if an endpoint had
raised it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, Final

import httpx2
import pytest
from fastapi import FastAPI, HTTPException, Request, WebSocket, WebSocketException
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import WSProtocolType
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastapi_maintenance import MaintenanceModeMiddleware, MaintenanceState
from fastapi_maintenance._internal.callables import call_handler
from fastapi_maintenance.middleware.handlers import (
    ReplayableReceive,
    answer_with,
    handle_error,
    is_exempt,
    takes_state,
)
from fastapi_maintenance.model.state import ON
from fastapi_maintenance.responses.response import MaintenanceResponse

from ..support.asgi import UNUSED, exchange, http_scope, sending, websocket_scope
from ..support.doubles import StateBoard
from ..support.serving import WEBSOCKETS, serving
from ..support.waiting import eventually

pytestmark = pytest.mark.anyio

LOGGER: Final = "fastapi_maintenance"


# -- every shape of callable -----------------------------------------------------------------------

Caller = tuple[HTTPConnection, int]
"""What a handler was given, and the thread it ran in."""


def plain(connection: HTTPConnection) -> Caller:
    return connection, threading.get_ident()


async def coroutine(connection: HTTPConnection) -> Caller:
    return connection, threading.get_ident()


def with_option(option: str, connection: HTTPConnection) -> Caller:
    return plain(connection)


async def coroutine_with_option(option: str, connection: HTTPConnection) -> Caller:
    return await coroutine(connection)


def returns_awaitable(connection: HTTPConnection) -> Awaitable[Caller]:
    return coroutine(connection)


@wraps(coroutine)
def decorated(connection: HTTPConnection) -> Awaitable[Caller]:
    """What a decorator that knows nothing of async makes of an async function."""
    return coroutine(connection)


class Sync:
    def __call__(self, connection: HTTPConnection) -> Caller:
        return plain(connection)

    def method(self, connection: HTTPConnection) -> Caller:
        return plain(connection)


class Async:
    async def __call__(self, connection: HTTPConnection) -> Caller:
        return await coroutine(connection)

    async def method(self, connection: HTTPConnection) -> Caller:
        return await coroutine(connection)


IN_THE_POOL: Final[dict[str, Callable[[HTTPConnection], Caller]]] = {
    "function": plain,
    "partial": partial(with_option, "x"),
    "partial of a partial": partial(partial(with_option), "x"),
    "object": Sync(),
    "partial of an object": partial(Sync()),
    "method": Sync().method,
    "lambda": lambda connection: plain(connection),
}
ASYNC: Final[dict[str, Callable[[HTTPConnection], Awaitable[Caller]]]] = {
    "function": coroutine,
    "partial": partial(coroutine_with_option, "x"),
    "partial of a partial": partial(partial(coroutine_with_option), "x"),
    "object": Async(),
    "partial of an object": partial(Async()),
    "method": Async().method,
}
RETURNS_AWAITABLE: Final[dict[str, Callable[[HTTPConnection], Awaitable[Caller]]]] = {
    "returns awaitable": returns_awaitable,
    "decorated": decorated,
    "lambda": lambda connection: coroutine(connection),
}


@pytest.mark.parametrize("handler", IN_THE_POOL.values(), ids=IN_THE_POOL)
async def test_sync_handler_runs_in_a_thread(handler: Callable[[HTTPConnection], Caller]) -> None:
    connection = HTTPConnection(http_scope())
    given, thread = await call_handler(handler, connection)
    assert given is connection
    assert thread != threading.get_ident()


@pytest.mark.parametrize(
    "handler", (ASYNC | RETURNS_AWAITABLE).values(), ids=ASYNC | RETURNS_AWAITABLE
)
async def test_handler_result_is_awaited_on_the_event_loop(
    handler: Callable[[HTTPConnection], Caller | Awaitable[Caller]],
) -> None:
    connection = HTTPConnection(http_scope())
    assert await call_handler(handler, connection) == (connection, threading.get_ident())


@pytest.mark.parametrize("handler", ASYNC.values(), ids=ASYNC)
async def test_async_handler_runs_in_no_thread(
    handler: Callable[[HTTPConnection], Caller | Awaitable[Caller]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi_maintenance._internal.callables.to_thread", UNUSED)
    assert await call_handler(handler, HTTPConnection(http_scope()))


async def test_sync_handler_sees_the_context_of_its_request() -> None:
    user: ContextVar[str] = ContextVar("user")
    user.set("ana")
    assert await call_handler(lambda _: user.get(), HTTPConnection(http_scope())) == "ana"


# -- exempt handlers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "exempt"),
    [(True, True), (False, False), (None, False), ("", False), ("yes", True), (0, False)],
)
async def test_exempt_handler_result_is_a_bool(answer: Any, exempt: bool) -> None:
    assert await is_exempt(lambda _: answer, http_scope(), UNUSED, UNUSED) is exempt


async def test_exempt_handler_object_with_async_call_is_awaited() -> None:
    """FM: the coroutine object it makes is true."""

    class Nobody:
        async def __call__(self, request: Request) -> bool:
            return False

    assert await is_exempt(Nobody(), http_scope(), UNUSED, UNUSED) is False


async def test_handler_gets_a_request_or_a_connection() -> None:
    seen: list[HTTPConnection] = []

    async def note(connection: HTTPConnection) -> bool:
        seen.append(connection)
        return True

    await is_exempt(note, http_scope("PUT", {"x-key": "1"}), UNUSED, UNUSED)
    await is_exempt(note, websocket_scope({"x-key": "2"}), UNUSED, UNUSED)
    request, connection = seen
    assert isinstance(request, Request)
    assert (request.method, request.headers["x-key"]) == ("PUT", "1")
    assert type(connection) is HTTPConnection
    assert connection.headers["x-key"] == "2"


class Exempting:
    """What the middleware does with an exempt handler, and nothing else of it."""

    def __init__(self, app: ASGIApp, handler: Any) -> None:
        self.app = app
        self.handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        replay = ReplayableReceive(receive)
        try:
            exempt = await is_exempt(self.handler, scope, replay, send)
        except Exception as error:
            await handle_error(error, scope, replay.replay, send)
        else:
            await (self.app if exempt else MaintenanceResponse(ON))(scope, replay.replay, send)


class Answering:
    """What the middleware does with a response handler, and nothing else of it."""

    def __init__(self, app: ASGIApp, handler: Any) -> None:
        self.handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer_alone(self.handler, scope, receive, send)


def echoing(handler: Any) -> FastAPI:
    """An app that sends every body back, behind an exempt handler."""
    app = FastAPI()
    app.add_middleware(Exempting, handler=handler)

    @app.post("/")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    return app


async def reads_all(request: Request) -> bool:
    return bool(await request.body())


async def reads_a_little(request: Request) -> bool:
    async with aclosing(request.stream()) as parts:
        return bool(await anext(parts))


@pytest.mark.parametrize("handler", [reads_all, reads_a_little, lambda _: True])
async def test_body_read_by_exempt_handler_is_there_for_the_app(handler: Any) -> None:
    parts = [b"one ", b"two ", b"three"]
    receive = sending(
        *({"type": "http.request", "body": part, "more_body": part != parts[-1]} for part in parts)
    )
    _, *bodies = await exchange(echoing(handler), http_scope("POST", path="/"), receive)
    assert b"".join(body["body"] for body in bodies) == b"one two three"


async def test_replay_yields_messages_in_order_and_goes_on() -> None:
    replay = ReplayableReceive(sending({"type": "1"}, {"type": "2"}, {"type": "3"}))
    assert [await replay(), await replay()] == [{"type": "1"}, {"type": "2"}]
    assert [await replay.replay() for _ in range(3)] == [
        {"type": "1"},
        {"type": "2"},
        {"type": "3"},
    ]


# -- errors ----------------------------------------------------------------------------------------


class Teapot(Exception):
    """An error the app has a handler for."""


class SmallTeapot(Teapot):
    """An error whose base class the app has a handler for."""


class Unknown(Exception):
    """An error the app has no handler for."""


def pour(request: Request, error: Exception) -> Response:
    return JSONResponse({"poured": str(error), "path": request.url.path}, 418, {"x-tea": "green"})


async def gone(request: Request, error: Exception) -> Response:
    return PlainTextResponse("it has left", 410)


async def last_resort(request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"last resort: {error}", 500)


ERRORS: Final[dict[str, Callable[[], Exception]]] = {
    "401": lambda: HTTPException(401, {"why": "who are you?"}, {"www-authenticate": "Basic"}),
    "404 of Starlette": lambda: StarletteHTTPException(404, "no such thing"),
    "410": lambda: HTTPException(410),
    "500": lambda: HTTPException(500, "on purpose"),
    "304": lambda: HTTPException(304),
    "validation": lambda: RequestValidationError(
        [{"loc": ("query", "key"), "msg": "missing", "type": "missing"}]
    ),
    "known": lambda: Teapot("hot"),
    "known by its base": lambda: SmallTeapot("cold"),
    "unknown": lambda: Unknown("nobody knows"),
}
HANDLED: Final[dict[str, dict[Any, Any]]] = {
    "nothing": {},
    "some": {Teapot: pour, 410: gone},
    "everything": {Exception: last_resort, Teapot: pour},
    "500": {500: last_resort},
}


def app_that_raises(error: Exception, handlers: dict[Any, Any], where: str) -> FastAPI:
    """The same error from the endpoint, from an exempt handler or from a response handler."""
    app = FastAPI(exception_handlers=handlers)

    def fail(connection: HTTPConnection) -> Any:
        raise error

    if where == "exempt_handler":
        app.add_middleware(Exempting, handler=fail)
    elif where == "response_handler":
        app.add_middleware(Answering, handler=fail)

    @app.get("/door")
    def door() -> None:
        raise error

    @app.websocket("/door")
    async def socket(websocket: WebSocket) -> None:
        raise error

    return app


def reply_of(app: FastAPI) -> tuple[int, dict[str, str], bytes]:
    reply = TestClient(app, raise_server_exceptions=False).get("/door")
    return reply.status_code, dict(reply.headers), reply.content


@pytest.mark.parametrize("handlers", HANDLED.values(), ids=HANDLED)
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("where", ["exempt_handler", "response_handler"])
def test_handler_error_is_answered_by_the_app(
    error: Callable[[], Exception], handlers: dict[Any, Any], where: str
) -> None:
    expected = reply_of(app_that_raises(error(), handlers, "endpoint"))
    assert reply_of(app_that_raises(error(), handlers, where)) == expected


def test_handler_errors_are_answered_in_different_ways() -> None:
    """Else the comparison would prove nothing."""
    apps = [
        app_that_raises(error(), handlers, "exempt_handler")
        for error in ERRORS.values()
        for handlers in HANDLED.values()
    ]
    replies = {reply_of(app)[::2] for app in apps}
    assert {status for status, _ in replies} == {304, 401, 404, 410, 418, 422, 500}
    assert (500, b"last resort: nobody knows") in replies
    assert (410, b"it has left") in replies
    assert (418, b'{"poured":"cold","path":"/door"}') in replies


@pytest.mark.parametrize("handlers", HANDLED.values(), ids=HANDLED)
@pytest.mark.parametrize("where", ["exempt_handler", "response_handler"])
def test_unknown_error_reaches_the_server(handlers: dict[Any, Any], where: str) -> None:
    """Also where the app has a last resort: that answers, and the server still logs the error."""
    with pytest.raises(Unknown, match="nobody knows"):
        TestClient(app_that_raises(Unknown("nobody knows"), handlers, where)).get("/door")


@pytest.mark.parametrize("scope", [http_scope(), http_scope(app=object())])
async def test_http_exception_without_app_handlers_is_answered(scope: Scope) -> None:
    start, body = await exchange(partial(handle_error, HTTPException(401, "who?")), scope)
    assert (start["status"], body["body"]) == (401, b"who?")
    with pytest.raises(Unknown):
        await handle_error(Unknown(), scope, UNUSED, UNUSED)


async def test_error_after_the_response_began_is_not_answered() -> None:
    async def two_chunks(connection: HTTPConnection) -> Response:
        def chunks() -> Iterator[bytes]:
            yield b"one"
            raise HTTPException(418)

        return StreamingResponse(chunks())

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(RuntimeError, match="already started"):
        await answer_alone(two_chunks, http_scope(), UNUSED, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


async def test_error_handler_can_read_the_body_again() -> None:
    async def fail(request: Request) -> bool:
        raise Teapot(await request.body())

    async def repeat(request: Request, error: Exception) -> Response:
        return Response(await request.body(), 418)

    app = FastAPI(exception_handlers={Teapot: repeat})
    app.add_middleware(Exempting, handler=fail)
    _, body = await exchange(
        app, http_scope("POST"), sending({"type": "http.request", "body": b"green tea"})
    )
    assert body["body"] == b"green tea"


# -- who is to blame -------------------------------------------------------------------------------


def is_admin(connection: HTTPConnection) -> bool:
    raise Unknown("database is away\nand more")


class Maker:
    def __call__(self, connection: HTTPConnection) -> Response:
        raise Unknown("template is missing")

    async def make(self, connection: HTTPConnection) -> Response:
        raise Unknown("template is missing")


async def answer_alone(handler: Any, scope: Scope, receive: Receive, send: Send) -> None:
    await answer_with(handler, None, UNUSED, scope, receive, send)


async def failure_of(handler: Any, role: str, scope: Scope) -> BaseException:
    ask: Any = {"exempt_handler": is_exempt, "response_handler": answer_alone}[role]
    with pytest.raises(Exception) as failure:  # noqa: PT011 - which one it is, is what the tests ask
        await ask(handler, scope, UNUSED, UNUSED)
    return failure.value


@pytest.mark.parametrize(
    ("handler", "role", "name"),
    [
        (is_admin, "exempt_handler", "is_admin"),
        (partial(partial(is_admin)), "exempt_handler", "is_admin"),
        (Maker(), "response_handler", "Maker"),
        (partial(Maker()), "response_handler", "Maker"),
        (Maker().make, "response_handler", "Maker.make"),
    ],
)
@pytest.mark.parametrize("scope", [http_scope(), websocket_scope()])
async def test_handler_error_is_logged_once_with_a_note(
    handler: Any, role: str, name: str, scope: Scope, caplog: pytest.LogCaptureFixture
) -> None:
    error = await failure_of(handler, role, scope)
    (record,) = caplog.records
    assert (record.name, record.levelno) == (LOGGER, logging.ERROR)
    assert record.getMessage() == f"The {role} {__name__}.{name} failed: {error!r}"
    assert "\n" not in record.getMessage()
    assert error.__notes__ == [f"Raised by the {role} {__name__}.{name}."]


@pytest.mark.parametrize(
    "error",
    [HTTPException(401), StarletteHTTPException(404), WebSocketException(4001), ClientDisconnect()],
)
async def test_http_exception_and_disconnect_are_not_logged(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(connection: HTTPConnection) -> bool:
        raise error

    assert await failure_of(fail, "exempt_handler", http_scope()) is error
    assert not caplog.records
    assert len(error.__notes__) == 1


async def test_error_object_raised_again_collects_no_notes() -> None:
    denied = HTTPException(403)

    async def deny(connection: HTTPConnection) -> bool:
        raise denied

    for _ in range(3):
        await failure_of(deny, "exempt_handler", http_scope())
    assert len(denied.__notes__) == 1


# -- response handlers -----------------------------------------------------------------------------


def page(connection: HTTPConnection) -> Response:
    return HTMLResponse(f"<h1>Closed: {connection.url.path}</h1>", 503, {"retry-after": "7"})


async def streamed(connection: HTTPConnection) -> Response:
    return StreamingResponse(iter([b"<h1>", b"Closed"]), 503)


async def ours(connection: HTTPConnection) -> Any:
    """Not one of Starlette's, but an ASGI application all the same."""
    return MaintenanceResponse(ON)


async def test_handler_response_is_sent() -> None:
    start, body = await exchange(partial(answer_alone, page), http_scope())
    assert start["status"] == 503
    assert (b"retry-after", b"7") in start["headers"]
    assert body["body"] == b"<h1>Closed: /items</h1>"


@pytest.mark.parametrize("handler", [page, streamed, ours])
async def test_handler_response_to_head_has_no_body(handler: Any) -> None:
    start, *bodies = await exchange(partial(answer_alone, handler), http_scope("HEAD"))
    assert start["status"] == 503
    assert bodies
    assert b"".join(body["body"] for body in bodies) == b""


@pytest.mark.parametrize("handler", [page, streamed, ours])
async def test_handler_response_denies_a_websocket(handler: Any) -> None:
    start, *bodies = await exchange(partial(answer_alone, handler), websocket_scope())
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    assert {body["type"] for body in bodies} == {"websocket.http.response.body"}
    assert b"".join(body["body"] for body in bodies)


@pytest.mark.parametrize("handler", [page, streamed, ours])
async def test_handler_response_without_denial_closes_a_websocket(handler: Any) -> None:
    (close,) = await exchange(partial(answer_alone, handler), websocket_scope(denial=False))
    assert (close["type"], close["code"]) == ("websocket.close", 1013)


async def test_handler_error_without_denial_closes_a_websocket() -> None:
    (close,) = await exchange(
        partial(handle_error, HTTPException(401)), websocket_scope(denial=False)
    )
    assert close == {"type": "websocket.close", "code": 1011, "reason": "Internal error"}
    (close,) = await exchange(
        partial(handle_error, WebSocketException(4001, "mine")), websocket_scope()
    )
    assert close == {"type": "websocket.close", "code": 4001, "reason": "mine"}


@pytest.mark.parametrize(
    ("result", "name"),
    [({"detail": "closed"}, "dict"), (None, "NoneType"), ("closed", "str"), (Response, "type")],
)
async def test_response_handler_without_a_response_is_an_error(
    result: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def make(connection: HTTPConnection) -> Any:
        return result

    error = await failure_of(make, "response_handler", http_scope())
    assert isinstance(error, TypeError)
    assert (
        str(error)
        == f"{__name__}.{make.__qualname__} returned {name}; a response_handler must return a "
        "Response."
    )
    assert len(caplog.records) == 1


# -- by a real server ------------------------------------------------------------------------------


def handshake(app: ASGIApp, ws: WSProtocolType = "wsproto") -> tuple[int, bytes]:
    """Status and body that a WebSocket's client sees when it is refused."""
    with serving(app, ws=ws) as address, pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{address}/door", open_timeout=60)
    return refused.value.response.status_code, bytes(refused.value.response.body or b"")


@pytest.mark.parametrize("ws", WEBSOCKETS)
def test_real_websocket_client_sees_the_handler_response(
    ws: WSProtocolType, caplog: pytest.LogCaptureFixture
) -> None:
    assert handshake(partial(answer_alone, page), ws) == (503, b"<h1>Closed: /door</h1>")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("error", [HTTPException(401, "who?"), Unknown("nobody knows")])
@pytest.mark.parametrize("where", ["exempt_handler", "response_handler"])
def test_real_websocket_client_sees_the_error_of_the_app(error: Exception, where: str) -> None:
    expected = handshake(app_that_raises(error, {}, "endpoint"))
    assert handshake(app_that_raises(error, {}, where)) == expected
    assert expected[0] == getattr(error, "status_code", 500)


def test_real_head_gets_the_handler_headers_and_no_body() -> None:
    with (
        serving(partial(answer_alone, page)) as address,
        httpx2.Client(base_url=f"http://{address}") as client,
    ):
        head, get = client.head("/door"), client.get("/door")
    assert (head.status_code, head.content) == (503, b"")
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))


# -- WebSockets, threads and states ----------------------------------------------------------------


async def reads_the_body(request: Any) -> Any:
    return await request.body() or True


OF_REQUESTS: Final[dict[str, Any]] = {
    "method": lambda request: request.method == "GET" and PlainTextResponse("mine", 418),
    "negated method": lambda request: request.method != "POST" and PlainTextResponse("mine", 418),
    "body": reads_the_body,
    "form": lambda request: request.form(),
}


@pytest.mark.parametrize("handler", OF_REQUESTS.values(), ids=OF_REQUESTS)
@pytest.mark.parametrize("role", ["exempt_handler", "response_handler"])
@pytest.mark.parametrize("denial", [True, False])
async def test_handler_for_requests_refuses_websockets(
    handler: Any, role: str, denial: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = MaintenanceModeMiddleware(shop_of_one(), enable_maintenance=True, **{role: handler})
    start, *_ = await exchange(app, websocket_scope(path="/door", denial=denial))

    assert start["status"] == 503 if denial else start["code"] == 1013
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_callable_without_a_signature_gets_the_request_alone() -> None:
    assert takes_state(dict) is False  # type: ignore[arg-type]


@pytest.mark.parametrize("role", ["exempt_handler", "response_handler"])
async def test_handler_missing_attribute_of_its_own_is_an_error(role: str) -> None:
    options: dict[str, Any] = {role: lambda request: request.state.user}
    app = MaintenanceModeMiddleware(shop_of_one(), enable_maintenance=True, **options)
    with pytest.raises(AttributeError, match="user"):
        await exchange(app, websocket_scope(path="/door"))


def shop_of_one() -> FastAPI:
    app = FastAPI()

    @app.websocket("/door")
    async def door(websocket: WebSocket) -> None:
        await websocket.accept()

    return app


async def test_sync_handler_does_not_queue_behind_endpoints() -> None:
    """Forty blocked endpoints take all threads of the application."""
    release, blocked = threading.Event(), threading.Semaphore(0)

    def endpoint() -> None:
        blocked.release()
        release.wait(30)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(40):
            tasks.create_task(run_in_threadpool(endpoint))
        await eventually(lambda: blocked._value == 40, within=30)
        try:
            async with asyncio.timeout(10):
                assert await is_exempt(lambda _: True, http_scope(), UNUSED, UNUSED)
                assert (await exchange(partial(answer_alone, page), http_scope()))[0][
                    "status"
                ] == 503
        finally:
            release.set()


def states_of(status: int) -> dict[str, Any]:
    def plain(request: Request, state: MaintenanceState) -> Response:
        return PlainTextResponse(str(state.message), status)

    async def coroutine(request: Request, state: MaintenanceState) -> Response:
        return plain(request, state)

    def with_prefix(prefix: str, request: Request, state: MaintenanceState) -> Response:
        return plain(request, state)

    return {"plain": plain, "coroutine": coroutine, "partial": partial(with_prefix, "x")}


@pytest.mark.parametrize("handler", states_of(418).values(), ids=states_of(418))
async def test_response_handler_with_two_parameters_gets_state(handler: Any) -> None:
    backend = StateBoard(MaintenanceState(enabled=True, message="until four"))
    app = MaintenanceModeMiddleware(shop_of_one(), backend=backend, response_handler=handler)
    start, body = await exchange(app, websocket_scope(path="/door"))

    assert (start["status"], body["body"]) == (418, b"until four")


async def test_response_handler_with_optional_parameter_gets_one() -> None:
    def handler(request: Request, text: str = "mine") -> Response:
        return PlainTextResponse(text, 418)

    app = MaintenanceModeMiddleware(
        shop_of_one(), enable_maintenance=True, response_handler=handler
    )
    _, body = await exchange(app, websocket_scope(path="/door"))
    assert body["body"] == b"mine"
