"""Backends: where the switch is stored."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from .base import BaseStateBackend
from .default import backend_from_url
from .env import EnvVarBackend

if TYPE_CHECKING:
    from .file.backend import LocalFileBackend
    from .redis import RedisBackend

__all__ = [
    "BaseStateBackend",
    "EnvVarBackend",
    "LocalFileBackend",
    "RedisBackend",
    "backend_from_url",
]

_ON_DEMAND: Final = {"LocalFileBackend": ".file.backend", "RedisBackend": ".redis"}


def __getattr__(name: str) -> Any:
    # Without a backend, its library is not needed: anyio or redis-py.
    if name in _ON_DEMAND:
        globals()[name] = found = getattr(import_module(_ON_DEMAND[name], __name__), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
