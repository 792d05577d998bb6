"""The address of a Redis server, and connections to it."""

from __future__ import annotations

import asyncio
import math
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, nullcontext
from copy import copy
from functools import partial
from inspect import signature
from ipaddress import ip_address
from typing import Any, Final, Protocol, Self
from urllib.parse import urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, ResponseError

from ..._internal.threads import start_thread
from ...exceptions import ConfigurationError
from .connection import HungUpError, RedisConnection, discard, request

Address = tuple[str, int]

_LEFT_FOR: Final = 1.0  # seconds, for which the address of a replica is not worth another try
_NEXT_ADDRESS: Final = 0.25  # seconds until the next one is tried too (RFC 8305, section 5)


class Server(Protocol):
    """Opens connections to whichever server owns the switch now.

    With `has_arbiters`, others tell which one that is, so that a read there is as good as a write.
    """

    has_arbiters: bool = False

    def describe(self) -> str:
        """Return a URL without a password."""

    async def connect(self, *, timeout: float, protocol: int = 3) -> AbstractConnection:
        """Open a connection within `timeout` seconds. Raises redis-py's errors, `TimeoutError`."""

    def at(self, address: Address) -> SingleServer:
        """Return a server that another one has pointed to, reached in the same way."""

    def follow(
        self, connection: RedisConnection, moved: Callable[[], None], *, every: float
    ) -> AbstractAsyncContextManager[object]:
        """While entered, call `moved` once another server owns the switch.

        Asks at least `every` seconds.
        """
        return nullcontext()

    def leave(self, connection: RedisConnection) -> bool:
        """Connect elsewhere from now on, if that can be: this server turned out to be a replica.

        Returns whether there is another address, which was not left a moment ago.
        """
        return False

    def confirmed_at(self, peer: Address | None) -> float:
        """Return the monotonic time at which the server at this address last owned the switch.

        It is infinite where nothing else can tell.
        """
        return math.inf

    async def takeover_time(self, connection: RedisConnection) -> float:
        """Return for how many seconds a former owner may serve after another has taken over."""
        return 0.0


