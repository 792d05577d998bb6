"""The TLS context that connections share."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from redis.asyncio.connection import SSLConnection

__all__ = ["SharedContext"]

_FRESH: Final = 60.0  # seconds; certificates that were renewed on the disk are used from then on


class SharedContext:
    """Makes redis-py's TLS context once for many connections, off the event loop.

    Left alone, redis-py makes one for each connection and reads every authority that the system trusts: 30 ms in which no
    request is served.
    """

    def __init__(self) -> None:
        self._context: Any = None
        self._made_at = 0.0

    async def lend(self, connection: SSLConnection) -> None:
        """Give a connection that is about to be opened the context."""
        if self._context is None or time.monotonic() - self._made_at > _FRESH:
            await asyncio.to_thread(connection.ssl_context.get)
            self._context, self._made_at = connection.ssl_context, time.monotonic()
        connection.ssl_context = self._context
