"""When clients are told to come back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance.model.state import ON, MaintenanceState
from fastapi_maintenance.responses.retry_after import RetryAfter

from .asking import NOW

AN_HOUR = MaintenanceState(enabled=True, ends_at=NOW + timedelta(hours=1))
FIXED = MaintenanceState(enabled=True, retry_after=120, ends_at=NOW + timedelta(hours=1))


def test_jitter_spreads_returns_after_end() -> None:
    seen = {RetryAfter(jitter=10).seconds(AN_HOUR, NOW) for _ in range(500)}
    assert seen == set(range(3600, 3611))


@pytest.mark.parametrize("state", [ON, FIXED])
def test_jitter_without_end_is_not_added(state: MaintenanceState) -> None:
    assert len({RetryAfter(jitter=1000).seconds(state, NOW) for _ in range(50)}) == 1


@pytest.mark.parametrize(
    ("retry_after", "state", "constant"),
    [
        (RetryAfter(), ON, True),
        (RetryAfter(), FIXED, True),
        (RetryAfter(), AN_HOUR, False),
        (RetryAfter(as_date=True), ON, False),
        (RetryAfter(as_date=True), FIXED, False),
    ],
)
def test_retry_after_constant_only_without_end(
    retry_after: RetryAfter, state: MaintenanceState, constant: bool
) -> None:
    assert retry_after.is_constant(state) is constant


ANY_TIME = st.datetimes(datetime(1970, 1, 1), datetime(2300, 1, 1), timezones=st.timezones())


@given(ANY_TIME, ANY_TIME, st.integers(0, 10**6))
def test_retry_after_of_any_time_is_readable(ends_at: datetime, now: datetime, jitter: int) -> None:
    state = MaintenanceState(enabled=True, ends_at=ends_at)
    retry_after = RetryAfter(jitter=jitter, as_date=True)
    seconds = retry_after.seconds(state, now)
    left = (ends_at - now).total_seconds()
    assert max(0, min(left, 2**31 - 1)) <= seconds <= max(0, left) + 1 + jitter
    assert seconds <= 2**31 - 1
    date = retry_after.header(seconds, now).decode()
    assert date.endswith(" GMT")
    assert (
        0
        <= (
            parsedate_to_datetime(date) - now.astimezone(UTC) - timedelta(seconds=seconds)
        ).total_seconds()
        < 1
    )