class SingleServer(Server):
    """One server at one address.

    After a planned failover, the old primary may still answer reads. Only what it accepts as a
    write proves that no other one had been promoted.
    """

    def __init__(self, connection_class: type[AbstractConnection], options: dict[str, Any]) -> None:
        self._class = connection_class
        self._tls = TLSContextCache()
        self._lookups: dict[tuple[int, str, int], Future[list[str]]] = {}
        self._addresses: list[str] = []  # of the name, as it was resolved last
        self._left: dict[str, float] = {}  # addresses of replicas, and when that was seen
        self._probe = "ROLE"
        self._options = {
            name: value for name, value in options.items() if not _IGNORED.fullmatch(name)
        }
        try:
            self._make(timeout=1.0, protocol=3)
        except (TypeError, ValueError, RedisError) as error:
            # Where a password in the query is not encoded, its second half looks like the name of
            # an option.
            detail = "one of them is unknown or wrong" if "password" in options else error
            raise ConfigurationError(f"Redis cannot be given these options: {detail}.") from None

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read a `redis://`, `rediss://` or `unix://` URL.

        Raises `ConfigurationError`, which quotes nothing of it: where a password is not encoded,
        any part may be of it.
        """
        try:
            problem = _problem_with(url)
            options: dict[str, Any] = {} if problem else dict(parse_url(url))
        except ValueError as error:
            raise ConfigurationError(f"The Redis URL cannot be read: {error}") from None
        if problem:
            raise ConfigurationError(
                f"The Redis URL {problem}. Percent-encode what is special in a password, as "
                "%23 for #."
            )
        return cls(options.pop("connection_class", Connection), options)

    @classmethod
    def from_client(cls, client: Any) -> Self:
        """Connect as a `redis.asyncio.Redis` client does."""
        pool = getattr(client, "connection_pool", None)
        kind = getattr(pool, "connection_class", None)
        if not (isinstance(kind, type) and issubclass(kind, AbstractConnection)):
            raise ConfigurationError(
                "client must be a redis.asyncio.Redis; a synchronous client would block the "
                "event loop."
            )
        return cls(kind, client.connection_pool.connection_kwargs)

    def describe(self) -> str:
        if "path" in self._options:
            return f"unix://{self._options['path']}?db={self.database}"
        return f"{self.scheme}://{self.netloc}/{self.database}"

    @property
    def scheme(self) -> str:
        """The scheme of a URL for one server."""
        return "rediss" if issubclass(self._class, SSLConnection) else "redis"

    @property
    def netloc(self) -> str:
        """The host and port, as in a URL."""
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def database(self) -> int:
        """The number of the database."""
        return int(self._options.get("db", 0))

    async def connect(self, *, timeout: float, protocol: int = 3) -> AbstractConnection:
        """Connect to the first address of the name that leads to Redis, and not to a replica.

        The next address is tried, too, when one fails or does not answer at once.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        addresses = sorted(
            await self._resolve(timeout), key=lambda each: self._left.get(each, -math.inf)
        )
        pause = min(_NEXT_ADDRESS, timeout / (len(addresses) + 1))
        patience = pause * len(addresses) if len(addresses) > 1 else 0.0
        openings = [
            partial(self._open, address, timeout, protocol, patience=patience)
            for address in addresses
        ]
        async with asyncio.timeout_at(deadline):
            return await _first(openings, pause=pause)

    async def _resolve(self, timeout: float) -> list[str]:
        """Return the addresses of the host; an empty one where there is no name to resolve.

        Each name has one lookup at a time, in a thread of its own: the loop's default executor is
        shared, and lookups that hang would fill it.
        """
        host, port = self.address
        # A class that connects in a way of its own, as that of fakeredis, is left alone.
        own_way = self._class._connect is not Connection._connect
        if own_way or _is_address(host):
            return [""]
        key = os.getpid(), host, port  # a fork has none of its parent's threads
        lookup = self._lookups.get(key)
        if lookup is None or lookup.done():
            lookup = self._lookups[key] = start_thread(partial(_look_up, host, port))
        try:
            async with asyncio.timeout(timeout):
                self._addresses = await asyncio.wrap_future(lookup)
        except TimeoutError:
            raise TimeoutError(f"{host} was not resolved within {timeout:g} s") from None
        except (OSError, UnicodeError) as error:
            raise ConnectionError(f"The name {host!r} cannot be resolved: {error}") from error
        return self._addresses

    def leave(self, connection: RedisConnection) -> bool:
        now, address = time.monotonic(), connection.address
        others = [self._left.get(each, -math.inf) for each in self._addresses if each != address]
        self._left[address] = now
        return any(now - left > _LEFT_FOR for left in others)

    async def _open(
        self, address: str, timeout: float, protocol: int, *, patience: float
    ) -> AbstractConnection:
        """Connect to one address; with `patience`, a replica comes so many seconds later."""
        connection = self._make(timeout=timeout, protocol=protocol)
        is_reached, probe = _note_reached(connection), self._probe
        try:
            if isinstance(connection, SSLConnection):
                await self._tls.apply(connection)
            if address:
                _lead_to(address, connection)
            await connection.connect()  # type: ignore[no-untyped-call]
            if patience:  # RESP2 begins without a handshake, and this address may be silent
                (role,) = await request(connection, (probe,))
                if isinstance(role, list) and role[0] == b"slave":
                    self._left[address] = time.monotonic()
                    await asyncio.sleep(patience)
        except BaseException as error:
            await discard(connection)
            if is_reached() and (type(error) is ConnectionError or isinstance(error, _BROKEN)):
                if patience and probe != "PING":  # as some proxies do
                    self._probe = "PING"
                    return await self._open(address, timeout, protocol, patience=patience)
                raise HungUpError(*error.args) from error
            if isinstance(error, RedisError | OSError) or not isinstance(error, Exception):
                raise
            # From what is no Redis at all, redis-py's handshake raises anything.
            raise ConnectionError(f"The answer is not that of a Redis server: {error!r}") from error
        return connection

    @property
    def address(self) -> Address:
        """The address, unless it is a Unix socket."""
        return str(self._options.get("host", "localhost")), int(self._options.get("port", 6379))

    def at(self, address: Address) -> Self:
        other = copy(self)
        other._options = self._options | dict(zip(("host", "port"), address, strict=True))
        return other

    def _make(self, *, timeout: float, protocol: int) -> AbstractConnection:
        # No socket_timeout: for it redis-py uses asyncio.wait_for, which before Python 3.12 can
        # swallow a cancellation. By default, redis-py retries for about a minute.
        limits = {"socket_timeout": None, "socket_connect_timeout": timeout, "protocol": protocol}
        return self._class(**self._options | _OURS | limits)


