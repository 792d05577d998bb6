"""WebSockets and streams are closed some seconds after a closing, and their applications see an
ordinary disconnect.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

import httpx2
import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse
from starlette.types import ASGIApp, Message
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MaintenanceState,
    force_maintenance_mode_off,
    maintenance_component,
    untrack_current_request,
)
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.middleware.websocket import ClosableStream, ClosableWebSocket
from fastapi_maintenance.model.snapshot import ComponentSwitch, Snapshot
from fastapi_maintenance.model.state import OFF, ON
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..support.asgi import http_scope, websocket_scope
from ..support.doubles import Switchboard
from ..support.serving import SERVERS, WEBSOCKETS, Server, serving, serving_by_hypercorn
from ..support.waiting import eventually, eventually_sync

DETAIL: Final = "Service temporarily unavailable due to maintenance"
READ_ONLY: Final = MaintenanceState(enabled=True, mode="read-only")


class Desk(Switchboard):
    """A switch with details, whose changes are known at once."""

    def __init__(self) -> None:
        super().__init__(ttl=30)
        self.state = OFF
        self.of_components: dict[str, ComponentSwitch] = {}

    async def read(self) -> Snapshot:
        return replace(self._local_reading(self.state), components=dict(self.of_components))

    async def flip(self, state: MaintenanceState, component: str | None = None) -> None:
        if component is None:
            self.state = state
        else:
            self.of_components[component] = ComponentSwitch(state)
        await self._announce()


class Line:
    """A server's side of one WebSocket."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.sent: list[Message] = []
        self.writable = asyncio.Event()
        self.writable.set()

    async def send(self, message: Message) -> None:
        await self.writable.wait()
        self.sent.append(message)

    def say(self, text: str) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "text": text})

    def hang_up(self) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1001, "reason": ""})

    @property
    def closes(self) -> list[Message]:
        return [message for message in self.sent if message["type"] == "websocket.close"]


# -- one WebSocket that can be evicted -------------------------------------------------------------


@pytest.fixture
async def line() -> Line:
    return Line()


@pytest.fixture
async def socket(line: Line) -> ClosableWebSocket:
    """Accepted already."""
    evictable = ClosableWebSocket(line.incoming.get, line.send)
    assert (await evictable.receive())["type"] == "websocket.connect"
    await evictable.send({"type": "websocket.accept"})
    return evictable


async def test_websocket_passes_all_messages(line: Line, socket: ClosableWebSocket) -> None:
    line.say("hello")
    assert (await socket.receive())["text"] == "hello"
    await socket.send({"type": "websocket.send", "text": "hello"})
    line.hang_up()

    assert (await socket.receive())["type"] == "websocket.disconnect"
    assert [message["type"] for message in line.sent] == ["websocket.accept", "websocket.send"]


async def test_websocket_closed_while_receiving_sees_a_disconnect(
    line: Line, socket: ClosableWebSocket
) -> None:
    waiting = asyncio.create_task(socket.receive())
    await asyncio.sleep(0)
    await socket.close("until four")

    assert await waiting == {"type": "websocket.disconnect", "code": 1012, "reason": "until four"}
    assert line.closes == [{"type": "websocket.close", "code": 1012, "reason": "until four"}]


async def test_websocket_closed_before_receiving_sees_a_disconnect(
    line: Line, socket: ClosableWebSocket
) -> None:
    await socket.close("until four")

    for _ in range(2):
        assert (await socket.receive())["code"] == 1012


async def test_websocket_closed_keeps_a_message_already_received(
    line: Line, socket: ClosableWebSocket
) -> None:
    waiting = asyncio.create_task(socket.receive())
    await asyncio.sleep(0)
    line.say("the last word")
    await asyncio.sleep(0)
    await socket.close("until four")

    assert (await waiting).get("text") == "the last word"
    assert (await socket.receive())["code"] == 1012


async def test_websocket_closed_raises_on_send(line: Line, socket: ClosableWebSocket) -> None:
    """By the specification of ASGI that is an OSError, of which Starlette makes a
    WebSocketDisconnect.
    """
    await socket.close("until four")

    with pytest.raises(OSError, match="closed for maintenance"):
        await socket.send({"type": "websocket.send", "text": "hello?"})
    assert line.sent[-1]["type"] == "websocket.close"


