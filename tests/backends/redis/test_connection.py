"""One connection, many commands in flight, pushes in between, and every way in which it can end."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError, ResponseError

from fastapi_maintenance.backends.redis.connection import _PUSH, RedisConnection, ReplyParser
from fastapi_maintenance.backends.redis.server import SingleServer
from fastapi_maintenance.exceptions import BackendUnavailableError
from tests.conftest import RedisServerFactory
from tests.support.waiting import eventually

from .links import open_files
from .parsers import PARSERS
from .scripted import Scripted, scripted

SOON = 30.0  # seconds: for what takes milliseconds


class Events:
    """Counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1

    def is_at(self, count: int) -> bool:
        return self.count == count


@pytest.fixture
def events() -> Events:
    return Events()


@asynccontextmanager
async def wire_to(port: int, events: Events, **options: Any) -> AsyncIterator[RedisConnection]:
    """A wire to a real server."""
    connection = Connection(host="127.0.0.1", port=port, **{"protocol": 3, **options})
    await connection.connect()  # type: ignore[no-untyped-call]
    async with RedisConnection(connection, events, within=5.0) as wire:
        yield wire


@asynccontextmanager
async def scripted_wire(
    server: Scripted, events: Events, **options: Any
) -> AsyncIterator[RedisConnection]:
    async with RedisConnection(await server.connect(**options), events, within=5.0) as wire:
        yield wire


