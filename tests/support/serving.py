"""Real servers in a thread of the test's own process: uvicorn, and hypercorn for a
second opinion.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final, cast

import httpx2
import uvicorn
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.types import ASGIApp
from uvicorn.config import WS_PROTOCOLS, WSProtocolType
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from .waiting import eventually_sync

Server = Callable[[ASGIApp], AbstractContextManager[str]]

WEBSOCKETS: Final[list[WSProtocolType]] = [
    cast(WSProtocolType, name) for name in WS_PROTOCOLS if name not in ("auto", "none")
]
"""uvicorn's implementations; which one a deployment has depends on what is installed there."""


@contextmanager
def serving(
    app: ASGIApp, *, ws: WSProtocolType = "wsproto", at: socket.socket | None = None, **options: Any
) -> Iterator[str]:
    """Serve the application, and yield host and port. It logs to the test's own log. `options` are
    uvicorn's; `at` is where it listens.
    """
    with warnings.catch_warnings(), at or socket.create_server(("127.0.0.1", 0)) as listener:
        if ws == "websockets":  # deprecated, by uvicorn and by its own library, and still in use
            warnings.simplefilter("ignore")
        config = uvicorn.Config(
            app,
            interface="asgi3",
            ws=ws,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=2,
            **{"loop": "asyncio", "http": "h11", **options},
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            eventually_sync(lambda: server.started, within=30)
            yield (
                f"127.0.0.1:{listener.getsockname()[1]}"
                if at is None
                else str(listener.getsockname())
            )
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


@contextmanager
def serving_by_hypercorn(app: ASGIApp) -> Iterator[str]:
    """The same by hypercorn, which speaks HTTP/1.1, WebSocket and, to clients that begin with it,
    HTTP/2.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]  # hypercorn closes it
    config.errorlog = logging.getLogger("hypercorn.error")
    config.accesslog = logging.getLogger("hypercorn.access")
    # With the query, which it leaves out by default.
    config.access_log_format = '"%(m)s %(Uq)s" %(s)s'
    config.graceful_timeout = 2
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def until_stopped() -> None:
        started.set()
        await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve(cast(Any, app), config, mode="asgi", shutdown_trigger=until_stopped))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert started.wait(10)
        yield f"127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive()


SERVERS: Final = {"uvicorn": serving, "hypercorn": serving_by_hypercorn}
"""What serves an application, by its name."""

BELIEVING_NO_HEADERS: Final[dict[str, Server]] = {
    "uvicorn": partial(serving, proxy_headers=False),
    "hypercorn": serving_by_hypercorn,
}
"""The same, telling the application the address that a connection comes from; uvicorn would believe
what 127.0.0.1 says of others.
"""


def handshakes(
    workers: Iterable[httpx2.Client], headers: dict[str, str] | None = None
) -> list[int]:
    """With which status each worker answers who wants to open a WebSocket; 101 opens it."""
    found = []
    for worker in workers:
        try:
            with connect(
                f"ws://{worker.base_url.netloc.decode()}/live", additional_headers=headers or {}
            ):
                found.append(101)
        except InvalidStatus as refused:
            found.append(refused.response.status_code)
    return found