@pytest.mark.parametrize("uses", ["receive", "send"])
async def test_websocket_application_ends_after_the_close(
    uses: str, line: Line, socket: ClosableWebSocket
) -> None:
    """granian drops a close that is being sent when the application returns."""
    line.writable.clear()
    closing = asyncio.create_task(socket.close("until four"))
    await asyncio.sleep(0)
    message = {"type": "websocket.send", "text": "hello?"}
    using = asyncio.create_task(socket.receive() if uses == "receive" else as_seen(socket, message))
    done, _ = await asyncio.wait([using], timeout=0.05)
    assert not done
    line.writable.set()

    assert (await using)["type"] == "websocket.disconnect"
    assert [sent["type"] for sent in line.sent] == ["websocket.accept", "websocket.close"]
    await closing


async def as_seen(socket: ClosableWebSocket, message: Message) -> Message:
    with pytest.raises(OSError, match="closed for maintenance"):
        await socket.send(message)
    return {"type": "websocket.disconnect"}


async def test_websocket_that_cannot_be_told_is_disconnected(
    line: Line, socket: ClosableWebSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi_maintenance.middleware.websocket._CLOSE_TIMEOUT", 0.01)
    line.writable.clear()
    await asyncio.wait_for(socket.close("until four"), 10)

    assert (await socket.receive())["code"] == 1012


async def test_websocket_is_closed_once(line: Line, socket: ClosableWebSocket) -> None:
    await socket.close("until four")
    await socket.close("until five")

    assert [message["reason"] for message in line.closes] == ["until four"]


@pytest.mark.parametrize("first", ["client", "application"])
async def test_websocket_already_over_is_not_closed(
    line: Line, socket: ClosableWebSocket, first: str
) -> None:
    if first == "client":
        line.hang_up()
        await socket.receive()
    else:
        await socket.send({"type": "websocket.close", "code": 1000})
    closes = len(line.closes)
    await socket.close("until four")

    assert len(line.closes) == closes


async def test_websocket_client_gone_at_the_closing_is_no_error(line: Line) -> None:
    async def broken(message: Message) -> None:
        raise RuntimeError("Unexpected ASGI message 'websocket.close'")

    socket = ClosableWebSocket(line.incoming.get, broken)
    await socket.receive()
    await socket.close("until four")

    assert (await socket.receive())["code"] == 1012


async def test_websocket_close_code_unknown_to_the_server_is_4503(line: Line) -> None:
    """As daphne's is, which raises: https://github.com/django/daphne/issues/374."""

    async def strict(message: Message) -> None:
        if message.get("code") == 1012:
            raise ValueError("invalid close code 1012 (must be 1000 or from [3000, 4999])")
        await line.send(message)

    socket = ClosableWebSocket(line.incoming.get, strict)
    await socket.receive()
    await socket.close("until four")

    assert line.closes == [{"type": "websocket.close", "code": 4503, "reason": "until four"}]


@pytest.mark.parametrize(
    ("reason", "sent"), [("", ""), ("x" * 200, "x" * 123), ("é" * 62, "é" * 61)]
)
async def test_websocket_close_reason_fits_a_close_frame(
    line: Line, socket: ClosableWebSocket, reason: str, sent: str
) -> None:
    await socket.close(reason)

    assert line.closes[0]["reason"] == sent


async def test_websocket_receive_with_timeout_misses_nothing(
    line: Line, socket: ClosableWebSocket
) -> None:
    for word in ("one", "two"):
        waiting = asyncio.create_task(socket.receive())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        line.say(word)
        assert (await socket.receive())["text"] == word


async def test_websocket_message_at_a_timeout_is_kept(
    line: Line, socket: ClosableWebSocket
) -> None:
    """As with `asyncio.timeout` around `receive`, when message and timeout fall into one turn of
    the event loop.
    """
    waiting = asyncio.create_task(socket.receive())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    line.say("now")
    await asyncio.sleep(0)
    waiting.cancel()
    (told,) = await asyncio.gather(waiting, return_exceptions=True)
    messages = [told] if isinstance(told, dict) else [await asyncio.wait_for(socket.receive(), 10)]

    assert [message["text"] for message in messages] == ["now"]


async def test_websocket_closed_in_the_handshake_sees_connect_first(line: Line) -> None:
    """Else Starlette, which expects `websocket.connect` first, takes the disconnect for a broken
    server.
    """
    socket = ClosableWebSocket(line.incoming.get, line.send)
    await socket.close("until four")

    assert (await socket.receive())["type"] == "websocket.connect"
    assert (await socket.receive())["code"] == 1012


# -- at the middleware -----------------------------------------------------------------------------


class Hall:
    """An application of WebSockets behind the middleware, and what its endpoints saw."""

    def __init__(self, **options: Any) -> None:
        self.desk = Desk()
        self.ends: list[tuple[str, str]] = []
        self.app = MaintenanceModeMiddleware(self.make_app(), backend=self.desk, **options)
        self.mode = self.app.mode

    def make_app(self) -> FastAPI:
        app = FastAPI()

        @app.websocket("/talk")
        async def talk(websocket: WebSocket) -> None:
            await self.answer(websocket)

        @app.websocket("/trade")
        @maintenance_component("trading")
        async def trade(websocket: WebSocket) -> None:
            await self.answer(websocket)

        @app.websocket("/support")
        @force_maintenance_mode_off
        async def support(websocket: WebSocket) -> None:
            await self.answer(websocket)

        @app.websocket("/ticker")
        async def ticker(websocket: WebSocket) -> None:
            await websocket.accept()
            try:
                while True:
                    await websocket.send_text("tick")
                    await asyncio.sleep(0.001)
            except WebSocketDisconnect as end:
                self.ends.append(("ticker", str(end.code)))

        return app

    async def answer(self, websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect as end:
            self.ends.append((websocket.url.path, f"{end.code} {end.reason}"))

    async def connect(
        self, path: str = "/talk", headers: dict[str, str] | None = None
    ) -> tuple[Line, asyncio.Task[None]]:
        line = Line()
        scope = websocket_scope(headers or {}, path=path)
        call = asyncio.create_task(self.app(scope, line.incoming.get, line.send))
        await eventually(lambda: line.sent, within=30)
        assert line.sent[0]["type"] == "websocket.accept"
        return line, call


@asynccontextmanager
async def open_hall(**options: Any) -> AsyncIterator[Hall]:
    hall = Hall(**options)
    async with hall.mode:
        yield hall


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (ON, DETAIL),
        (MaintenanceState(enabled=True, message="until four"), "until four"),
        (READ_ONLY, "Service temporarily read-only due to maintenance"),
    ],
)
async def test_websocket_is_closed_with_the_public_message(
    state: MaintenanceState, reason: str
) -> None:
    async with open_hall(close_websockets=0) as hall:
        line, call = await hall.connect()
        await hall.desk.flip(state)
        await asyncio.wait_for(call, 10)

        assert line.closes == [{"type": "websocket.close", "code": 1012, "reason": reason}]
        assert hall.ends == [("/talk", f"1012 {reason}")]
        await eventually(lambda: hall.mode.report()["drained"], within=30)