@pytest.fixture(params=PARSERS)
def parser(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def port(redis_url: str) -> int:
    return int(redis_url.rsplit(":", 1)[1].removesuffix("/0"))


# -- replies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
async def test_replies_and_errors_come_in_the_order_of_commands(
    port: int, events: Events, protocol: int, parser: Any
) -> None:
    own = protocol == 2 and parser is PARSERS[0]  # RESP2 has a parser of its own
    options: dict[str, Any] = {} if own else {"parser_class": parser}
    async with wire_to(port, events, protocol=protocol, **options) as wire:
        replies = await wire.call(
            ("SET", "a", "1"),
            ("GET", "a"),
            ("LPUSH", "a", "1"),
            ("GET", "b"),
            ("MGET", "a", "b"),
            within=SOON,
        )

    assert replies[:2] == [b"OK", b"1"]
    assert isinstance(replies[2], ResponseError)
    assert str(replies[2]).startswith("WRONGTYPE")
    assert replies[3:] == [None, [b"1", None]]
    assert events.count == 0


async def test_several_callers_share_a_wire(port: int, events: Events) -> None:
    async with wire_to(port, events) as wire:
        calls = [
            wire.call(("ECHO", f"{number}-a"), ("ECHO", f"{number}-b"), within=SOON)
            for number in range(50)
        ]
        replies = await asyncio.gather(*calls)

    assert replies == [[f"{number}-a".encode(), f"{number}-b".encode()] for number in range(50)]


async def test_reply_to_a_cancelled_call_is_not_the_next_one(port: int, events: Events) -> None:
    async with wire_to(port, events) as wire:
        call = asyncio.ensure_future(
            wire.call(("BLPOP", "nothing", "0.2"), ("ECHO", "late"), within=SOON)
        )
        await asyncio.sleep(0.05)
        call.cancel()
        assert await wire.call(("ECHO", "mine"), within=SOON) == [b"mine"]


async def test_what_cannot_be_encoded_is_refused_and_spoils_nothing(
    port: int, events: Events
) -> None:
    async with wire_to(port, events) as wire:
        with pytest.raises(UnicodeEncodeError):
            await wire.call(("ECHO", "\ud800"), within=SOON)
        assert await wire.call(("ECHO", "mine"), within=SOON) == [b"mine"]


async def test_it_remembers_when_it_last_heard_anything(port: int, events: Events) -> None:
    async with wire_to(port, events) as wire:
        before = wire.last_received_at
        await asyncio.sleep(0.02)
        assert wire.last_received_at == before
        await wire.call(("PING",), within=SOON)
        assert before < wire.last_received_at <= time.monotonic()


class Imitation:
    """Stands in for a connection without a socket, as what imitates Redis has. It answers whatever
    is sent with all these replies.
    """

    protocol = 3

    def __init__(self, *replies: object) -> None:
        self._replies = replies
        self._said: asyncio.Queue[object] = asyncio.Queue()

    async def send_packed_command(self, packed: bytes, *, check_health: bool) -> None:
        for reply in self._replies:
            self._said.put_nowait(reply)

    async def read_response(self, *, push_request: bool) -> object:
        reply = await self._said.get()
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def disconnect(self, *, nowait: bool) -> None:
        pass


async def test_error_reply_of_an_imitation_is_returned(events: Events) -> None:
    refusal = ResponseError("WRONGTYPE")
    imitation: Any = Imitation(refusal, b"OK")
    async with RedisConnection(imitation, events, within=5.0) as wire:
        assert await wire.call(("LPUSH", "a", "1"), ("PING",), within=SOON) == [refusal, b"OK"]
        wire.check()
    assert events.count == 0


async def test_imitation_that_ends_fails_what_waits(events: Events) -> None:
    imitation: Any = Imitation(OSError("it ended"))
    async with RedisConnection(imitation, events, within=5.0) as wire:
        with pytest.raises(BackendUnavailableError, match="it ended"):
            await wire.call(("PING",), within=SOON)
    assert events.count == 1


# -- pushes ----------------------------------------------------------------------------------------


async def test_a_push_is_an_event_and_no_reply(
    port: int, events: Events, operator: Any, parser: Any
) -> None:
    async with wire_to(port, events, parser_class=parser) as wire:
        on, subscribed = await wire.call(
            ("CLIENT", "TRACKING", "ON"), ("SUBSCRIBE", "news"), within=SOON
        )
        assert not isinstance(on, Exception)
        assert not isinstance(subscribed, Exception)
        assert events.count == 0

        for event, change in enumerate(
            (operator.set("a", "1"), operator.publish("news", "x"), operator.flushall()), start=1
        ):
            await wire.call(("GET", "a"), within=SOON)
            await change
            await eventually(partial(events.is_at, event), within=SOON)
        assert await wire.call(("ECHO", "mine"), within=SOON) == [b"mine"]


async def test_a_message_is_an_event_with_resp2_too(
    port: int, events: Events, operator: Any, parser: Any
) -> None:
    async with wire_to(port, events, protocol=2, parser_class=parser) as wire:
        assert await wire.call(("SUBSCRIBE", "news"), within=SOON) == [[b"subscribe", b"news", 1]]
        await operator.publish("news", "x")
        await eventually(lambda: events.count == 1, within=SOON)
        assert await wire.call(("PING",), within=SOON) == [[b"pong", b""]]


@pytest.mark.parametrize("kind", [b"message", b"unsubscribe", b"invalidate"])
async def test_push_parsed_as_an_array_is_an_event(events: Events, kind: bytes) -> None:
    confirmed = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"
    async with scripted(confirmed) as server, scripted_wire(server, events, protocol=2) as wire:
        await wire.call(("SUBSCRIBE", "x"), within=SOON)
        server.say(b"*2\r\n$%d\r\n%s\r\n$1\r\nx\r\n" % (len(kind), kind))
        await eventually(lambda: events.count == 1, within=SOON)
        wire.check()


@pytest.mark.parametrize("protocol", [2, 3])
async def test_array_that_looks_like_a_message_is_a_reply(
    port: int, events: Events, operator: Any, protocol: int
) -> None:
    """With RESP2 the history's component `message` comes as such an array."""
    await operator.rpush("mail", "message", "0 digest")
    async with wire_to(port, events, protocol=protocol) as wire:
        replies = await wire.call(("LRANGE", "mail", "0", "-1"), within=SOON)
    assert replies == [[b"message", b"0 digest"]]
    assert not events.count


async def test_a_subscription_that_ends_is_an_event(port: int, events: Events) -> None:
    async with wire_to(port, events) as wire:
        await wire.call(("SUBSCRIBE", "news"), within=SOON)
        await wire._connection.send_command("UNSUBSCRIBE", "news")
        await eventually(lambda: events.count == 1, within=SOON)


# -- the end ---------------------------------------------------------------------------------------


async def test_an_end_is_an_event_and_an_error_from_then_on(events: Events, parser: Any) -> None:
    async with scripted() as server, scripted_wire(server, events, parser_class=parser) as wire:
        call = asyncio.ensure_future(wire.call(("PING",), within=SOON))
        await eventually(lambda: server.writers, within=SOON)
        server.hang_up()

        with pytest.raises(BackendUnavailableError, match=r"closed|reset"):
            await call
        assert events.count == 1
        with pytest.raises(BackendUnavailableError, match=r"closed|reset"):
            wire.check()
        with pytest.raises(BackendUnavailableError, match=r"closed|reset"):
            await wire.call(("PING",), within=SOON)
        assert server.accepted == 1


async def test_replies_that_came_before_the_end_count(port: int, events: Events) -> None:
    async with wire_to(port, events) as wire:
        assert await wire.call(("ECHO", "x"), ("QUIT",), within=SOON) == [b"x", b"OK"]
        await eventually(lambda: events.count == 1, within=SOON)


async def test_replies_that_came_together_with_the_end_count(events: Events) -> None:
    async with (
        scripted(b"+OK\r\n+OK\r\nnonsense\r\n") as server,
        scripted_wire(server, events) as wire,
    ):
        assert await wire.call(("A",), ("B",), within=SOON) == [b"OK", b"OK"]
        with pytest.raises(BackendUnavailableError, match=r"(?i)protocol error"):
            wire.check()


async def test_a_silent_server_is_given_up_after_the_deadline(events: Events) -> None:
    async with scripted() as server, scripted_wire(server, events) as wire:
        began = time.monotonic()
        with pytest.raises(BackendUnavailableError, match=r"no reply within 0\.2 s"):
            await wire.call(("PING",), within=0.2)
        assert 0.19 < time.monotonic() - began < 5
        assert events.count == 1

        server.say(b"+PONG\r\n")  # too late; it stays given up, for the first reason
        await eventually(lambda: events.count == 2, within=SOON)
        with pytest.raises(BackendUnavailableError, match="no reply within"):
            wire.check()


async def test_call_is_answered_while_all_tasks_are_cancelled(port: int, events: Events) -> None:
    """As when a server without lifespan events stops: its event loop cancels all tasks at once."""

    async def leave() -> list[Any]:
        try:
            await asyncio.Event().wait()
        finally:
            return await wire.call(("ECHO", "bye"), within=60)  # noqa: B012 - as a link leaves

    async with wire_to(port, events) as wire:
        leaving = asyncio.create_task(leave())
        await asyncio.sleep(0.01)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if "wire" in task.get_name() or task is leaving:
                task.cancel()
        assert await asyncio.wait_for(leaving, 10) == [b"bye"]


async def test_server_that_reads_nothing_is_given_up(events: Events) -> None:
    """Sending blocks too, once every buffer on the way is full."""
    async with scripted(deaf=True) as server, scripted_wire(server, events) as wire:
        began = time.monotonic()
        with pytest.raises(BackendUnavailableError):
            await wire.call(("SET", "a", b"x" * 50_000_000), within=0.3)
        assert time.monotonic() - began < 3


async def test_reply_after_a_blocked_loop_counts(
    events: Events,
) -> None:
    """It is away while the reply is waited for, so that the deadline has passed before anybody can
    look at the socket.
    """

    async def be_away(heard: bytes) -> bytes:
        time.sleep(0.16)
        for _ in range(5):  # so that whoever only goes by the deadline has given up
            await asyncio.sleep(0)
        return b"+OK\r\n"

    async with scripted(be_away) as server, scripted_wire(server, events) as wire:
        assert await wire.call(("ECHO", "x"), within=0.1) == [b"OK"]


async def test_blocked_loop_gives_a_silent_server_more_time(events: Events) -> None:
    def be_away(heard: bytes) -> bytes:
        time.sleep(0.2)
        return b""

    async with scripted(be_away) as server, scripted_wire(server, events) as wire:
        began = time.monotonic()
        with pytest.raises(BackendUnavailableError, match="no reply"):
            await wire.call(("ECHO", "x"), within=0.1)
        assert 0.29 < time.monotonic() - began < SOON


async def test_a_reply_that_nobody_asked_for_ends_it(events: Events) -> None:
    async with scripted() as server, scripted_wire(server, events) as wire:
        await eventually(lambda: server.writers, within=SOON)
        server.say(b"+OK\r\n")
        await eventually(lambda: events.count == 1, within=SOON)
        with pytest.raises(BackendUnavailableError, match="unexpected reply"):
            wire.check()


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"$many\r\n",
        b":one\r\n",
        b"*-x\r\n",
        b"%1\r\n*0\r\n:1\r\n",
        b"\x00\xff\r\n",
        b"\r\n",
    ],
)
async def test_bytes_that_are_not_resp_end_it(events: Events, garbage: bytes, parser: Any) -> None:
    async with (
        scripted(garbage) as server,
        scripted_wire(server, events, parser_class=parser) as wire,
    ):
        with pytest.raises(BackendUnavailableError) as ended:
            await wire.call(("PING",), within=SOON)
        assert "no reply" not in str(ended.value), (
            "that is a deadline, which silence would have met as well"
        )
        assert events.count >= 1


