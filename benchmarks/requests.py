"""The cost of a request: while maintenance is off, and as a 503."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from tests.support.servers import RedisServer
from tests.support.waiting import eventually_sync

from .machine import OURS, PEERS, Racers, Served, versions_of
from .measuring import processor_time, say, spread_of

ROUTES: Final = (1, 100, 1000)
_ROUNDS: Final = 24
_BARE: Final = ["bare", "pass-through"]
_GETS: Final = ["GET in a dependency", "GET in a middleware"]
_OPEN: Final = [*_BARE, "ours, redis", "ours, file", "ours, env", *_GETS]
_IN_PROCESS: Final = {
    OURS: _OPEN,
    "modelled": ["bare", "modelled, env", "modelled, file", "modelled, redis"],
    "waygate": ["bare", "waygate, memory", "waygate, redis"],
}
_SERVED: Final = {
    OURS: _OPEN,
    "modelled": ["modelled, env", "modelled, redis"],
    "waygate": ["waygate, redis"],
}
_WRK_ROUNDS: Final = 6
_WRK_SECONDS: Final = 1
_FLOOD: Final = 4  # seconds of refusals before the flip, and after it

Times = dict[str, list[tuple[float, float]]]


# -- while maintenance is off ----------------------------------------------------------------------


def cost() -> dict[str, Any]:
    """Measure in process, then over uvicorn."""
    with RedisServer() as redis, TemporaryDirectory() as directory:
        racers = Racers(redis.url, Path(directory))
        in_process, marked = [], []
        options: dict[str, Any] = {"rounds": _ROUNDS, "expect": [200]}
        for routes in ROUTES:
            for environment in filter(versions_of, (OURS, *PEERS)):
                say(f"in process: {environment}, {routes} routes")
                subjects = _IN_PROCESS[environment]
                times = racers.race(environment, subjects=subjects, routes=routes, **options)
                in_process += [{**row, "routes": routes} for row in _over_bare(times)]
            for marks in ("off", "on"):
                say(f"in process: a route forced {marks}, {routes} routes")
                subjects = ["bare", "ours, redis"]
                times = racers.race(OURS, subjects=subjects, routes=routes, marks=marks, **options)
                marked += [{**row, "routes": routes, "marks": marks} for row in _over_bare(times)]
        return {"in process": in_process, "marks": marked, "uvicorn": _over_uvicorn(racers)}


def _over_bare(times: Times) -> list[dict[str, Any]]:
    """Return each subject's times as ratios to those of bare in the same round."""
    bare = times.pop("bare")
    rows = []
    for subject, taken in times.items():
        processor = spread_of(one[1] / other[1] for one, other in zip(taken, bare, strict=True))
        fastest = min(one[0] for one in taken)
        ratios = {"ratio": processor.median, "first": processor.first, "third": processor.third}
        clock = fastest / min(other[0] for other in bare)
        row = {"subject": subject, **ratios, "clock": clock, "microseconds": fastest * 1e6}
        rows.append(row)
    return rows


