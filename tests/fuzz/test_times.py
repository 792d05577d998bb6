"""Any text on the command line is a time or a `ValueError` that says how to write one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance.cli.durations import parse_duration, parse_until, show_moment, show_seconds
from fastapi_maintenance.model.state import MaintenanceState

from .attempt import attempt
from .effort import effort
from .garbage import TEXT

NEAR = st.text("0123456789dhmsDHMS .:-+TZ\n٣", max_size=40)
NOW = st.datetimes(datetime(1971, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))


@effort(300)
@given(TEXT | NEAR)
def test_any_text_is_a_length_of_time_or_refused(text: str) -> None:
    length, problem = attempt(lambda: parse_duration(text), ValueError)
    if length is None:
        assert problem.startswith("must be ")
    else:
        assert timedelta(0) < length <= timedelta(days=36525)
        show_seconds(length.total_seconds())


@effort(300)
@given(TEXT | NEAR, NOW)
def test_any_text_is_a_moment_to_come_or_refused(text: str, now: datetime) -> None:
    moment, problem = attempt(lambda: parse_until(text, now), ValueError)
    if moment is None:
        assert problem.startswith("must be ")
    else:
        assert moment > now
        MaintenanceState(enabled=True, ends_at=moment).dump()
        show_moment(moment)
