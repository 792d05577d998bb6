"""Times as people write them on a command line, and as they read them there. Pure but for the local time zone."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from typing import Final

__all__ = ["parse_duration", "parse_until", "show_moment", "show_seconds"]

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
    """Read 90, 90s, 30m, 2h, 1d or 1h30m: whole numbers with units from long to short; a number alone is seconds.

    Raises `ValueError`, which says how to write it, also for no time at all and for more than a century.
    """
    given = text.strip()
    match = _DURATION.fullmatch(f"{given}s" if _BARE.fullmatch(given) else given)
    if match is None:
        raise ValueError(
            f"{text!r} is not a length of time: write it like 90, 90s, 30m, 2h, 1d or 1h30m."
        )
    seconds = sum(
        int(number or 0) * unit for number, unit in zip(match.groups(), _UNITS, strict=True)
    )
    if not 0 < seconds <= _CENTURY:
        raise ValueError(
            f"{text!r} is {'over a century' if seconds else 'no time at all'}: write a length like 30m."
        )
    return timedelta(seconds=seconds)


def parse_until(text: str, now: datetime, begins: datetime | None = None) -> datetime:
    """Read an ISO 8601 time, or HH:MM or HH:MM:SS for the next such time; what names no zone is in the local one.

    `now` has a time zone. Raises `ValueError`, which says how to write it, also for what is not later than `now`, or than
    `begins` where that is given.
    """
    text = text.strip()
    try:
        if _TIME_OF_DAY.fullmatch(text):
            return _next(
                time.fromisoformat(
                    text.zfill(len("00:00") if text.count(":") == 1 else len("00:00:00"))
                ),
                begins or now,
            )
        moment = _zoned(datetime.fromisoformat(text))
    except (
        ValueError,
        OverflowError,
        OSError,
    ):  # the last two: years at the edge of the calendar have no local time
        raise ValueError(
            f"{text!r} is not a time: write 04:00, 2026-11-22T04:00 (both local) or 2026-11-22T04:00Z."
        ) from None
    if moment <= now:
        raise ValueError(f"{show_moment(moment)} is over already: it is {show_moment(now)}.")
    if begins is not None and moment <= begins:
        raise ValueError(
            f"{show_moment(moment)} is not after the beginning, {show_moment(begins)}."
        )
    return moment


def _next(clock: time, now: datetime) -> datetime:
    """The next moment at which local clocks show it. Where they are set back they show it twice."""
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
    # Not by astimezone() alone: of a time that the clock skips, CPython 3.11 makes one an hour too early.
    return datetime.fromtimestamp(moment.timestamp(), UTC).astimezone()


def show_moment(moment: datetime) -> str:
    """For people: local time, to the second, with its offset."""
    with suppress(OverflowError, ValueError):  # on the first and the last day of the calendar
        moment = moment.astimezone()
    return moment.isoformat(sep=" ", timespec="seconds")


def show_seconds(seconds: float) -> str:
    """For people: the two largest units, like 1 h 30 min; below a minute in seconds, below ten with tenths."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    left, parts = round(seconds), []
    for unit, name in zip(_UNITS, _NAMES, strict=True):
        amount, left = divmod(left, unit)
        parts.append((amount, name))
    first = next(index for index, (amount, _) in enumerate(parts) if amount)
    return " ".join(f"{amount} {name}" for amount, name in parts[first : first + 2] if amount)
