"""When clients are told to come back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance.model.state import ON, MaintenanceState
from fastapi_maintenance.responses.options import ResponseOptions

from .asking import NOW

AN_HOUR = MaintenanceState(enabled=True, ends_at=NOW + timedelta(hours=1))
FIXED = MaintenanceState(enabled=True, retry_after=120, ends_at=NOW + timedelta(hours=1))


def test_jitter_spreads_returns_after_end() -> None:
    seen = {ResponseOptions(jitter=10).retry_after_at(NOW, AN_HOUR)[0] for _ in range(500)}
    assert seen == set(range(3600, 3611))


@pytest.mark.parametrize("state", [ON, FIXED])
def test_jitter_without_end_is_not_added(state: MaintenanceState) -> None:
    options = ResponseOptions(jitter=1000)
    assert len({options.retry_after_at(NOW, state) for _ in range(50)}) == 1


@pytest.mark.parametrize(
    ("options", "state", "constant"),
    [
        (ResponseOptions(), ON, True),
        (ResponseOptions(), FIXED, True),
        (ResponseOptions(), AN_HOUR, False),
        (ResponseOptions(retry_after_as_date=True), ON, False),
        (ResponseOptions(retry_after_as_date=True), FIXED, False),
    ],
)
def test_retry_after_constant_only_without_end(
    options: ResponseOptions, state: MaintenanceState, constant: bool
) -> None:
    assert options.is_retry_after_constant(state) is constant


ANY_TIME = st.datetimes(datetime(1970, 1, 1), datetime(2300, 1, 1), timezones=st.timezones())


@given(ANY_TIME, ANY_TIME, st.integers(0, 10**6))
def test_retry_after_of_any_time_is_readable(ends_at: datetime, now: datetime, jitter: int) -> None:
    state = MaintenanceState(enabled=True, ends_at=ends_at)
    options = ResponseOptions(jitter=jitter, retry_after_as_date=True)
    seconds, header = options.retry_after_at(now, state)
    left = (ends_at.astimezone(UTC) - now).total_seconds()
    assert max(0, min(left, 2**31 - 1)) <= seconds <= max(0, left) + 1 + jitter
    assert seconds <= 2**31 - 1
    date = header.decode()
    assert date.endswith(" GMT")
    assert (
        0
        <= (
            parsedate_to_datetime(date) - now.astimezone(UTC) - timedelta(seconds=seconds)
        ).total_seconds()
        < 1
    )
