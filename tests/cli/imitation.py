"""The embedded imitation of Redis, in a thread of the test's own process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi_maintenance.cli.embedded import embedded_redis

from ..support.ports import free_port


@asynccontextmanager
async def imitation() -> AsyncIterator[str]:
    """Serve it, and yield its URL."""
    port = free_port()
    server = embedded_redis(port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        await asyncio.to_thread(server.shutdown)
        await asyncio.to_thread(thread.join)
        await asyncio.to_thread(server.server_close)
