"""An imitation of Redis within the demo's own process, for where there is no redis-server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from redis.exceptions import RedisError, ResponseError

from ..exceptions import why
from .errors import DemoError
from .ports import HOST, free_port
from .server import KEYS, RedisServer
from .writes import Write

if TYPE_CHECKING:
    from fakeredis import TcpFakeServer

__all__ = ["EmbeddedRedis", "start_embedded_redis"]

_INSTALL: Final = "Install redis-server (Debian: apt-get install redis-server; macOS: brew install redis)"
_STEP: Final = 0.02  # seconds between looks at the switch


class EmbeddedRedis(RedisServer):
    """What shows how things look and proves nothing about speed."""

    pushes: ClassVar[bool] = False

    def describe(self) -> str:
        return (
            f"fakeredis, an imitation of Redis, on port {self.port}, because there is no redis-server on PATH. It pushes nothing: "
            "what this library writes is told to the workers by a message, and a bare SET is found by the next poll, within about "
            f"a second. {_INSTALL}, to see milliseconds."
        )

    async def writes(self) -> AsyncIterator[Write]:
        """It has no MONITOR, so the switch is looked at very often."""
        value = await self.run("GET", KEYS.switch)
        while True:
            await asyncio.sleep(_STEP)
            before, value = value, await self.run("GET", KEYS.switch)
            if value != before:
                yield Write(time.monotonic() - _STEP, f"{KEYS.switch} = {value}" if value is not None else f"{KEYS.switch} gone")


@asynccontextmanager
async def start_embedded_redis() -> AsyncIterator[EmbeddedRedis]:
    """Start it in a thread. Raises `DemoError` if what it needs is not installed."""
    if find_spec("fakeredis") is None or find_spec("lupa") is None:
        raise DemoError(
            f"There is no redis-server on PATH, nor fakeredis to stand in for it. {_INSTALL}; "
            "or pip install 'fastapi-maintenance-cluster[demo]'."
        )
    redis = EmbeddedRedis(free_port())
    server = _listen(redis.port)
    thread = threading.Thread(target=server.serve_forever, args=(_STEP,), name="embedded redis", daemon=True)
    thread.start()
    try:
        yield redis
    finally:
        await redis.aclose()
        await asyncio.to_thread(_end, server, thread)


def _listen(port: int) -> TcpFakeServer:
    from fakeredis import TcpFakeServer

    try:
        server = TcpFakeServer((HOST, port))
    except OSError as error:
        raise DemoError(
            f"The embedded Redis cannot listen on port {port}: {why(error)}. Run the demo again, and it tries another port."
        ) from error
    server.RequestHandlerClass = _corrected(server.RequestHandlerClass)
    return server


def _corrected(handler: Any) -> Any:
    """A handler without what fakeredis does and no Redis does: hang up after an error, and speak RESP3 but by half."""

    class Corrected(handler):  # type: ignore[misc]
        def setup(self) -> None:
            super().setup()
            self.current_client.get_socket().hello = _refuse_hello
            self.current_client.read_response = partial(_reply_or_error, self.current_client.read_response)

    return Corrected


def _refuse_hello(*args: bytes) -> NoReturn:
    """Without RESP3, as Redis 5: there a client knows that a subscriber can do nothing else, as is so here in any case."""
    raise ResponseError("unknown command 'HELLO'")


def _reply_or_error(read_response: Callable[[], Any]) -> Any:
    try:
        return read_response()
    except RedisError as error:
        return ResponseError(" ".join(str(error).split()))  # an error with line breaks, as of Lua, would break the protocol


def _end(server: TcpFakeServer, thread: threading.Thread) -> None:
    server.shutdown()
    thread.join()
    server.server_close()
