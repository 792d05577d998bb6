"""3. From a bare SET to the moment at which workers answer 503."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.support.servers import RedisServer

from .crew import Crew, floor, ours
from .plot import lines
from .progress import say
from .spread import Spread
from .table import milliseconds, table

__all__ = ["TITLE", "measure", "plots", "report"]

TITLE: Final = "Propagation"
_FLIPS: Final = {1: 60, 4: 40, 10: 30, 100: 12, 1000: 4}  # in each block, by the number of links
_BLOCKS: Final = 3
_MANY: Final = 1000  # links
_SLOW_TTL: Final = 10.0  # seconds
_LOST: Final = 20  # links
_HERDS: Final = (10, 100, 500)
_WHAT: Final = f"""\
From the moment at which a bare `SET` is sent until a worker has answered a request with 503, and until all have. Each link is a real
middleware with a real link; up to 10, each has a process of its own, beyond that four processes share them. The floor is sockets that speak
just enough RESP to be told of the write and to read the switch again, in as many processes; it keeps no state, holds nothing back and
answers nobody. Blocks of ours and of the floor alternate. At {_MANY:,} links the `ttl` is {_SLOW_TTL:g} s, as two processors cannot also
be the thousand that would poll every second."""
_LOST_WHAT: Final = f"""\
With every push lost: {_LOST} workers whose user may neither track nor subscribe, so only the poll is left, at `ttl` = 1 s (± 20 %)."""
_HERD_WHAT: Final = """\
In a reconnect herd: every connection is cut by `CLIENT KILL`, and the switch is written at once, so what is measured is the way back and
the first read there. The delay before connecting again is random, up to 20 ms at first."""


def measure() -> dict[str, Any]:
    """Blocks that alternate, then the two bad cases."""
    figures: dict[str, Any] = {"links": [], "herd": []}
    with RedisServer() as server:
        for links, flips in _FLIPS.items():
            figures["links"].append({"links": links, **_alternate(server, links, flips)})
        say("every push lost")
        server.cli(
            "ACL",
            "SETUSER",
            "deaf",
            "on",
            "nopass",
            "~*",
            "&*",
            "+@all",
            "-client|tracking",
            "-subscribe",
        )
        with Crew(ours, server, _LOST, url=server.url_of("deaf", "any")) as crew:
            figures["lost"] = _shape(_flips(crew, 8))
        for links in _HERDS:
            say(f"a herd of {links}")
            with Crew(ours, server, links) as crew:
                figures["herd"].append(
                    {"links": links, **_shape(_flips(crew, 4, Crew.reconnecting_flip))}
                )
    return figures


def _alternate(server: RedisServer, links: int, flips: int) -> dict[str, Any]:
    taken: dict[str, list[list[float]]] = {"ours": [], "floor": []}
    work = {"ours": [0.0, 0.0], "floor": [0.0, 0.0]}
    for block in range(_BLOCKS if links < _MANY else 2):
        say(f"{links} links, block {block + 1}")
        for name, member in (("floor", floor), ("ours", ours)):
            options = {"ttl": _SLOW_TTL} if name == "ours" and links >= _MANY else {}
            server.cli("SET", "maintenance", "0")
            with Crew(member, server, links, **options) as crew:
                before = crew.processor_time()
                taken[name] += _flips(crew, flips)
                after = crew.processor_time()
            work[name] = [
                sum(pair)
                for pair in zip(
                    work[name], (b - a for a, b in zip(before, after, strict=True)), strict=True
                )
            ]
    share = {
        name: [seconds / 2 / len(taken[name]) for seconds in spent] for name, spent in work.items()
    }
    return {**{name: _shape(blocks) for name, blocks in taken.items()}, "work": share}


def _flips(
    crew: Crew, count: int, close: Callable[[Crew], list[float]] = lambda crew: crew.flip(True)
) -> list[list[float]]:
    """The seconds that each worker took at each closing."""
    taken = []
    for _ in range(count):
        _settle(crew)
        taken.append(close(crew))
        _settle(crew)
        crew.flip(False)
    return taken


def _settle(crew: Crew) -> None:
    """Let workers finish what a flip sets off behind the answer: they tell the registry that they have applied it."""
    time.sleep(random.uniform(0.02, 0.06) + 0.0015 * crew.links)


def _shape(taken: list[list[float]]) -> dict[str, float]:
    each = Spread.of(seconds for flip in taken for seconds in flip)
    everyone = Spread.of(max(flip) for flip in taken)
    return {
        "median": each.median,
        "p99": each.p99,
        "all": everyone.median,
        "worst": everyone.high,
        "fastest": everyone.low,
    }


def report(figures: Mapping[str, Any]) -> str:
    """The tables."""
    rows = []
    for row in figures["links"]:
        one, other = row["ours"], row["floor"]
        rows.append(
            [
                f"{row['links']:,}",
                *(
                    f"{milliseconds(one[what])} / {milliseconds(other[what])} = **{one[what] / other[what]:.1f}**"
                    for what in _SHOWN
                ),
            ]
        )
    lost = figures["lost"]
    many = figures["links"][-1]
    herd = [
        [row["links"], *(milliseconds(row[what]) for what in ("median", "p99", "all", "worst"))]
        for row in figures["herd"]
    ]
    return "\n\n".join(
        [
            _WHAT,
            table(
                ["links", "a worker, median", "a worker, p99", "all, median", "all, at best"], rows
            ),
            _where(many),
            _LOST_WHAT,
            table(
                ["", "median", "p99", "all, median", "worst"],
                [["polling", *(milliseconds(lost[w]) for w in ("median", "p99", "all", "worst"))]],
            ),
            _HERD_WHAT,
            table(["links", "a worker, median", "p99", "all, median", "worst"], herd),
        ]
    )


_SHOWN: Final = ("median", "p99", "all", "fastest")


def _where(row: Mapping[str, Any]) -> str:
    """Where the time goes with many links, by the processor time of each side."""
    redis, workers = row["work"]["ours"]
    floor_redis, floor_workers = row["work"]["floor"]
    return (
        f"Where the time goes at {row['links']:,} links, for one flip, with what workers do behind their answers and the polls of that time: Redis "
        f"{milliseconds(redis)} of a processor and the workers together {milliseconds(workers)}, which is {milliseconds(workers / row['links'])} each; "
        f"at the floor {milliseconds(floor_redis)} and {milliseconds(floor_workers)}. The workers' part is Python's, and in a deployment it is done by "
        f"{row['links']:,} processes at the same time; Redis' part is one after the other."
    )


def plots(figures: Mapping[str, Any]) -> dict[str, str]:
    """By the number of links."""
    series = {
        f"{who}, {label}": [(row["links"], row[key][what] * 1000) for row in figures["links"]]
        for who, key in (("ours", "ours"), ("floor", "floor"))
        for what, label in (("median", "a worker"), ("all", "all workers"))
    }
    return {
        "propagation": lines(
            "From a bare SET to 503, median", series, across="links on two processors", up="ms"
        )
    }