async def test_a_push_of_no_known_kind_is_no_reply(events: Events, parser: Any) -> None:
    async with (
        scripted(b">1\r\n*0\r\n") as server,
        scripted_wire(server, events, parser_class=parser) as wire,
    ):
        with pytest.raises(BackendUnavailableError):
            await wire.call(("PING",), within=0.5)


async def test_an_error_about_the_connection_ends_it(events: Events) -> None:
    async with (
        scripted(b"-LOADING Redis is loading the dataset in memory\r\n") as server,
        scripted_wire(server, events) as wire,
    ):
        with pytest.raises(BackendUnavailableError, match="loading the dataset"):
            await wire.call(("PING",), within=SOON)


async def test_socket_that_timed_out_ends_the_connection(events: Events, parser: Any) -> None:
    """redis-py with `timeout=` takes ETIMEDOUT for "no message yet", for ever, and freezes the
    event loop.
    """
    async with scripted() as server, scripted_wire(server, events, parser_class=parser) as wire:
        call = asyncio.ensure_future(wire.call(("PING",), within=SOON))
        await asyncio.sleep(0.02)
        assert wire._transport is not None
        spent = time.process_time()
        wire._transport._fatal_error(OSError(errno.ETIMEDOUT, "Connection timed out"))  # type: ignore[attr-defined]
        with pytest.raises(BackendUnavailableError, match=r"(?i)time"):
            await asyncio.wait_for(call, 1.0)
        await asyncio.sleep(0.2)
        assert time.process_time() - spent < 0.15
        assert events.count == 1


