"""1. What a request costs more while maintenance is off."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from tests.support.servers import RedisServer

from .environments import OURS, PEERS, Racers, Served, versions_of
from .plot import bars
from .processes import processor_time
from .progress import say
from .spread import Spread
from .table import table

__all__ = ["TITLE", "measure", "plots", "report", "summary"]

TITLE: Final = "Cost while maintenance is off"
_SUBJECTS: Final = {
    OURS: [
        "bare",
        "pass-through",
        "ours, redis",
        "ours, file",
        "ours, env",
        "GET in a dependency",
        "GET in a middleware",
    ],
    "modelled": ["bare", "modelled, env", "modelled, file", "modelled, redis"],
    "waygate": ["bare", "waygate, memory", "waygate, redis"],
}
_ROUTES: Final = (1, 100, 1000)
_ROUNDS: Final = 24
_MARKS: Final = ("off", "on")
_SERVED: Final = {
    OURS: [
        "bare",
        "pass-through",
        "ours, redis",
        "ours, file",
        "ours, env",
        "GET in a dependency",
        "GET in a middleware",
    ],
    "modelled": ["modelled, env", "modelled, redis"],
    "waygate": ["waygate, redis"],
}
_WRK_ROUNDS: Final = 6
_WRK_SECONDS: Final = 1
_IN_PROCESS: Final = """\
In process: processor time of a request over that of the bare application in the same round; the median of the rounds, and the quartiles.
The last column is time by the clock, the fastest round over the fastest of bare: it has Redis' answers in it. The request is for the first
route, the cheapest there is, so that bare costs the same at every size. Ours always keeps the books of the barrier."""
_FORCED: Final = """\
Ours behind Redis, with one route more that is forced on or off. A route that is forced on makes every request be resolved:"""
_SERVING: Final = """\
Over uvicorn (h11, asyncio, one process each) with wrk on the same machine: requests per second as a share of those of bare in the same
round; the processor time that the server took for a request over bare's, which depends least on who else is there; and the best rate."""


def measure() -> dict[str, Any]:
    """In process, then over uvicorn."""
    with RedisServer() as redis, TemporaryDirectory() as directory:
        racers = Racers(redis.url, Path(directory))
        return {
            "in process": _in_process(racers),
            "marks": _marks(racers),
            "uvicorn": _over_uvicorn(racers),
        }


def _in_process(racers: Racers) -> list[dict[str, Any]]:
    rows = []
    for routes in _ROUTES:
        for environment in (OURS, *PEERS):
            if versions_of(environment):
                say(f"in process: {environment}, {routes} routes")
                times = racers.race(
                    environment,
                    subjects=_SUBJECTS[environment],
                    rounds=_ROUNDS,
                    routes=routes,
                    expect=[200],
                )
                rows += [
                    {**row, "routes": routes}
                    for row in _over_bare(times)
                    if row["subject"] != "bare"
                ]
    return rows


def _marks(racers: Racers) -> list[dict[str, Any]]:
    rows = []
    for routes in _ROUTES:
        for marks in _MARKS:
            say(f"in process: a route forced {marks}, {routes} routes")
            times = racers.race(
                OURS,
                subjects=["bare", "ours, redis"],
                rounds=_ROUNDS,
                routes=routes,
                marks=marks,
                expect=[200],
            )
            rows += [
                {**row, "routes": routes, "marks": marks}
                for row in _over_bare(times)
                if row["subject"] != "bare"
            ]
    return rows


def _over_bare(times: dict[str, list[tuple[float, float]]]) -> list[dict[str, Any]]:
    """Each subject's times as ratios to those of bare in the same round."""
    bare = times["bare"]
    rows = []
    for subject, taken in times.items():
        processor = Spread.of(one[1] / other[1] for one, other in zip(taken, bare, strict=True))
        clock = min(one[0] for one in taken) / min(other[0] for other in bare)
        rows.append(
            {
                "subject": subject,
                "ratio": processor.median,
                "first": processor.first,
                "third": processor.third,
                "clock": clock,
                "microseconds": min(one[0] for one in taken) * 1e6,
            }
        )
    return rows


