"""Clocks that only a test moves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

T0: Final = 1_800_000_000.0  # on the backend's clock


def at(seconds: float) -> datetime:
    """A time on the backend's clock, so many seconds after T0."""
    return datetime.fromtimestamp(T0 + seconds, UTC)


class Clock:
    """Stands in for the module `time`: two clocks that go only when told to, a day apart."""

    def __init__(self) -> None:
        self.passed = 1000.0

    def monotonic(self) -> float:
        return self.passed

    def time(self) -> float:
        return T0 + self.passed
