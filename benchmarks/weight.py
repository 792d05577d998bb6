"""5. What it weighs: the import, the memory, and a worker that has nothing to do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.support.servers import RedisServer

from .environments import OURS, Racers
from .processes import processor_time, resident
from .progress import say
from .spread import Spread
from .table import milliseconds, table

__all__ = ["TITLE", "measure", "plots", "report"]

TITLE: Final = "Weight"
_ROUNDS: Final = 9
_IDLE: Final = 60.0  # seconds
_SERVED: Final = ("bare", "ours, redis", "ours, file", "ours, env")
_UNWANTED: Final = ("fakeredis", "jinja2", "redis", "rich", "typer", "uvicorn")
_IMPORTS: Final = {
    "fastapi": "import fastapi",
    "ours on top": "import fastapi\nimport fastapi_maintenance",
}
_TIMED: Final = "import sys, time\nt = time.process_time()\n{}\nprint(time.process_time() - t, len(sys.modules), *sys.modules)"


def measure() -> dict[str, Any]:
    """The import in turns, then idle servers side by side."""
    with RedisServer() as redis, TemporaryDirectory() as directory:
        return {"import": _imports(), "idle": _idle(Racers(redis.url, Path(directory)))}


def _imports() -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in _IMPORTS}
    modules: dict[str, list[str]] = {}
    for number in range(_ROUNDS):
        say(f"import, round {number + 1} of {_ROUNDS}")
        for name, text in _IMPORTS.items():
            out = subprocess.run(
                [sys.executable, "-c", _TIMED.format(text)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            seconds[name].append(float(out[0]))
            modules[name] = out[2:]
    more = set(modules["ours on top"]) - set(modules["fastapi"])
    ratio = Spread.of(
        one / other for one, other in zip(seconds["ours on top"], seconds["fastapi"], strict=True)
    )
    return {
        "fastapi": min(seconds["fastapi"]),
        "ours on top": min(seconds["ours on top"]),
        "ratio": ratio.median,
        "first": ratio.first,
        "third": ratio.third,
        "modules": len(modules["fastapi"]),
        "more": len(more),
        "ours": sum(name.startswith("fastapi_maintenance") for name in more),
        "unwanted": sorted(more & set(_UNWANTED)),
    }


def _idle(racers: Racers) -> list[dict[str, Any]]:
    with ExitStack() as stack:
        servers = {
            subject: stack.enter_context(racers.serving(OURS, subject)) for subject in _SERVED
        }
        time.sleep(2)
        say(f"idle for {_IDLE:g} s")
        before, started = (
            {subject: processor_time(server.pid) for subject, server in servers.items()},
            time.monotonic(),
        )
        time.sleep(_IDLE)
        took = time.monotonic() - started
        return [
            {
                "subject": subject,
                "bytes": resident(server.pid),
                "per hour": (processor_time(server.pid) - before[subject]) / took * 3600,
            }
            for subject, server in servers.items()
        ]


def report(figures: Mapping[str, Any]) -> str:
    """A sentence and a table."""
    imported = figures["import"]
    unwanted = ", ".join(imported["unwanted"]) or f"none of {', '.join(_UNWANTED)}"
    sentence = (
        f"`import fastapi_maintenance` after `import fastapi`: **{imported['ratio']:.2f}** times the processor time of FastAPI's import alone "
        f"({imported['first']:.2f} to {imported['third']:.2f}; at best {milliseconds(imported['ours on top'] - imported['fastapi'])} on top of "
        f"{milliseconds(imported['fastapi'])}). It adds {imported['more']} modules to {imported['modules']}, {imported['ours']} of them its own, "
        f"and of optional libraries {unwanted}."
    )
    bare = figures["idle"][0]
    rows = [
        [
            row["subject"],
            f"{row['bytes'] / 2**20:.1f} MiB",
            f"{row['bytes'] / bare['bytes']:.2f}",
            f"+{(row['bytes'] - bare['bytes']) / 2**20:.1f} MiB",
            f"{row['per hour']:.1f} s",
            f"{row['per hour'] / 36:.2f} %",
        ]
        for row in figures["idle"]
    ]
    head = [
        "",
        "memory of its own",
        "of bare",
        "more than bare",
        "processor in an hour",
        "of one processor",
    ]
    idle = f"A worker over uvicorn that nobody asks anything (its private memory; its processor time from {_IDLE:g} s, times 60):"
    return "\n\n".join([sentence, idle, table(head, rows)])


def plots(figures: Mapping[str, Any]) -> dict[str, str]:
    """None."""
    return {}