async def test_connection_lost_twice_keeps_the_first_reason(events: Events) -> None:
    """The kernel's ETIMEDOUT is a lost network, and no slow Redis as a TimeoutError would be."""
    async with scripted() as server, scripted_wire(server, events) as wire:
        wire.connection_lost(OSError(errno.ETIMEDOUT, "Connection timed out"))
        wire.connection_lost(None)

        with pytest.raises(BackendUnavailableError, match="Connection timed out") as lost:
            wire.check()
        assert type(lost.value.__cause__) is ConnectionError


async def test_sending_into_a_connection_that_is_gone_is_an_error(events: Events) -> None:
    async with scripted() as server, scripted_wire(server, events) as wire:
        writer: Any = wire._connection._writer
        writer.transport.abort()
        with pytest.raises(BackendUnavailableError):
            await wire.call(("PING",), within=SOON)


async def test_call_cancelled_while_sending_opens_no_connection(
    events: Events,
) -> None:
    """redis-py closes the connection then, and opens another for the next command,
    without a word.
    """
    async with scripted(deaf=True) as server, scripted_wire(server, events) as wire:
        call = asyncio.ensure_future(wire.call(("SET", "a", b"x" * 50_000_000), within=SOON))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(BackendUnavailableError):
            await wire.call(("PING",), within=0.3)
        assert server.accepted == 1


