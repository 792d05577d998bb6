"""The command line: `fastapi-maintenance`. Needs the extra `cli`."""

from __future__ import annotations

from .commands import app

__all__ = ["app"]
