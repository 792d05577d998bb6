"""The switch in a local file: for one host without Redis, and as what a worker remembers of Redis across a restart."""

from __future__ import annotations

from .backend import LocalFileBackend

__all__ = ["LocalFileBackend"]
