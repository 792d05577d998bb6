from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance.cli.durations import parse_duration, parse_until, show_moment, show_seconds

BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"  # spelt out, because a minimal system knows no names of zones
Zone = Callable[[str], None]


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    """Moves this process into a time zone."""

    def move(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# -- lengths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        ("1d2h3m4s", 93784),
        ("1d4s", 86404),
        ("90m", 5400),
        ("007", 7),
        (" 2H ", 7200),
        ("36525d", 36525 * 86400),
    ],
)
def test_length_in_seconds_or_units_is_parsed(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 999))
def test_every_combination_of_units_is_read(
    days: int, hours: int, minutes: int, seconds: int
) -> None:
    length = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    text = "".join(f"{number}{unit}" for number, unit in parts if number)
    if length:
        assert parse_duration(text) == length


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "m",
        "soon",
        "1h30",
        "30m1h",
        "1m1m",
        "1h 30m",
        "1.5h",
        "-5",
        "+5",
        "1e3",
        "5w",
        "5 m",
        "٣m",
        "²",
        "9" * 13,
        "9" * 5000 + "s",
    ],
)
def test_what_is_no_length_is_refused_with_how_to_write_one(text: str) -> None:
    """Above all 1h30: half of its readers would take the 30 for seconds."""
    with pytest.raises(
        ValueError, match="must be a length like 90, 90s, 30m, 2h, 1d or 1h30m, got"
    ):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "0h0m"])
def test_no_time_at_all_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be between a second and a century, got"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36525d1s", "999999999999d", "999999999999"])
def test_more_than_a_century_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be between a second and a century, got"):
        parse_duration(text)


# -- moments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T04:00Z", "2026-11-22 04:00"),
        ("2026-11-22T04:00:30+01:00", "2026-11-22 03:00:30"),
        ("2026-11-22 04:00-05:00", "2026-11-22 09:00"),
        (" 20261122T040000Z ", "2026-11-22 04:00"),
    ],
)
def test_an_end_with_a_zone_is_meant_in_it(text: str, moment: str, zone: Zone) -> None:
    zone(BERLIN)
    assert parse_until(text, utc("2026-11-01")) == utc(moment)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T04:00", "2026-11-22 03:00"),
        ("2026-07-01 04:00", "2026-07-01 02:00"),
        ("2026-11-22", "2026-11-21 23:00"),
    ],
)
def test_an_end_without_a_zone_is_in_the_local_one(text: str, moment: str, zone: Zone) -> None:
    zone(BERLIN)
    assert parse_until(text, utc("2026-01-01")) == utc(moment)


@pytest.mark.parametrize(
    ("text", "now", "moment"),
    [
        ("04:00", "2026-11-22 02:59", "2026-11-22 03:00"),
        ("4:00", "2026-11-22 02:59", "2026-11-22 03:00"),
        ("04:00:30", "2026-11-22 03:00", "2026-11-22 03:00:30"),
        ("4:00:30", "2026-11-22 03:00", "2026-11-22 03:00:30"),
        ("04:00", "2026-11-22 03:00", "2026-11-23 03:00"),
        ("04:00", "2026-11-22 22:59", "2026-11-23 03:00"),
        ("04:00", "2026-11-22 23:30", "2026-11-23 03:00"),  # in Berlin it is the 23rd already
        ("00:00", "2026-12-31 12:00", "2026-12-31 23:00"),
    ],
)
def test_a_time_of_day_is_the_next_such_local_time(
    text: str, now: str, moment: str, zone: Zone
) -> None:
    zone(BERLIN)
    assert parse_until(text, utc(now)) == utc(moment)


@pytest.mark.parametrize(
    ("now", "moment"),
    [
        # The clock shows 02:30 twice that night: in summer time.
        ("2026-10-24 22:30", "2026-10-25 00:30"),
        ("2026-10-25 00:45", "2026-10-25 01:30"),  # and, an hour later, in winter time
        ("2026-10-25 01:45", "2026-10-26 01:30"),
        # And it never shows it that night: an hour later, as the clock was set.
        ("2026-03-28 23:30", "2026-03-29 01:30"),
    ],
)
def test_a_time_of_day_survives_the_clock_change(now: str, moment: str, zone: Zone) -> None:
    zone(BERLIN)
    assert parse_until("02:30", utc(now)) == utc(moment)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "24:00",
        "04:60",
        "4",
        "4h",
        "2026-13-01",
        "2026-11-22T25:00",
        "0001-01-01",
        "04:00Z",
    ],
)
def test_what_is_no_time_is_refused_with_how_to_write_one(text: str, zone: Zone) -> None:
    zone(BERLIN)
    with pytest.raises(
        ValueError,
        match=r"must be a time like 04:00, 2026-11-22T04:00 \(both local\) or 2026-11-22T04:00Z, "
        r"got",
    ):
        parse_until(text, utc("2026-11-22"))


@pytest.mark.parametrize("text", ["2026-11-22T04:00Z", "2026-11-22T03:59:59Z", "0001-01-01T00:00Z"])
def test_an_end_that_is_not_later_than_now_is_refused(text: str, zone: Zone) -> None:
    zone("UTC")
    with pytest.raises(
        ValueError, match=r"must be in the future, got .*\. It is 2026-11-22 04:00:00\+00:00"
    ):
        parse_until(text, utc("2026-11-22 04:00"))


# -- as people and machines read them --------------------------------------------------------------


def test_moment_is_shown_in_local_time(zone: Zone) -> None:
    zone(BERLIN)
    moment = datetime(2026, 11, 22, 3, 0, 0, 123456, tzinfo=UTC)
    assert show_moment(moment) == "2026-11-22 04:00:00+01:00"


def test_the_end_of_the_calendar_is_shown_as_it_is(zone: Zone) -> None:
    zone(BERLIN)
    assert show_moment(datetime.max.replace(tzinfo=UTC)) == "9999-12-31 23:59:59+00:00"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.26, "0.3 s"),
        (9.9, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (5400, "1 h 30 min"),
        (3601, "1 h"),
        (3661, "1 h 1 min"),
        (86400, "1 d"),
        (90061, "1 d 1 h"),
    ],
)
def test_a_length_is_shown_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text
