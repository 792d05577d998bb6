"""A real uvicorn in a thread of the test's own process."""

from __future__ import annotations

import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import WS_PROTOCOLS, WSProtocolType

from .waiting import eventually_sync

__all__ = ["WEBSOCKETS", "serving"]

WEBSOCKETS: Final = [name for name in WS_PROTOCOLS if name not in ("auto", "none")]
"""uvicorn's implementations; which one a deployment has depends on what is installed there."""


@contextmanager
def serving(app: ASGIApp, *, ws: WSProtocolType = "wsproto") -> Iterator[str]:
    """Serve the application, and yield host and port. It logs to the test's own log."""
    with warnings.catch_warnings(), socket.create_server(("127.0.0.1", 0)) as listener:
        if ws == "websockets":  # deprecated, by uvicorn and by its own library, and still in use
            warnings.simplefilter("ignore")
        config = uvicorn.Config(app, interface="asgi3", ws=ws, log_config=None, lifespan="off", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            eventually_sync(lambda: server.started, within=10)
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()