async def test_whatever_goes_wrong_in_sending_ends_it(events: Events) -> None:
    """Since Python 3.12, transports have lost their event loop where the peer has gone a moment
    ago, and look for it all the same.
    """
    async with scripted(deaf=True) as server, scripted_wire(server, events) as wire:
        transport: Any = wire._transport

        def fail(lines: object) -> None:
            raise AttributeError("'NoneType' object has no attribute '_add_writer'")

        transport.write = fail
        for _ in range(2):
            with pytest.raises(BackendUnavailableError, match="_add_writer"):
                await wire.call(("PING",), within=SOON)


RESP2 = b"+OK\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n*2\r\n*0\r\n*-1\r\n-ERR no\r\n"
RESP3 = (
    b"+OK\r\n$3\r\na\r\n\r\n%1\r\n+a\r\n,1.5\r\n~2\r\n#t\r\n#f\r\n_\r\n(12\r\n!6\r\nERR on\r\n"
    b">2\r\n+subscribe\r\n+x\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 7, 200])
@pytest.mark.parametrize(
    ("protocol", "text", "expected"),
    [
        (2, RESP2, [b"OK", -7, b"a\r\n", None, [[], None], "no"]),
        (3, RESP3, [b"OK", b"a\r\n", {b"a": 1.5}, [True, False], None, 12, "on"]),
    ],
)
async def test_replies_in_pieces_are_read_as_a_whole(
    size: int, protocol: int, text: bytes, expected: list[object]
) -> None:
    """Each kind of reply, however the network cuts it."""
    parser = ReplyParser(protocol)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    *replies, last = (reply for piece in pieces for reply in parser.feed(piece))
    if protocol == 3:
        assert last == [b"subscribe", b"x"]
        last = replies.pop()

    assert isinstance(last, ResponseError)
    assert [*replies, str(last).removeprefix("ERR ")] == expected


@pytest.mark.parametrize("kind", [b"invalidate", b"message", b"MOVING"])
async def test_push_is_no_reply(kind: bytes) -> None:
    (push,) = ReplyParser(3).feed(b">2\r\n$%d\r\n%b\r\n*0\r\n" % (len(kind), kind))

    assert push is _PUSH


# -- closing ---------------------------------------------------------------------------------------


async def test_closing_it_closes_the_connection_and_ends_the_reader(events: Events) -> None:
    async with scripted() as server:
        before = asyncio.all_tasks()
        async with scripted_wire(server, events):
            await eventually(lambda: server.writers, within=SOON)
        assert not {task for task in asyncio.all_tasks() - before if "wire" in task.get_name()}
        await eventually(lambda: not server.writers, within=SOON)


async def test_close_that_is_cancelled_again_closes(
    events: Events,
) -> None:
    async with scripted() as server:
        wire = RedisConnection(await server.connect(), events, within=5.0)
        await wire.__aenter__()
        await eventually(lambda: server.writers, within=SOON)
        closing = asyncio.ensure_future(wire.__aexit__(None, None, None))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await eventually(lambda: not server.writers, within=SOON)


@pytest.mark.timeout(20)
async def test_connection_that_ended_before_it_was_taken_over_closes(events: Events) -> None:
    """As where a server ends the handshake of TLS late, for want of a certificate."""
    async with scripted() as server:
        connection: Any = await server.connect()
        connection._reader.feed_eof()
        connection._writer.transport.abort()
        await asyncio.sleep(0)  # now redis-py's own protocol has been told
        await asyncio.sleep(0)
        async with RedisConnection(connection, events, within=5.0) as wire:
            with pytest.raises(BackendUnavailableError):
                await wire.call(("PING",), within=SOON)


async def test_close_with_tls_does_not_wait_for_a_frozen_server(
    own_redis_server: RedisServerFactory, events: Events
) -> None:
    server = own_redis_server(tls=True)
    before = open_files()
    connection = await SingleServer.from_url(server.url).connect(timeout=SOON)
    async with RedisConnection(connection, events, within=5.0) as wire:
        await wire.call(("PING",), within=SOON)
        server.pause()
    assert not wire._connection.is_connected
    await eventually(
        lambda: not {file for file in open_files() - before if "socket" in file}, within=SOON
    )
