"""Redis: the switch, its link and its script."""

from __future__ import annotations

from .backend import RedisBackend

__all__ = ["RedisBackend"]
