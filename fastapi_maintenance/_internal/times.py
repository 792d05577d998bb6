"""Times as text."""

from __future__ import annotations

from datetime import datetime


def iso_seconds(time: datetime) -> str:
    """Format a UTC time for programs (RFC 3339)."""
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def readable(time: datetime) -> str:
    """Format a UTC time for people, independent of the locale."""
    return f"{time.isoformat(sep=' ', timespec='minutes')[:16]} UTC"