async def test_websocket_that_only_sends_is_disconnected() -> None:
    async with open_hall(close_websockets=0) as hall:
        line, call = await hall.connect("/ticker")
        await hall.desk.flip(ON)
        await asyncio.wait_for(call, 10)

        assert [message["code"] for message in line.closes] == [1012]
        assert hall.ends == [("ticker", "1006")]


def has_ticket(connection: Any) -> bool:
    return "x-ticket" in connection.headers


@pytest.mark.parametrize(("path", "headers"), [("/support", {}), ("/talk", {"x-ticket": "gold"})])
@pytest.mark.parametrize("opened", ["before", "during"])
async def test_websocket_forced_off_or_exempt_stays_open(
    path: str, headers: dict[str, str], opened: str
) -> None:
    async with open_hall(close_websockets=0, exempt_handler=has_ticket) as hall:
        if opened == "during":
            await hall.desk.flip(READ_ONLY)
        line, call = await hall.connect(path, headers)
        other = await hall.connect() if opened == "before" else None
        await hall.desk.flip(ON)
        if other is not None:
            await asyncio.wait_for(other[1], 10)
        await eventually(lambda: hall.mode.report()["drained"], within=30)
        line.say("still there?")
        await eventually(lambda: line.sent[-1].get("text") == "still there?", within=30)

        assert line.closes == []
        line.hang_up()
        await call