def _over_uvicorn(
    racers: Racers, served: Mapping[str, list[str]] = _SERVED, base: str = "bare"
) -> list[dict[str, Any]]:
    """Return the requests of each subject as a share of those of `base` in the same round."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return []
    refused = base != "bare"
    with ExitStack() as stack:
        servers: dict[str, Served] = {}
        for environment in filter(versions_of, served):
            for subject in served[environment]:
                servers[subject] = stack.enter_context(racers.serving(environment, subject))
        for server in servers.values():
            _load(wrk, server, refused=refused)
        loads: dict[str, list[_Load]] = {subject: [] for subject in servers}
        for number in range(_WRK_ROUNDS):
            say(f"over uvicorn: round {number + 1} of {_WRK_ROUNDS}")
            turn = number % len(servers)  # each is first once, so that no drift favours one
            for subject in [*servers][turn:] + [*servers][:turn]:
                loads[subject].append(_load(wrk, servers[subject], refused=refused))
    bare = loads[base]
    rows = []
    for subject, load in loads.items():
        shares = spread_of(one.rate / other.rate for one, other in zip(load, bare, strict=True))
        ratios = {"share": shares.median, "first": shares.first, "third": shares.third}
        best = max(one.rate for one in load)
        rows.append(
            {"subject": subject, **ratios, "rate": best, "processor": _each(load) / _each(bare)}
        )
    return rows


class _Load(NamedTuple):
    """What wrk measured of a server in one round."""

    rate: float  # requests per second
    requests: int
    processor: float  # seconds that the server was given


def _each(loads: list[_Load]) -> float:
    """Return the processor time per request: what a busy machine changes least."""
    return sum(load.processor for load in loads) / sum(load.requests for load in loads)


def _load(wrk: str, server: Served, *, refused: bool) -> _Load:
    before = processor_time(server.pid)
    command = [wrk, "-t1", "-c8", f"-d{_WRK_SECONDS}s", f"http://127.0.0.1:{server.port}/"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, requests = (
        re.search(r"Requests/sec:\s+([\d.]+)", out),
        re.search(r"(\d+) requests in", out),
    )
    if rate is None or requests is None or ("Non-2xx" in out) is not refused:
        raise RuntimeError(f"wrk says: {out}")
    return _Load(float(rate[1]), int(requests[1]), processor_time(server.pid) - before)


# -- a 503 -----------------------------------------------------------------------------------------


def refusal() -> dict[str, Any]:
    """Measure in process, with the switch on in Redis."""
    rows: list[dict[str, Any]] = []
    with RedisServer() as redis, TemporaryDirectory() as directory:
        redis.cli("SET", "maintenance", "1")
        racers = Racers(redis.url, Path(directory))
        options: dict[str, Any] = {"rounds": _ROUNDS, "expect": [200, 503]}
        for routes in ROUTES:
            path = f"/things-{routes - 1}/1/parts" if routes > 1 else "/"
            for marks in ("", "on"):
                say(f"{routes} routes{', one forced on' if marks else ''}")
                row = {"routes": routes, "marks": marks}
                compared = {"subjects": _compared("ours, redis"), "path": path, **row, **options}
                times = racers.race(OURS, **compared)
                rows.append({"subject": "ours", **row, **_compare(times, "ours, redis")})
        if versions_of("modelled"):
            say("the modelled package")
            environ = {"FASTAPI_MAINTENANCE_MODE": "1"}
            times = racers.race(
                "modelled", environ=environ, subjects=_compared("modelled, env"), **options
            )
            row = {"subject": "modelled, env", "routes": 1, "marks": ""}
            rows.append({**row, **_compare(times, "modelled, env")})
        served = {OURS: ["hand-written 503", "ours, redis"]}
        over_uvicorn = _over_uvicorn(racers, served, "hand-written 503")
        return {"rows": rows, "uvicorn": over_uvicorn, "flood": _flood(racers, redis)}


def _flood(racers: Racers, redis: RedisServer) -> dict[str, float]:
    """Refuse as many requests as the server can, then open: is the link kept, and how soon is it?"""
    wrk = shutil.which("wrk")
    if wrk is None:
        return {}
    with racers.serving(OURS, "ours, redis") as server:
        command = [wrk, "-t1", "-c256", f"-d{2 * _FLOOD}s", f"http://127.0.0.1:{server.port}/"]
        links = _links(redis)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            time.sleep(_FLOOD)
            lost = len(links - _links(redis))
            at = time.monotonic()
            redis.cli("DEL", "maintenance")
            eventually_sync(lambda: _status(server.port) == 200, within=30, every=0.005)
            took = time.monotonic() - at
            out, _ = load.communicate()
    requests = re.search(r"Requests/sec:\s+([\d.]+)", out)
    rate = float(requests[1]) if requests else 0.0
    return {"rate": rate, "links": len(links), "lost": lost, "flip": took}


def _links(redis: RedisServer) -> set[str]:
    """Return the ids of the connections, without the one that asks."""
    lines = redis.cli("CLIENT", "LIST").splitlines()
    return {line.split()[0] for line in lines if "id=" in line and "cmd=client|list" not in line}


def _status(port: int) -> int:
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/")
        return connection.getresponse().status


def _compared(subject: str) -> list[str]:
    return ["hand-written 503", "routing", subject, "bare"]


def _compare(times: Times, subject: str) -> dict[str, float]:
    hand, routing, ours, bare = ([one[1] for one in times[name]] for name in _compared(subject))
    ratio = spread_of(one / other for one, other in zip(ours, hand, strict=True))
    shares = spread_of(
        (one - own) / (found - own) for one, found, own in zip(ours, routing, hand, strict=True)
    )
    return {
        "ratio": ratio.median,
        "first": ratio.first,
        "third": ratio.third,
        "of bare": spread_of(one / other for one, other in zip(ours, bare, strict=True)).median,
        "of routing": shares.median,
        "microseconds": min(ours) * 1e6,
        "hand-written": min(hand) * 1e6,
    }
