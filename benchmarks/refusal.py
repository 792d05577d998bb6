"""2. What a 503 costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.support.servers import RedisServer

from .environments import OURS, Racers, versions_of
from .progress import say
from .spread import Spread
from .table import table

__all__ = ["TITLE", "measure", "plots", "report"]

TITLE: Final = "Cost of a 503"
_ROUTES: Final = (1, 100, 1000)
_MARKS: Final = ("", "on")
_ROUNDS: Final = 24
_WHAT: Final = """\
In process, processor time over that of a hand-written ASGI middleware that sends the same 503, encoded beforehand, to everybody; medians of
the rounds, and the quartiles. The request is for the last of the routes. Ours finds out first whether there is such a route at all (the
application's own 404 stays), so its 503 has the routing in it: the last column is what ours takes beyond the hand-written 503 as a share of
what the framework itself spends on finding that route. "Bare, open" is the same request answered by the application."""


def measure() -> dict[str, Any]:
    """In process, with the switch on in Redis."""
    rows: list[dict[str, Any]] = []
    with RedisServer() as redis, TemporaryDirectory() as directory:
        redis.cli("SET", "maintenance", "1")
        racers = Racers(redis.url, Path(directory))
        for routes in _ROUTES:
            path = f"/things-{routes - 1}/1/parts" if routes > 1 else "/"
            for marks in _MARKS:
                say(f"{routes} routes{', one forced on' if marks else ''}")
                subjects = ["hand-written 503", "routing", "ours, redis", "bare"]
                times = racers.race(
                    OURS,
                    subjects=subjects,
                    rounds=_ROUNDS,
                    routes=routes,
                    marks=marks,
                    path=path,
                    expect=[200, 503],
                )
                rows.append(
                    {"subject": "ours", "routes": routes, "marks": marks, **_compare(times)}
                )
        if versions_of("modelled"):
            say("the modelled package")
            times = racers.race(
                "modelled",
                environ={"FASTAPI_MAINTENANCE_MODE": "1"},
                subjects=["hand-written 503", "routing", "modelled, env", "bare"],
                rounds=_ROUNDS,
                expect=[200, 503],
            )
            rows.append(
                {
                    "subject": "modelled, env",
                    "routes": 1,
                    "marks": "",
                    **_compare(times, "modelled, env"),
                }
            )
    return {"rows": rows}


def _compare(
    times: dict[str, list[tuple[float, float]]], subject: str = "ours, redis"
) -> dict[str, float]:
    processor = {name: [one[1] for one in taken] for name, taken in times.items()}
    hand, routing, ours, bare = (
        processor[name] for name in ("hand-written 503", "routing", subject, "bare")
    )
    ratio = Spread.of(one / other for one, other in zip(ours, hand, strict=True))
    shares = Spread.of(
        (one - own) / (found - own) for one, found, own in zip(ours, routing, hand, strict=True)
    )
    return {
        "ratio": ratio.median,
        "first": ratio.first,
        "third": ratio.third,
        "of bare": Spread.of(one / other for one, other in zip(ours, bare, strict=True)).median,
        "of routing": shares.median,
        "microseconds": min(ours) * 1e6,
        "hand-written": min(hand) * 1e6,
    }


def report(figures: Mapping[str, Any]) -> str:
    """The table."""
    rows = [
        [
            f"{row['subject']}, {row['routes']:,} route{'s' if row['routes'] > 1 else ''}{', one forced on' if row['marks'] else ''}",
            f"**{row['ratio']:.1f}** ({row['first']:.1f}–{row['third']:.1f})",
            f"{row['microseconds']:.1f} µs",
            f"{row['hand-written']:.1f} µs",
            f"{row['of bare']:.2f}",
            f"{row['of routing']:.2f}",
        ]
        for row in figures["rows"]
    ]
    head = ["", "× hand-written", "a 503", "hand-written", "× bare, open", "of routing"]
    return "\n\n".join([_WHAT, table(head, rows)])


def plots(figures: Mapping[str, Any]) -> dict[str, str]:
    """None."""
    return {}