async def test_websockets_without_option_stay_open_and_block() -> None:
    async with open_hall() as hall:
        line, call = await hall.connect()
        await hall.desk.flip(ON)
        await asyncio.sleep(0.05)
        line.say("still there?")
        await eventually(lambda: line.sent[-1].get("text") == "still there?", within=30)

        assert line.closes == []
        assert hall.mode.report()["websockets"] == 1
        line.hang_up()
        await call
        assert hall.mode.report()["drained"]


async def test_websockets_stay_open_if_reopened_in_time() -> None:
    async with open_hall(close_websockets=2) as hall:
        line, call = await hall.connect()
        await hall.desk.flip(ON)
        await asyncio.sleep(0.1)
        assert line.closes == []
        await hall.desk.flip(OFF)
        await asyncio.sleep(2.2)
        assert line.closes == []
        await hall.desk.flip(ON)
        await asyncio.wait_for(call, 10)
        assert len(line.closes) == 1


async def test_websockets_get_the_full_time_after_each_closing() -> None:
    async with open_hall(close_websockets=4) as hall:
        line, call = await hall.connect()
        await hall.desk.flip(ON)
        await asyncio.sleep(2)
        await hall.desk.flip(OFF)
        await hall.desk.flip(ON)
        await asyncio.sleep(2.2)
        assert line.closes == []
        await asyncio.wait_for(call, 10)
        assert len(line.closes) == 1


async def test_websockets_get_no_more_time_for_a_changed_closing() -> None:
    async with open_hall(close_websockets=4) as hall:
        line, call = await hall.connect()
        await hall.desk.flip(ON)
        await asyncio.sleep(2)
        await hall.desk.flip(MaintenanceState(enabled=True, message="until four"))
        await asyncio.wait_for(call, 3.8)  # two seconds are left of four
        assert [message["reason"] for message in line.closes] == ["until four"]


async def test_websockets_of_a_closed_component_alone_are_closed() -> None:
    async with open_hall(close_websockets=0) as hall:
        talk, talking = await hall.connect("/talk")
        trade, trading = await hall.connect("/trade")
        await hall.desk.flip(
            MaintenanceState(enabled=True, message="no trade until four"), "trading"
        )
        await asyncio.wait_for(trading, 10)
        talk.say("still there?")
        await eventually(lambda: talk.sent[-1].get("text") == "still there?", within=30)

        assert trade.closes == [
            {"type": "websocket.close", "code": 1012, "reason": "no trade until four"}
        ]
        assert talk.closes == []
        await hall.desk.flip(ON)
        await asyncio.wait_for(talking, 10)
        assert hall.ends == [("/trade", "1012 no trade until four"), ("/talk", f"1012 {DETAIL}")]


async def test_websockets_of_an_opened_component_stay_open() -> None:
    async with open_hall(close_websockets=0) as hall:
        await hall.desk.flip(OFF, "trading")
        _, talking = await hall.connect("/talk")
        trade, trading = await hall.connect("/trade")
        await hall.desk.flip(ON)
        await asyncio.wait_for(talking, 10)
        trade.say("still there?")
        await eventually(lambda: trade.sent[-1].get("text") == "still there?", within=30)

        assert trade.closes == []
        trade.hang_up()
        await trading


async def test_websockets_of_a_component_count_from_its_closing() -> None:
    async with open_hall(close_websockets=0.4) as hall:
        await hall.desk.flip(OFF, "trading")
        talk, talking = await hall.connect("/talk")
        trade, trading = await hall.connect("/trade")
        await hall.desk.flip(ON)
        await asyncio.sleep(0.3)
        closed_at = time.monotonic()
        await hall.desk.flip(ON, "trading")
        await asyncio.wait_for(talking, 10)
        await asyncio.wait_for(trading, 10)

        assert time.monotonic() - closed_at >= 0.4
        assert hall.ends == [("/talk", f"1012 {DETAIL}"), ("/trade", f"1012 {DETAIL}")]
        assert [len(line.closes) for line in (talk, trade)] == [1, 1]


async def test_websocket_that_hangs_does_not_keep_others_open() -> None:
    """A client that reads nothing fills its connection, and then whatever is sent to it waits."""
    async with open_hall(close_websockets=0) as hall:
        lines = [(await hall.connect())[0] for _ in range(6)]
        stuck = lines[::2]
        for line in stuck:
            line.writable.clear()
        await hall.desk.flip(ON)
        await eventually(lambda: all(line.closes for line in lines if line not in stuck), within=30)
        await eventually(lambda: hall.mode.report()["drained"], within=30)


