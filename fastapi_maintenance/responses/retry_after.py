"""When to come back: the Retry-After header (RFC 9110, 10.2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import randint

from ..state import DEFAULT_RETRY_AFTER, LONGEST_RETRY, MaintenanceState

__all__ = ["RetryAfter"]


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """How a state becomes a Retry-After: as set, else until the end rounded up, else `default`. All in seconds.

    `jitter` is the most that is added to an end, for else all clients come back at the same instant.
    `as_date` writes an HTTP date instead of seconds.
    """

    default: int = DEFAULT_RETRY_AFTER
    jitter: int = 0
    as_date: bool = False

    def is_constant(self, state: MaintenanceState) -> bool:
        """Whether every client is told the same, whenever it asks."""
        return not self.as_date and (state.ends_at is None or state.retry_after is not None)

    def seconds(self, state: MaintenanceState, now: datetime) -> int:
        """Never negative, and never before the end."""
        seconds = state.retry_after_at(now, self.default)
        if self.jitter and state.ends_at is not None and state.retry_after is None:
            seconds = min(seconds + randint(0, self.jitter), LONGEST_RETRY)
        return seconds

    def header(self, seconds: int, now: datetime) -> bytes:
        """The header's value for that many seconds from now."""
        if not self.as_date:
            return b"%d" % seconds
        at = now.astimezone(UTC) + timedelta(seconds=seconds)
        if at.microsecond:  # rounded up like the seconds: a date that comes too early sends clients into the last moments
            at = at.replace(microsecond=0) + timedelta(seconds=1)
        return format_datetime(at, usegmt=True).encode()
