"""The weight of the package: its import, and an idle worker."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.support.servers import RedisServer

from .machine import OURS, Racers
from .measuring import private_memory, processor_time, say, spread_of

_ROUNDS: Final = 9
_IDLE: Final = 60.0  # seconds
_SERVED: Final = ("bare", "ours, redis", "ours, file", "ours, env")
_UNWANTED: Final = ("fakeredis", "jinja2", "redis", "rich", "typer", "uvicorn")
_IMPORTS: Final = {
    "fastapi": "import fastapi",
    "ours on top": "import fastapi\nimport fastapi_maintenance",
}
_TIMED: Final = "import sys, time\nt = time.process_time()\n{}\nprint(time.process_time() - t, len(sys.modules), *sys.modules)"


def weight() -> dict[str, Any]:
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
    ratio = spread_of(
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
                "bytes": private_memory(server.pid),
                "per hour": (processor_time(server.pid) - before[subject]) / took * 3600,
            }
            for subject, server in servers.items()
        ]