@pytest.mark.parametrize("state", [OFF, ON])
@pytest.mark.parametrize(
    ("scope", "options", "as_given"),
    [
        (websocket_scope(), {}, True),
        (websocket_scope(), {"close_websockets": 5}, False),
        (http_scope(), {"close_websockets": 5}, True),
    ],
)
async def test_connection_is_passed_on_as_it_came_without_option(
    state: MaintenanceState, scope: dict[str, Any], options: dict[str, Any], as_given: bool
) -> None:
    given: list[Any] = []

    async def look(scope: Any, receive: Any, send: Any) -> None:
        given.extend((receive, send))

    line, desk = Line(), Desk()
    desk.state = state
    app = MaintenanceModeMiddleware(force_maintenance_mode_off(look), backend=desk, **options)
    async with app.mode:
        await app(scope, line.incoming.get, line.send)

    assert (given == [line.incoming.get, line.send]) is as_given


# -- at a real server ------------------------------------------------------------------------------


SERVERS_OF_WEBSOCKETS: Final[dict[str, Server]] = {
    **{f"uvicorn with {ws}": partial(serving, ws=ws) for ws in WEBSOCKETS},
    "hypercorn": serving_by_hypercorn,
}


@contextmanager
def real_hall(server: str, **options: Any) -> Iterator[tuple[Hall, str]]:
    hall = Hall(**options)
    with SERVERS_OF_WEBSOCKETS[server](hall.app) as address:
        yield hall, f"ws://{address}"


def flip(hall: Hall, state: MaintenanceState, component: str | None = None) -> None:
    """From outside of its event loop."""
    (loop,) = hall.mode._watches
    asyncio.run_coroutine_threadsafe(hall.desk.flip(state, component), loop).result(10)


def ask(client: ClientConnection, word: str) -> str | bytes:
    client.send(word)
    return client.recv(10)


@pytest.mark.parametrize("server", SERVERS_OF_WEBSOCKETS)
def test_real_websocket_client_gets_1012_with_the_reason(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        real_hall(server, close_websockets=0.05) as (hall, url),
        connect(f"{url}/talk", open_timeout=60) as client,
        connect(f"{url}/support", open_timeout=60) as support,
    ):
        assert (ask(client, "hello"), ask(support, "hello")) == ("hello", "hello")
        flip(hall, MaintenanceState(enabled=True, message="until four"))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)

        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "until four")
        eventually_sync(lambda: hall.ends == [("/talk", "1012 until four")], within=30)
        eventually_sync(lambda: hall.mode.report()["drained"], within=30)
        assert ask(support, "still there?") == "still there?"

    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("server", SERVERS_OF_WEBSOCKETS)
def test_real_websocket_client_of_a_component_gets_1012(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        real_hall(server, close_websockets=0.05) as (hall, url),
        connect(f"{url}/trade", open_timeout=60) as client,
        connect(f"{url}/talk", open_timeout=60) as talk,
    ):
        assert (ask(client, "hello"), ask(talk, "hello")) == ("hello", "hello")
        flip(hall, MaintenanceState(enabled=True, message="no trade until four"), "trading")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)

        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "no trade until four")
        assert ask(talk, "still there?") == "still there?"

    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# -- streams ---------------------------------------------------------------------------------------


