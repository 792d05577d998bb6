"""Keep the figures of each part as JSON, and render RESULTS.md and the figure of README.md."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from jinja2 import Environment, StrictUndefined

from tests.support.servers import RedisServer

from . import instructions, load, requests, weight
from .machine import OURS, PEERS, versions_of
from .plot import bars

HOME: Final = Path(__file__).parent
PAGE: Final = HOME / "RESULTS.md"
README: Final = HOME.parent / "README.md"
SCALE: Final = HOME.parent / "docs" / "scale.md"
_BEGIN: Final = "<!-- written by scripts/bench -->"
_END: Final = "<!-- end of scripts/bench -->"


class Target(NamedTuple):
    """A figure that should be reached."""

    what: str
    reach: str
    measured: float
    met: bool


def keep(name: str, figures: Mapping[str, Any], seconds: float, load: float) -> None:
    """Store the figures of a part with their circumstances."""
    document = {
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(seconds),
        "load": round(load, 1),
        "machine": _machine(),
        "versions": {name: found for name in (OURS, *PEERS) if (found := versions_of(name))},
        "figures": figures,
    }
    (HOME / "results" / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def read(titles: Mapping[str, str]) -> dict[str, Any]:
    """Return the stored documents, by part."""
    files = {name: HOME / "results" / f"{name}.json" for name in titles}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def write(titles: Mapping[str, str]) -> None:
    """Write the page, its plots, and the sentence of README.md."""
    documents = read(titles)
    figures = {name: document["figures"] for name, document in documents.items()}
    PAGE.write_text(render(titles, documents))
    if "cost" in figures:
        values = {
            row["subject"]: row["ratio"]
            for row in figures["cost"]["in process"]
            if row["routes"] == 1
        }
        title = "Processor time of a request while maintenance is off, bare FastAPI = 1"
        (HOME / "plots" / "cost.svg").write_text(bars(title, values, unit="×"))
        README.write_text(with_summary(README.read_text(), summary(figures["cost"])))
    if "load" in figures:
        SCALE.write_text(with_summary(SCALE.read_text(), scale(figures["load"])))


def render(titles: Mapping[str, str], documents: Mapping[str, Any]) -> str:
    """Return the page."""
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, autoescape=False
    )
    environment.filters |= {"ms": milliseconds, "processor": _processor_time}
    installed = {
        name: found
        for document in documents.values()
        for name, found in document["versions"].items()
    }
    figures: dict[str, Any] = {
        name: documents[name]["figures"] if name in documents else None for name in titles
    }
    text = environment.from_string((HOME / "RESULTS.md.j2").read_text()).render(
        figures,
        titles=titles,
        documents=documents,
        machine=list(documents.values())[-1]["machine"],
        installed=installed,
        targets=list(
            targets({name: found for name, found in figures.items() if found is not None})
        ),
        cost_routes=requests.ROUTES,
        weights=weight.TARGETS,
        sizes=load.SIZES,
        most_growth=instructions.MAX_GROWTH,
    )
    text = re.sub(r"\n{2,}", "\n\n", re.sub(r"[ ]+\n", "\n", text.replace("\n## ", "\n\n## ")))
    return f"{text.strip()}\n"


def summary(cost: Mapping[str, Any]) -> str:
    """Return the sentence of README.md."""
    served = {row["subject"]: row["processor"] for row in cost["uvicorn"]}
    return (
        f"While maintenance is off, a request costs {served['ours, redis'] - 1:.0%} more processor time than bare FastAPI "
        "behind uvicorn, whatever the number of routes."
    ).replace("%", " %")


def scale(load: Mapping[str, Any]) -> str:
    """Return the sentences of docs/scale.md."""
    idle, many, flip, call = load["idle"], load["many"], load["flip"], load["join"]["roll call"]
    each = many["connection"] + many["registration"]
    most = round(0.5 / many["share"] * many["polls"], -3)
    return f"""\
