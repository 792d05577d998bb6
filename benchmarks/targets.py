"""What the figures are meant to be, what they are, and why where they are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from .table import table

__all__ = ["Target", "report", "targets"]

_WHY: Final = """\
Why those that are missed are missed:

- *Off, in process*: what the pieces cost is counted under [Instructions](#instructions). Nearly all of it is the books of the barrier
  (a copy of the component, an admission, the context variable, in and out of the set of requests in flight) and the look whether a
  forced route was added. Over uvicorn a request costs several times as much to begin with, so the same is a smaller share there.
- *A 503*: a hand-written one knows neither routes nor clients. Ours first finds out whether there is such a route, for a 404 must stay a
  404 (precedence, rule 3), which an index over the routes answers at the same cost for any number of them; then who passes all the same, and last
  which format and language this client prefers. Counted, each of the three is several times a whole hand-written answer, which is two messages; together they are
  a quarter of what FastAPI itself spends on its cheapest request.
- *Propagation*: the floor reads one value. A sync is one round trip, too, but in it Redis runs the script (switch, holds, registration, epoch, history) and the worker
  packs its report, parses the reply, wakes three tasks in turn and judges, of which [A worker in a flip](#a-worker-in-a-flip) has the shares; up to 20 ms later
  a second one tells the barrier. With more links than processors these add up, and here two processors do for all the links what in a deployment
  each worker's own does: compare the milliseconds of Python for each worker with the time until all have followed."""


class Target(NamedTuple):
    """A figure that was asked for."""

    what: str
    reach: str
    measured: float
    met: bool


def targets(figures: Mapping[str, Any]) -> Iterator[Target]:
    """Those whose parts were measured; `figures` are by part."""
    if "cost" in figures:
        yield from _of_cost(figures["cost"])
    if "refusal" in figures:
        yield from _of_refusal(figures["refusal"])
    if "propagation" in figures:
        yield from _of_propagation(figures["propagation"])
    if "load" in figures:
        yield _at_most("connections of a worker", figures["load"]["connections"], 1)
    if "weight" in figures:
        yield _at_most(
            "optional libraries that the import brings",
            len(figures["weight"]["import"]["unwanted"]),
            0,
        )


def report(figures: Mapping[str, Any]) -> str:
    """The table, and why."""
    rows = [
        [target.what, target.reach, f"{target.measured:.2f}", "yes" if target.met else "**no**"]
        for target in targets(figures)
    ]
    return "\n\n".join([table(["target", "reach", "measured", "reached"], rows), _WHY])


def _of_cost(figures: Mapping[str, Any]) -> Iterator[Target]:
    ours = {
        row["routes"]: row["ratio"]
        for row in figures["in process"]
        if row["subject"] == "ours, redis"
    }
    yield _at_most("off, in process, over bare", ours[1], 1.02)
    yield _at_most("off, 1,000 routes over 1", ours[1000] / ours[1], 1.05)
    for row in figures["uvicorn"]:
        if row["subject"] == "ours, redis":
            share = 1 / row["processor"]
            yield Target(
                "off, over uvicorn, share of bare, by processor time",
                "≥ 0.99",
                share,
                share >= 0.99,
            )


def _of_refusal(figures: Mapping[str, Any]) -> Iterator[Target]:
    plain = {
        row["routes"]: row
        for row in figures["rows"]
        if row["subject"] == "ours" and not row["marks"]
    }
    marked = {
        row["routes"]: row for row in figures["rows"] if row["subject"] == "ours" and row["marks"]
    }
    yield _at_most("a 503 over a hand-written one, 1 route", plain[1]["ratio"], 1.3)
    yield _at_most("a 503, 1,000 routes over 1", plain[1000]["ratio"] / plain[1]["ratio"], 1.05)
    yield _at_most(
        "a 503 with a forced route, 1,000 routes, of the framework's routing",
        marked[1000]["of routing"],
        0.5,
    )


def _of_propagation(figures: Mapping[str, Any]) -> Iterator[Target]:
    for row in figures["links"]:
        if row["links"] <= 100:
            what = (
                f"propagation over the floor, {row['links']} link{'s' if row['links'] > 1 else ''}"
            )
            yield _at_most(f"{what}, median", row["ours"]["median"] / row["floor"]["median"], 1.5)
            yield _at_most(f"{what}, p99", row["ours"]["p99"] / row["floor"]["p99"], 2)


def _at_most(what: str, measured: float, most: float) -> Target:
    return Target(what, f"≤ {most:g}", measured, measured <= most)