class Wire:
    """A server's side of one HTTP exchange, whose client says nothing more."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.writable = asyncio.Event()
        self.writable.set()

    async def receive(self) -> Message:
        silence: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await silence

    async def send(self, message: Message) -> None:
        await self.writable.wait()
        self.sent.append(message)

    @property
    def text(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def ended(self) -> int:
        bodies = [message for message in self.sent if message["type"] == "http.response.body"]
        return sum(not body.get("more_body", False) for body in bodies)


START: Final[dict[str, Any]] = {"type": "http.response.start", "status": 200, "headers": []}
PART: Final[dict[str, Any]] = {"type": "http.response.body", "body": b"part", "more_body": True}
LAST: Final[dict[str, Any]] = {"type": "http.response.body", "body": b"last"}


async def test_stream_is_ended_once_and_disconnects_its_application() -> None:
    wire = Wire()
    stream = ClosableStream(wire.receive, wire.send)
    for message in (START, PART):
        await stream.send(message)
    waiting = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    await asyncio.gather(stream.close(), stream.close())

    assert (wire.text, wire.ended) == (b"part", 1)
    assert await waiting == await stream.receive() == {"type": "http.disconnect"}
    with pytest.raises(OSError, match="closed for maintenance"):
        await stream.send(PART)
    assert wire.ended == 1


@pytest.mark.parametrize(("version", "dropped"), [("2.3", True), ("2.4", False), (None, True)])
async def test_stream_send_before_asgi_2_4_is_dropped_at_first(
    version: str | None, dropped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error at once would leave the generator of a response to the garbage collector."""
    wire, ended = Wire(), asyncio.Event()
    stream = ClosableStream(wire.receive, wire.send)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(PART)
        await stream.close()
        if dropped:
            await send(PART)
            monkeypatch.setattr("fastapi_maintenance.middleware.websocket._CLOSE_TIMEOUT", 0.0)
        with pytest.raises(OSError, match="closed for maintenance"):
            await send(PART)
        ended.set()

    await stream.run(app, http_scope() | {"asgi": {"spec_version": version} if version else {}})

    assert ended.is_set()
    assert (wire.text, wire.ended) == (b"part", 1)


async def test_stream_that_sends_without_a_pause_is_disconnected() -> None:
    wire = Wire()
    stream = ClosableStream(wire.receive, wire.send)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(PART)
        await stream.close()
        while True:
            await send(PART)

    await stream.run(app, http_scope())

    assert (wire.text, wire.ended) == (b"part", 1)


async def test_stream_is_ended_after_the_part_that_is_being_sent() -> None:
    wire = Wire()
    stream = ClosableStream(wire.receive, wire.send)
    await stream.send(START)
    wire.writable.clear()
    sending = asyncio.create_task(stream.send(PART))
    await asyncio.sleep(0)
    await stream.close()
    assert wire.ended == 0
    wire.writable.set()
    await sending

    assert [message["type"] for message in wire.sent[1:]] == ["http.response.body"] * 2
    assert (wire.text, wire.ended) == (b"part", 1)


async def test_stream_that_begins_late_ends_after_its_first_part() -> None:
    wire = Wire()
    stream = ClosableStream(wire.receive, wire.send)
    await stream.close()
    assert wire.sent == []
    for message in (START, PART):
        await stream.send(message)
    assert (wire.text, wire.ended) == (b"part", 1)


@pytest.mark.parametrize(
    "messages",
    [
        [START, LAST],
        [{**START, "headers": [(b"Content-Length", b"8")]}, PART, {**LAST, "more_body": False}],
    ],
)
@pytest.mark.parametrize("evicted", [0, 1, 2, 3])
async def test_response_with_a_known_end_is_sent_whole(
    messages: list[Message], evicted: int
) -> None:
    wire = Wire()
    stream = ClosableStream(wire.receive, wire.send)
    if (evicted, messages[-2]) == (1, START):
        return  # begun, and nobody knows how it goes on: that is ended
    for number, message in enumerate([*messages, None]):
        if number == evicted:
            await stream.close()
        if message is not None:
            await stream.send(message)
    assert (wire.sent, stream.closed) == (messages, False)


async def ticks(ends: list[str] | None = None, every: float = 0.01) -> AsyncIterator[str]:
    try:
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(every)
    finally:
        if ends is not None:
            ends.append("end")


def ticking(ends: list[str]) -> FastAPI:
    app = FastAPI()

    @app.get("/events", response_class=EventSourceResponse)
    async def events() -> AsyncIterator[str]:
        async for tick in ticks(ends):
            yield tick

    @app.get("/ticks")
    @maintenance_component("trading")
    async def plain() -> StreamingResponse:
        return StreamingResponse(ticks(ends))

    @app.get("/support")
    @force_maintenance_mode_off
    async def support() -> StreamingResponse:
        return StreamingResponse(ticks(ends))

    @app.get("/panel", dependencies=[Depends(untrack_current_request)])
    async def panel() -> StreamingResponse:
        return StreamingResponse(ticks(ends))

    return app


def has_ended(ends: list[str], path: str) -> bool:
    if path == "/events":  # FastAPI leaves a generator to it that is cancelled as it sends
        gc.collect()
    return ends == ["end"]


