"""Backends: where the switch is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import BaseStateBackend
from .default import backend_from_url
from .env import EnvVarBackend
from .file import LocalFileBackend

if TYPE_CHECKING:
    from .redis import RedisBackend

__all__ = [
    "BaseStateBackend",
    "EnvVarBackend",
    "LocalFileBackend",
    "RedisBackend",
    "backend_from_url",
]


def __getattr__(name: str) -> Any:
    # Imported on demand: without it, redis-py is not needed.
    if name == "RedisBackend":
        from .redis import RedisBackend

        return RedisBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