def _over_uvicorn(racers: Racers) -> list[dict[str, Any]]:
    wrk = shutil.which("wrk")
    if wrk is None:
        return []
    with ExitStack() as stack:
        servers: dict[str, Served] = {}
        for environment in (OURS, *PEERS):
            for subject in _SERVED[environment] if versions_of(environment) else ():
                servers[subject] = stack.enter_context(racers.serving(environment, subject))
        for server in servers.values():
            _load(wrk, server)
        loads: dict[str, list[_Load]] = {subject: [] for subject in servers}
        for number in range(_WRK_ROUNDS):
            say(f"over uvicorn: round {number + 1} of {_WRK_ROUNDS}")
            for subject, server in servers.items():
                loads[subject].append(_load(wrk, server))
    bare = loads["bare"]
    rows = []
    for subject, load in loads.items():
        shares = Spread.of(one.rate / other.rate for one, other in zip(load, bare, strict=True))
        rows.append(
            {
                "subject": subject,
                "share": shares.median,
                "first": shares.first,
                "third": shares.third,
                "rate": max(one.rate for one in load),
                "processor": _each(load) / _each(bare),
            }
        )
    return rows


class _Load(NamedTuple):
    """What wrk got out of a server in one round."""

    rate: float  # requests per second
    requests: int
    processor: float  # seconds that the server was given


def _each(loads: list[_Load]) -> float:
    """Processor time of one request: what a busy machine changes least."""
    return sum(load.processor for load in loads) / sum(load.requests for load in loads)


def _load(wrk: str, server: Served) -> _Load:
    before = processor_time(server.pid)
    command = [wrk, "-t1", "-c8", f"-d{_WRK_SECONDS}s", f"http://127.0.0.1:{server.port}/"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, requests = (
        re.search(r"Requests/sec:\s+([\d.]+)", out),
        re.search(r"(\d+) requests in", out),
    )
    if rate is None or requests is None or "Non-2xx" in out:
        raise RuntimeError(f"wrk says: {out}")
    return _Load(float(rate[1]), int(requests[1]), processor_time(server.pid) - before)


def report(figures: Mapping[str, Any]) -> str:
    """The tables."""
    cells = {(row["subject"], row["routes"]): row for row in figures["in process"]}
    subjects = list(dict.fromkeys(row["subject"] for row in figures["in process"]))
    in_process = [
        [
            subject,
            *(_cell(cells[subject, routes]) for routes in _ROUTES),
            f"{cells[subject, 1]['clock']:.2f}",
        ]
        for subject in subjects
    ]
    marked = {(row["marks"], row["routes"]): row for row in figures["marks"]}
    served = [
        [
            row["subject"],
            f"{row['share']:.1%}",
            f"{row['first']:.1%} to {row['third']:.1%}",
            f"{row['processor']:.3f}",
            f"{row['rate']:.0f}",
        ]
        for row in figures["uvicorn"]
    ]
    sizes = [f"{routes:,} routes" if routes > 1 else "1 route" for routes in _ROUTES]
    return "\n\n".join(
        [
            _IN_PROCESS,
            table(["", *sizes, "by the clock"], in_process),
            _FORCED,
            table(
                ["", *sizes],
                [
                    [f"forced {marks}", *(_cell(marked[marks, routes]) for routes in _ROUTES)]
                    for marks in _MARKS
                ],
            ),
            _SERVING,
            table(["", "share of bare", "quartiles", "processor time", "requests/s"], served)
            if served
            else "There was no wrk.",
        ]
    )


def summary(figures: Mapping[str, Any]) -> str:
    """The one figure of README.md."""
    processor = next(
        row["processor"] for row in figures["uvicorn"] if row["subject"] == "ours, redis"
    )
    return (
        f"While maintenance is off, a request costs {100 * (processor - 1):.0f} % more processor time than bare FastAPI behind uvicorn, "
        "whatever the number of routes."
    )


def plots(figures: Mapping[str, Any]) -> dict[str, str]:
    """The peers side by side."""
    values = {row["subject"]: row["ratio"] for row in figures["in process"] if row["routes"] == 1}
    return {
        "cost": bars(
            "Processor time of a request while maintenance is off, bare FastAPI = 1",
            values,
            unit="×",
        )
    }


def _cell(row: Mapping[str, Any]) -> str:
    return f"**{row['ratio']:.3f}** ({row['first']:.2f}–{row['third']:.2f})"
