"""How times are written."""

from __future__ import annotations

from datetime import datetime

__all__ = ["iso", "readable"]


def iso(time: datetime) -> str:
    """A time in UTC for programs (RFC 3339)."""
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def readable(time: datetime) -> str:
    """A time in UTC that people of every country read alike."""
    return f"{time.isoformat(sep=' ', timespec='minutes')[:16]} UTC"
