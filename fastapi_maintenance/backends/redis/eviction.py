"""The eviction policy of a server, which may remove the switch, the holds and the registry."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from contextlib import suppress
from typing import Final

from ..._internal.logging import log_fields
from ...exceptions import BackendError
from .connection import RedisConnection, Reply

logger = logging.getLogger("fastapi_maintenance")

MEMORY: Final = ("INFO", "memory")
_FIELDS: Final = re.compile(r"^(maxmemory|maxmemory_policy):(.*?)\r?$", re.MULTILINE)


def eviction_warnings(reply: Reply) -> tuple[str, ...]:
    """Return the warning for a reply to `INFO memory`, if keys without an end may be evicted.

    Without a memory limit, Redis evicts nothing. What may not be read is not warned of.
    """
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else ""
    memory = dict(_FIELDS.findall(text))
    policy = memory.get("maxmemory_policy", "")
    if not policy.startswith("allkeys-") or memory.get("maxmemory", "0") == "0":
        return ()
    warning = (
        f"maxmemory-policy must be noeviction or volatile-*, got {policy}. A full server may evict "
        "the switch, which opens the service, and holds and the registry of workers."
    )
    return (warning,)


class EvictionCheck:
    """Warns of the eviction policy, asked once per connection, and never again after a refusal.

    Some proxies close the connection at a command that they do not know, and an unpermitted one
    would fill the ACL log.
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._refused = False
        self.warnings: tuple[str, ...] = ()

    async def ask(self, connection: RedisConnection, *, within: float) -> None:
        """Ask in a while, and log a warning that is new."""
        if self._refused:
            return
        # INFO costs Redis as much as a whole poll, and thousands of workers may connect at once.
        await asyncio.sleep(random.uniform(1, 20) * within)
        self._refused = True
        with suppress(BackendError):  # the link notices that the connection has ended
            (reply,) = await connection.call(MEMORY)
            self._refused = isinstance(reply, Exception)
            known, self.warnings = self.warnings, eviction_warnings(reply)
            for warning in {*self.warnings} - {*known}:
                extra = log_fields("eviction", backend=self._backend)
                logger.warning("%s: %s", self._backend, warning, extra=extra)