@asynccontextmanager
async def streaming(app: ASGIApp, path: str) -> AsyncIterator[tuple[Wire, asyncio.Task[None]]]:
    wire = Wire()

    async def serve() -> None:
        await app(http_scope(path=path), wire.receive, wire.send)

    call = asyncio.create_task(serve())
    await eventually(lambda: wire.text, within=30)
    try:
        yield wire, call
    finally:
        call.cancel()
        await asyncio.wait([call])


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
@pytest.mark.parametrize("path", ["/events", "/ticks"])
async def test_streams_end_after_a_closing_and_the_worker_drains(
    path: str, spec_version: str
) -> None:
    desk, ends = Desk(), list[str]()
    app = MaintenanceModeMiddleware(ticking(ends), backend=desk, close_streams=0)

    async def as_of(scope: Any, receive: Any, send: Any) -> None:
        await app(
            {**scope, "asgi": {"version": "3.0", "spec_version": spec_version}}, receive, send
        )

    async with app.mode, streaming(as_of, path) as (wire, call):
        await desk.flip(ON)
        await asyncio.wait_for(asyncio.shield(call), 10)  # and raises nothing

        assert wire.ended == 1
        await eventually(lambda: has_ended(ends, path), within=30)
        await eventually(lambda: app.mode.report()["drained"], within=30)


@pytest.mark.parametrize(
    ("path", "options"),
    [("/support", {"close_streams": 0}), ("/panel", {"close_streams": 0}), ("/events", {})],
)
async def test_streams_that_are_not_refused_go_on(path: str, options: dict[str, Any]) -> None:
    desk = Desk()
    app = MaintenanceModeMiddleware(ticking([]), backend=desk, **options)
    async with app.mode, streaming(app, path) as (wire, call):
        await desk.flip(ON)
        await eventually(lambda: app.mode.report()["drained"] or not options, within=30)
        length = len(wire.sent)
        await eventually(lambda: len(wire.sent) > length + 2, within=30)

        assert not call.done()


async def test_streams_have_so_many_seconds() -> None:
    desk = Desk()
    app = MaintenanceModeMiddleware(ticking([]), backend=desk, close_streams=0.3)
    async with app.mode, streaming(app, "/ticks") as (_, call):
        closed_at = time.monotonic()
        await desk.flip(ON, "trading")
        await asyncio.wait_for(asyncio.shield(call), 10)

        assert time.monotonic() - closed_at >= 0.3


async def test_stream_that_fails_at_its_end_raises_what_it_raises() -> None:
    desk = Desk()

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(PART)
        await receive()
        raise ExceptionGroup("several", [OSError("gone"), ValueError("my own")])

    app = MaintenanceModeMiddleware(failing, backend=desk, close_streams=0)
    async with app.mode, streaming(app, "/") as (_, call):
        await desk.flip(ON)
        with pytest.raises(ExceptionGroup, match="several"):
            await asyncio.wait_for(asyncio.shield(call), 10)


async def test_streams_that_fail_by_themselves_raise_as_ever() -> None:
    app = MaintenanceModeMiddleware(failing, backend=Desk(), close_streams=0)
    with pytest.raises(OSError, match="my own"):
        await app(http_scope(), Wire().receive, Wire().send)


async def failing(scope: Any, receive: Any, send: Any) -> None:
    raise OSError("my own")


def test_close_streams_must_not_be_negative() -> None:
    with pytest.raises(ConfigurationError, match="close_streams"):
        MaintenanceMode(Desk(), close_streams=-1)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("path", ["/events", "/ticks"])
def test_real_clients_see_an_orderly_end_of_a_stream(
    server: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    desk, ends = Desk(), list[str]()
    app = MaintenanceModeMiddleware(ticking(ends), backend=desk, close_streams=0.1)
    with (
        SERVERS[server](app) as address,
        httpx2.Client(base_url=f"http://{address}", timeout=20) as client,
    ):
        with client.stream("GET", path) as response:
            parts = response.iter_raw()
            assert b"tick" in next(parts)
            (loop,) = app.mode._watches
            asyncio.run_coroutine_threadsafe(desk.flip(ON), loop).result(10)
            assert all(b"tick" in part for part in parts if part)
        assert client.get(path).status_code == 503  # on the same connection
        eventually_sync(lambda: has_ended(ends, path), within=30)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
