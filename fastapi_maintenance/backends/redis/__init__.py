"""Redis: the switch, its link and its script."""

from __future__ import annotations

from ..._internal.imports import import_part

# Before any other import of redis-py, whose package imports every client, command and cluster.
import_part("redis.asyncio.connection")

from .backend import RedisBackend  # noqa: E402

__all__ = ["RedisBackend"]
