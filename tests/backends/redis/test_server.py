"""Where Redis is, as a URL or a client says; never with a password in what is shown."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import AuthenticationError, ConnectionError, RedisError, ResponseError

from fastapi_maintenance.backends.redis.server import SingleServer, _first
from fastapi_maintenance.exceptions import ConfigurationError
from tests.conftest import RedisServerFactory
from tests.support.waiting import eventually

from .scripted import scripted

SECRET = "s3cr#t/p@ss:w%rd?"
ENCODED = "s3cr%23t%2Fp%40ss%3Aw%25rd%3F"


def connection_of(url: str) -> Any:
    return SingleServer.from_url(url)._make(timeout=1.0, protocol=3)


# -- URLs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://", "redis://localhost:6379/0"),
        ("redis://redis.internal", "redis://redis.internal:6379/0"),
        ("redis://127.0.0.1:6380/3", "redis://127.0.0.1:6380/3"),
        ("redis://h?db=4", "redis://h:6379/4"),
        ("redis://[::1]:6380/1", "redis://[::1]:6380/1"),
        ("rediss://h/2", "rediss://h:6379/2"),
        (f"redis://ana:{ENCODED}@h/0", "redis://h:6379/0"),
        (f"redis://:{ENCODED}@h", "redis://h:6379/0"),
        (f"redis://h?username=ana&password={ENCODED}", "redis://h:6379/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock?db=0"),
        (f"unix://ana:{ENCODED}@/run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert SingleServer.from_url(url).describe() == shown


def test_a_url_says_everything_about_the_connection() -> None:
    connection = connection_of(f"redis://ana:{ENCODED}@[::1]:6380/3?socket_keepalive=yes")

    assert type(connection) is Connection
    assert (connection.host, connection.port, connection.db) == ("::1", 6380, 3)
    assert (connection.username, connection.password) == ("ana", SECRET)
    assert connection.socket_keepalive is True


def test_the_scheme_chooses_the_kind_of_connection() -> None:
    assert type(connection_of("rediss://h?ssl_cert_reqs=none")) is SSLConnection
    assert type(connection_of("unix:///run/redis.sock")) is UnixDomainSocketConnection
    assert connection_of("unix:///run/my%20redis.sock").path == "/run/my redis.sock"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://h", "schemes"),
        ("redis://h/zero", "database that is not a number"),
        ("redis://h/0/1", "database that is not a number"),
        ("redis://h/²", "database that is not a number"),
        ("redis://h?db=zero", "Invalid value for 'db'"),
        ("redis://h:port/0", "port that is not a number"),
        ("redis://h:99999/0", "port that is not a number"),
        ("redis://h#0", "a # or an @"),
        ("redis://h?key=a@b", "a # or an @"),
        ("redis://h?cluster=yes", "unexpected keyword argument 'cluster'"),
        (
            "redis://h?socket_keepalive=perhaps&max_connections=many",
            "Invalid value for 'max_connections'",
        ),
        ("rediss://h?ssl_cert_reqs=perhaps", "cannot be given these options: .*Flag"),
        ("unix://", "names no socket"),
        ("unix://relative.sock", "names no socket"),
        ("unix://h/run/redis.sock", "names no socket"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        SingleServer.from_url(url)


@pytest.mark.parametrize(
    "password", ["pa/SECRET", "pa#SECRET", "12/SECRET", "12#SECRET", "pa?SECRET", "12?SECRET=1"]
)
@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
def test_a_password_that_is_not_encoded_is_not_quoted(scheme: str, password: str) -> None:
    """It makes any part of the URL look like another one, so that no part may be in an error."""
    with pytest.raises(ConfigurationError) as refused:
        SingleServer.from_url(f"{scheme}://ana:{password}@h/0")

    assert "SECRET" not in str(refused.value)
    assert "'pa'" not in str(refused.value)


# -- clients ---------------------------------------------------------------------------------------


async def test_a_client_says_how_to_connect_and_nothing_else() -> None:
    client: Any = redis.asyncio.Redis(
        host="h",
        port=6380,
        db=2,
        username="ana",
        password=SECRET,
        socket_timeout=77,
        socket_connect_timeout=78,
        health_check_interval=79,
        decode_responses=True,
        client_name="theirs",
        max_connections=3,
    )

    server = SingleServer.from_client(client)
    connection: Any = server._make(timeout=0.5, protocol=2)

    assert server.describe() == "redis://h:6380/2"
    assert (connection.username, connection.password) == ("ana", SECRET)
    assert (
        connection.socket_timeout,
        connection.socket_connect_timeout,
        connection.health_check_interval,
    ) == (None, 0.5, 0)
    assert connection.encoder.decode_responses is False
    assert connection.client_name is None
    assert connection.retry.get_retries() == 0


@pytest.mark.parametrize(
    "client", [redis.Redis(), object(), "redis://localhost", redis.asyncio.Redis]
)
def test_anything_but_an_async_client_is_refused(client: object) -> None:
    with pytest.raises(ConfigurationError, match=r"must be a redis\.asyncio\.Redis"):
        SingleServer.from_client(client)


# -- connecting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"unix_socket": True}, {"tls": True}])
async def test_it_connects_in_every_way(
    own_redis_server: RedisServerFactory, options: dict[str, Any]
) -> None:
    server = SingleServer.from_url(own_redis_server(**options).url)

    for protocol in (2, 3):
        connection: Any = await server.connect(timeout=5.0, protocol=protocol)
        try:
            await connection.send_command("PING")
            assert await connection.read_response() == b"PONG"
        finally:
            await connection.disconnect()


async def test_a_wrong_password_is_an_error_that_does_not_show_it(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server(config={"requirepass": "right"})
    wrong = server.url.replace("://", f"://:{ENCODED}@")

    for protocol in (2, 3):
        with pytest.raises(AuthenticationError) as refused:
            await SingleServer.from_url(wrong).connect(timeout=5.0, protocol=protocol)
        assert SECRET not in str(refused.value)


async def test_nobody_listening_is_an_error_at_once(free_port: int) -> None:
    with pytest.raises(ConnectionError, match="Connect call failed"):
        await SingleServer.from_url(f"redis://127.0.0.1:{free_port}").connect(timeout=5.0)


async def test_a_database_that_does_not_exist_is_an_error(redis_url: str) -> None:
    with pytest.raises(ResponseError, match="out of range"):
        await SingleServer.from_url(redis_url.replace("/0", "/9999")).connect(timeout=5.0)


async def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    async with scripted() as server:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await SingleServer.from_url(f"redis://127.0.0.1:{server.port}").connect(timeout=0.2)
        assert time.monotonic() - began < 5
        await eventually(lambda: not server.writers, within=30)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$many\r\n",
        b"*1\r\n",
        b"+OK\r\n",
        b"*2\r\n:1\r\n:2\r\n",
        b"%1\r\n*0\r\n:1\r\n",
        b"\x16\x03\x01\r\n",
    ],
)
async def test_server_that_is_no_redis_is_a_connection_error(
    answer: bytes,
) -> None:
    async with scripted(answer) as server:
        # With a password, redis-py reads the reply to HELLO more closely.
        for user in ("", ":x@"):
            try:
                connection = await SingleServer.from_url(
                    f"redis://{user}127.0.0.1:{server.port}"
                ).connect(timeout=0.3)
            except (RedisError, TimeoutError):
                continue
            await connection.disconnect()  # some of it can be taken for an answer
        await eventually(lambda: not server.writers, within=30)


async def test_a_cancelled_handshake_leaves_no_connection_open() -> None:
    async with scripted() as server:
        task = asyncio.ensure_future(
            SingleServer.from_url(f"redis://127.0.0.1:{server.port}").connect(timeout=30.0)
        )
        await eventually(lambda: server.writers, within=30)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: not server.writers, within=30)


async def test_connections_that_open_at_once_leave_one() -> None:
    go = asyncio.Event()

    async with scripted() as server:

        async def opening() -> Connection:
            connection = await server.connect(driver_info=None)
            await go.wait()
            return connection

        first = asyncio.create_task(_first([opening, opening], pause=0.0))
        await eventually(lambda: len(server.writers) == 2, within=30)
        go.set()
        winner = await first
        await eventually(lambda: len(server.writers) == 1, within=30)
        await winner.disconnect()


async def test_refusal_of_one_address_is_believed_at_once() -> None:
    async def silent() -> Connection:
        await asyncio.sleep(30)
        raise AssertionError

    async def refusing() -> Connection:
        raise ResponseError("unknown command 'HELLO'")

    async with asyncio.timeout(10):
        with pytest.raises(ResponseError, match="HELLO"):
            await _first([silent, refusing], pause=0.0)