- Ten thousand workers at `ttl` = 1 s take {many["share"] * 100:.0f} % of one processor of Redis.
- Half of a processor is enough for {most:,.0f} workers at `ttl` = 1 s, and for five times as many at 5 s.
- An idle worker costs {idle["processor"] / idle["bare"]:.1f} times as much as one bare `GET` a second.
- A worker takes {each / 1024:.0f} KiB of Redis' memory, nearly all of it for the connection: ten thousand take {each * 1e4 / 2**20:.0f} MiB.
- A flip of 1,000 workers takes Redis {milliseconds(flip["processor"])}, {flip["processor"] / flip["bare"]:.1f} times as much as 1,000 bare reads after a push.
- A barrier reads the registry of 1,000 workers in {milliseconds(call)}."""


def with_summary(page: str, sentence: str) -> str:
    """Return the page with another sentence between its two marks."""
    before, _, rest = page.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{sentence}\n{_END}{rest.partition(_END)[2]}"


def targets(figures: Mapping[str, Any]) -> Iterator[Target]:
    """Yield the targets of the measured parts."""
    if "cost" in figures:
        ours = {
            row["routes"]: row["ratio"]
            for row in figures["cost"]["in process"]
            if row["subject"] == "ours, redis"
        }
        yield _at_most("open, in process, over bare", ours[1], 1.04)
        yield _at_most("open, 1,000 routes over 1", ours[1000] / ours[1], 1.05)
        yield from _shares("open", figures["cost"]["uvicorn"], "bare", 0.98)
    if "refusal" in figures:
        ours = {
            (row["routes"], bool(row["marks"])): row
            for row in figures["refusal"]["rows"]
            if row["subject"] == "ours"
        }
        yield _at_most("a 503 over a hand-written one, 1 route", ours[1, False]["ratio"], 1.5)
        yield _at_most(
            "a 503 over a hand-written one, 1,000 routes", ours[1000, False]["ratio"], 1.5
        )
        served = figures["refusal"].get("uvicorn", [])
        yield from _shares("a 503", served, "a hand-written one", 0.97)
        what = "a 503 with a forced route, 1,000 routes, of the framework's routing"
        yield _at_most(what, ours[1000, True]["of routing"], 0.5)
        if flood := figures["refusal"].get("flood"):
            yield _at_most("links lost in a flood of refusals", flood["lost"], 0)
            yield _at_most("seconds until such a flood is over for a client", flood["flip"], 1)
    counted = figures.get("instructions", {}).get("counted", {})
    for name, most in instructions.TARGETS.items():
        if name in counted:
            yield _at_most(f"instructions: {name}", round(counted[name]), most)
    for row in figures.get("propagation", {"links": []})["links"]:
        if row["links"] <= 10:
            links = f"{row['links']} link{'s' if row['links'] > 1 else ''}"
            ratio = row["ours"]["median"] / row["floor"]["median"]
            yield _at_most(f"a flip of {links} over the floor, median", ratio, 2.5)
    if "load" in figures:
        yield from _load_targets(figures["load"])
    if "weight" in figures:
        unwanted = len(figures["weight"]["import"]["unwanted"])
        yield _at_most("optional libraries that the import brings", unwanted, 0)
        for name, row in figures["weight"].get("started", {"rows": {}})["rows"].items():
            what = f"processor time of `{name}` over `import fastapi`"
            yield _at_most(what, row[0], weight.TARGETS[name])
        idle = {row["subject"]: row["bytes"] / 2**20 for row in figures["weight"].get("idle", ())}
        if idle:
            more = idle["ours, redis"] - idle["bare"]
            yield _at_most("MiB of a worker on Redis over a bare one", more, weight.MEMORY)


def _shares(
    what: str, rows: Iterable[Mapping[str, Any]], base: str, least: float
) -> Iterator[Target]:
    """Yield the share of the requests of `base` over uvicorn, if it was measured."""
    for row in rows:
        if row["subject"] == "ours, redis":
            share = row["share"]
            yield Target(
                f"{what}, over uvicorn, share of {base}", f"≥ {least:g}", share, share >= least
            )


def _load_targets(load: Mapping[str, Any]) -> Iterator[Target]:
    idle, many, join, flip = (load[name] for name in ("idle", "many", "join", "flip"))
    yield _at_most("connections of a worker", idle["connections"], 1)
    yield _at_most("an idle worker over a bare GET a second", idle["processor"] / idle["bare"], 1.5)
    yield _at_most("an idle worker inside of commands, µs a second", idle["inside"] * 1e6, 15)
    yield _at_most("ten thousand workers at ttl = 1 s, processors", many["share"], 0.5)
    yield _at_most("a join inside of commands, µs", max(join["first"], join["last"]) * 1e6, 10)
    yield _at_most("deadlines missed while 2,000 join", join["missed"], 0)
    yield _at_most("a roll call of 1,000, ms", join["roll call"] * 1000, 2.5)
    ratio = flip["processor"] / flip["bare"]
    yield _at_most("a flip of 1,000 links over bare reads, time of Redis", ratio, 2.2)
    yield _at_most("the last of 1,000 reads over bare ones", flip["last"] / flip["bare last"], 2)


def _at_most(what: str, measured: float, most: float) -> Target:
    return Target(what, f"≤ {most:,g}", measured, measured <= most)


def milliseconds(seconds: float) -> str:
    """Return a time, as precisely as it matters."""
    ms = seconds * 1000
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.1f} ms" if ms >= 10 else f"{ms:.2f} ms"


def _processor_time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 0.01 else f"{seconds:.2f} s"


def _machine() -> dict[str, Any]:
    with RedisServer() as server:
        info = dict(
            line.split(":", 1) for line in server.cli("INFO", "server").splitlines() if ":" in line
        )
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        if cpuinfo.exists()
        else []
    )
    return {
        "name": (names or [platform.processor() or platform.machine()])[0],
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "redis": f"Redis {info['redis_version'].strip()}",
    }