def _problem_with(url: str) -> str:
    """Return what redis-py would misread silently, or would quote in its error."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "cannot be read"
    try:
        _ = parts.port
    except ValueError:
        return "has a port that is not a number"
    database = parts.path.strip("/")
    if parts.fragment or "@" in parts.path + parts.query:
        return "has a # or an @ where it means nothing"
    if parts.scheme == "unix":
        return (
            ""
            if parts.path and not parts.hostname
            else "names no socket; write it as unix:///run/redis.sock"
        )
    return (
        ""
        if not database or database.isdecimal()
        else "has a database that is not a number; write it as in redis://localhost:6379/0"
    )


# What CLIENT SETINFO would say of redis-py costs it a look at the disk for each connection, on the
# event loop.
_ANONYMOUS: Final[dict[str, None]] = (
    {"driver_info": None}
    if "driver_info" in signature(AbstractConnection).parameters
    else {"lib_name": None, "lib_version": None}
)
_OURS: Final[dict[str, Any]] = _ANONYMOUS | {
    "decode_responses": False,
    "health_check_interval": 0,
    "retry": Retry(NoBackoff(), 0),
    "retry_on_error": [],
    "retry_on_timeout": False,
}
_IGNORED: Final = re.compile(
    "client_name|redis_connect_func|event_dispatcher|driver_info|(lib|maint)_.*"
)


def _look_up(host: str, port: int) -> list[str]:
    """Return the addresses, in the system's order. Raises `OSError` or `UnicodeError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _lead_to(address: str, connection: Any) -> None:
    """Make a connection use this address of its host. TLS still checks the name of the host."""
    arguments = connection._connection_arguments()
    name = {"server_hostname": arguments["host"]} if arguments.get("ssl") else {}
    connection._connection_arguments = lambda: {**arguments, **name, "host": address}


_BROKEN: Final = (ConnectionResetError, BrokenPipeError)


def _note_reached(connection: Any) -> Callable[[], bool]:
    """Return a function that tells whether the server was reached, whatever came then."""
    reached: list[None] = []
    connect = connection._connect

    async def connect_and_note() -> None:
        await connect()
        reached.append(None)

    connection._connect = connect_and_note
    return lambda: bool(reached)


async def _first(
    openings: Sequence[Callable[[], Awaitable[AbstractConnection]]], *, pause: float
) -> AbstractConnection:
    """Return the first connection, and close those that come later. Raises the last error.

    Each is begun when the one before has failed, or `pause` seconds after that one.
    """
    tasks: list[asyncio.Task[AbstractConnection]] = []
    winner: AbstractConnection | None = None

    async def attempt(
        opening: Callable[[], Awaitable[AbstractConnection]],
        before: list[asyncio.Task[AbstractConnection]],
    ) -> AbstractConnection:
        if before:
            await asyncio.wait(before, timeout=pause)
        return await opening()

    for opening in openings:
        tasks.append(asyncio.create_task(attempt(opening, tasks[-1:])))
    try:
        for task in asyncio.as_completed(tasks):
            try:
                winner = await task
                return winner
            except ResponseError:
                raise  # a server has answered, and the others will not answer otherwise
            except (RedisError, OSError) as error:
                problem = error
        raise problem
    finally:  # without a wait, in which a cancellation would lose the winner
        for each in tasks:
            each.cancel()
            has_opened = each.done() and not each.cancelled() and not each.exception()
            if has_opened and each.result() is not winner:
                await discard(each.result())


_FRESH: Final = 60.0  # seconds; certificates that were renewed on the disk are used from then on


class TLSContextCache:
    """Makes redis-py's TLS context once for many connections, off the event loop.

    Left alone, redis-py makes one for each connection and reads every authority that the system
    trusts: 30 ms in which no request is served. An attempt to connect that ends meanwhile leaves
    the work to the next one, else a busy machine would begin it again and again.
    """

    def __init__(self) -> None:
        self._making: Future[Any] = Future()
        self._process, self._begun_at = 0, 0.0  # a fork has none of its parent's threads

    async def apply(self, connection: SSLConnection) -> None:
        """Give a connection that is about to be opened the context."""
        process, now = os.getpid(), time.monotonic()
        failed = self._making.done() and self._making.exception() is not None
        if failed or self._process != process or now - self._begun_at > _FRESH:
            self._making = start_thread(partial(_make_context, connection.ssl_context))
            self._process, self._begun_at = process, now
        connection.ssl_context = await asyncio.wrap_future(self._making)


def _make_context(context: Any) -> Any:
    context.get()
    return context
