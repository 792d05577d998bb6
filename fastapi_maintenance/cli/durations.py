"""Parse and format times and lengths. Pure, except for the local time zone."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from typing import Final

_BARE: Final = re.compile(r"[0-9]{1,12}")
_DURATION: Final = re.compile(
    r"(?=.)(?:([0-9]{1,12})d)?(?:([0-9]{1,12})h)?(?:([0-9]{1,12})m)?(?:([0-9]{1,12})s)?",
    re.IGNORECASE,
)
_TIME_OF_DAY: Final = re.compile(r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?")
_CENTURY: Final = 36525 * 86400
_UNITS: Final = (86400, 3600, 60, 1)
_NAMES: Final = ("d", "h", "min", "s")


def parse_duration(text: str) -> timedelta:
    """Parse 90, 90s, 30m, 2h, 1d or 1h30m. A number alone is seconds.

    Raises `ValueError` for other texts, and for lengths under a second or over a century.
    """
    given = text.strip()
    match = _DURATION.fullmatch(f"{given}s" if _BARE.fullmatch(given) else given)
    if match is None:
        raise ValueError(f"must be a length like 90, 90s, 30m, 2h, 1d or 1h30m, got {text!r}.")
    seconds = sum(
        int(number or 0) * unit for number, unit in zip(match.groups(), _UNITS, strict=True)
    )
    if not 0 < seconds <= _CENTURY:
        raise ValueError(f"must be between a second and a century, got {text!r}.")
    return timedelta(seconds=seconds)


def parse_until(text: str, now: datetime, begins: datetime | None = None) -> datetime:
    """Parse an ISO 8601 time, or HH:MM or HH:MM:SS for the next such time. Default: local zone.

    `now` has a time zone. Raises `ValueError` for other texts, and for a time that is not after
    `now`, or not after `begins` if given.
    """
    text = text.strip()
    try:
        if _TIME_OF_DAY.fullmatch(text):
            digits = len("00:00") if text.count(":") == 1 else len("00:00:00")
            return _next(time.fromisoformat(text.zfill(digits)), begins or now)
        moment = _zoned(datetime.fromisoformat(text))
    except (ValueError, OverflowError, OSError):  # the last two at the edge of the calendar
        raise ValueError(
            "must be a time like 04:00, 2026-11-22T04:00 (both local) or 2026-11-22T04:00Z, "
            f"got {text!r}."
        ) from None
    if moment <= now:
        raise ValueError(
            f"must be in the future, got {show_moment(moment)}. It is {show_moment(now)}."
        )
    if begins is not None and moment <= begins:
        raise ValueError(
            f"must be after the start, {show_moment(begins)}, got {show_moment(moment)}."
        )
    return moment


def _next(clock: time, now: datetime) -> datetime:
    """Return the next moment at which local clocks show this time, twice when they are set back."""
    today = now.astimezone().date()
    shown = [
        _zoned(datetime.combine(day, clock.replace(fold=fold)))
        for day in (today, today + timedelta(days=1))
        for fold in (0, 1)
    ]
    return next(moment for moment in shown if moment > now)


def _zoned(moment: datetime) -> datetime:
    if moment.tzinfo is not None:
        return moment
    # Not astimezone() alone, which is an hour early in CPython 3.11 for a time that clocks skip.
    return datetime.fromtimestamp(moment.timestamp(), UTC).astimezone()


def show_moment(moment: datetime) -> str:
    """Format a time for people: local, to the second, with its offset."""
    with suppress(OverflowError, ValueError):  # on the first and the last day of the calendar
        moment = moment.astimezone()
    return moment.isoformat(sep=" ", timespec="seconds")


def show_seconds(seconds: float) -> str:
    """Format a length for people: 1 h 30 min, 45 s, or 2.5 s below ten seconds."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    left, parts = round(seconds), []
    for unit, name in zip(_UNITS, _NAMES, strict=True):
        amount, left = divmod(left, unit)
        parts.append((amount, name))
    first = next(index for index, (amount, _) in enumerate(parts) if amount)
    return " ".join(f"{amount} {name}" for amount, name in parts[first : first + 2] if amount)
