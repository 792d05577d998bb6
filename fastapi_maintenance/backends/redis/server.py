"""Where a Redis server is, and how to connect to it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from copy import copy
from inspect import signature
from typing import Any, Final, Protocol, Self
from urllib.parse import urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError

from ...exceptions import ConfigurationError
from .connection import RedisConnection, abort

Address = tuple[str, int]


class Server(Protocol):
    """Opens connections to whichever server owns the switch now."""

    def describe(self) -> str:
        """Return a URL without a password."""

    async def connect(self, *, timeout: float, protocol: int = 3) -> AbstractConnection:
        """Open a connection within `timeout` seconds. Raises redis-py's errors, `TimeoutError`."""

    async def connect_to(self, address: Address, *, timeout: float) -> AbstractConnection:
        """Open a connection to a server that another one has pointed to."""

    def follow(
        self, wire: RedisConnection, moved: Callable[[], None], *, every: float
    ) -> AbstractAsyncContextManager[object]:
        """While entered, call `moved` once another server owns the switch.

        Asks at least `every` seconds.
        """

    def confirmed_at(self, peer: Address | None) -> float:
        """Return the monotonic time at which the server at this address last owned the switch.

        It is infinite where nothing else can tell.
        """


class SingleServer:
    """One server at one address."""

    def __init__(self, connection_class: type[AbstractConnection], options: dict[str, Any]) -> None:
        self._class = connection_class
        self._tls = TLSContextCache()
        self._options = {name: value for name, value in options.items() if name not in _OURS}
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
        options = self._options
        if "path" in options:
            return f"unix://{options['path']}?db={options.get('db', 0)}"
        scheme = "rediss" if issubclass(self._class, SSLConnection) else "redis"
        host = options.get("host", "localhost")
        host = f"[{host}]" if ":" in host else host
        return f"{scheme}://{host}:{options.get('port', 6379)}/{options.get('db', 0)}"

    async def connect(self, *, timeout: float, protocol: int = 3) -> AbstractConnection:
        connection = self._make(timeout=timeout, protocol=protocol)
        try:
            async with asyncio.timeout(timeout):
                if isinstance(connection, SSLConnection):
                    await self._tls.apply(connection)
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException as error:
            abort(connection)
            await connection.disconnect(nowait=True)
            if isinstance(error, RedisError | OSError) or not isinstance(error, Exception):
                raise
            # From what is no Redis at all, redis-py's handshake raises anything.
            raise ConnectionError(f"The answer is not that of a Redis server: {error!r}") from error
        return connection

    async def connect_to(self, address: Address, *, timeout: float) -> AbstractConnection:
        return await self.at(address).connect(timeout=timeout, protocol=2)

    def follow(
        self, wire: RedisConnection, moved: Callable[[], None], *, every: float
    ) -> AbstractAsyncContextManager[object]:
        return nullcontext()

    def confirmed_at(self, peer: Address | None) -> float:
        return math.inf

    @property
    def address(self) -> Address:
        """Where it is, if not at a Unix socket."""
        return str(self._options.get("host", "localhost")), int(self._options.get("port", 6379))

    def at(self, address: Address) -> Self:
        """Another server, reached in the same way."""
        other = copy(self)
        other._options = self._options | dict(zip(("host", "port"), address, strict=True))
        return other

    def _make(self, *, timeout: float, protocol: int) -> AbstractConnection:
        # No socket_timeout: for it redis-py uses asyncio.wait_for, which before Python 3.12 can
        # swallow a cancellation.
        limits = {
            "socket_timeout": None,
            "socket_connect_timeout": timeout,
            "health_check_interval": 0,
        }
        # redis-py retries for about a minute by default; the callers need the error now.
        never = {"retry": Retry(NoBackoff(), 0), "retry_on_timeout": False, "retry_on_error": []}
        return self._class(
            **self._options | limits | never | _ANONYMOUS, protocol=protocol, decode_responses=False
        )


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


_OURS: Final = frozenset(
    {
        "socket_timeout",
        "socket_connect_timeout",
        "health_check_interval",
        "retry",
        "retry_on_timeout",
        "retry_on_error",
    }
    | {"protocol", "decode_responses", "client_name", "redis_connect_func", "event_dispatcher"}
    | {
        "maint_notifications_config",
        "maint_notifications_pool_handler",
        "driver_info",
        "lib_name",
        "lib_version",
    }
)


_FRESH: Final = 60.0  # seconds; certificates that were renewed on the disk are used from then on


class TLSContextCache:
    """Makes redis-py's TLS context once for many connections, off the event loop.

    Left alone, redis-py makes one for each connection and reads every authority that the system
    trusts: 30 ms in which no request is served.
    """

    def __init__(self) -> None:
        self._context: Any = None
        self._made_at = 0.0

    async def apply(self, connection: SSLConnection) -> None:
        """Give a connection that is about to be opened the context."""
        if self._context is None or time.monotonic() - self._made_at > _FRESH:
            await asyncio.to_thread(connection.ssl_context.get)
            self._context, self._made_at = connection.ssl_context, time.monotonic()
        connection.ssl_context = self._context
