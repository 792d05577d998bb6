"""The Retry-After header (RFC 9110, 10.2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import randint

from ..model.state import DEFAULT_RETRY_AFTER, MAX_RETRY_AFTER, MaintenanceState


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Options of Retry-After: the state's own value, else until its end, else `default`.

    `jitter` is the largest random delay that is added to an end, so that clients do not return at
    the same time. `as_date` writes an HTTP date instead of seconds.
    """

    default: int = DEFAULT_RETRY_AFTER
    jitter: int = 0
    as_date: bool = False

    def is_constant(self, state: MaintenanceState) -> bool:
        """Return whether the value is the same for every request."""
        return not self.as_date and (state.ends_at is None or state.retry_after is not None)

    def seconds(self, state: MaintenanceState, now: datetime) -> int:
        """Return the seconds to wait: never negative, and never before the end."""
        seconds = state.retry_after_at(now, self.default)
        if self.jitter and state.ends_at is not None and state.retry_after is None:
            seconds = min(seconds + randint(0, self.jitter), MAX_RETRY_AFTER)
        return seconds

    def header(self, seconds: int, now: datetime) -> bytes:
        """Return the header's value for that many seconds from now."""
        if not self.as_date:
            return b"%d" % seconds
        at = now.astimezone(UTC) + timedelta(seconds=seconds)
        if at.microsecond:  # rounded up like the seconds, so that no client returns before the end
            at = at.replace(microsecond=0) + timedelta(seconds=1)
        return format_datetime(at, usegmt=True).encode()
