"""The weight of the package: imports, the start of commands, and an idle worker."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.support.servers import RedisServer

from .machine import OURS, Racers
from .measuring import private_memory, processor_time, say, spread_of

_ROUNDS: Final = 15
_IDLE: Final = 45.0  # seconds
_SERVED: Final = ("bare", "ours, redis", "ours, file", "ours, env")
_UNWANTED: Final = ("fakeredis", "jinja2", "redis", "rich", "typer", "uvicorn")
_BASE: Final = "import fastapi"
_MIDDLEWARE: Final = "from fastapi_maintenance import MaintenanceModeMiddleware"
_COMMAND: Final = "from fastapi_maintenance.__main__ import main\nmain()"
_NAMES: Final = "import sys\n{}\nprint(*sys.modules)"
_COMPLETE: Final = {"_FASTAPI_MAINTENANCE_COMPLETE": "complete_bash"}
TARGETS: Final = {
    "import fastapi_maintenance": 0.3,
    "import fastapi, and the middleware": 1.1,
    "status": 0.8,
    "on": 0.8,
    "off": 0.8,
    "wait --expect 0": 0.8,
    "--version": 0.3,
    "completion of a command": 0.3,
    "completion of an option": 0.3,
}
"""What is started, and the most that it may take of the processor time of `import fastapi`."""
MEMORY: Final = 6.0
"""MiB that a worker on Redis may have more than a bare one."""


def weight() -> dict[str, Any]:
    """Start everything in turns, then serve idle side by side.

    The OpenTelemetry SDK is left out: redis-py imports it where it is installed, for all its users.
    """
    with RedisServer() as redis, TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "sitecustomize.py").write_text(
            "import sys\nsys.modules['opentelemetry.sdk'] = None\n"
        )
        environ = {"PYTHONPATH": name, "FASTAPI_MAINTENANCE_BACKEND": redis.url}
        started = _started(environ | {"PYTHONPYCACHEPREFIX": f"{name}/bytecode"})
        racers = Racers(redis.url, directory, {"PYTHONPATH": name})
        return {"started": started, "import": _imports(), "idle": _idle(racers)}


def _started(environ: dict[str, str]) -> dict[str, Any]:
    """The processor time of each start over that of `import fastapi` in the same round."""
    given = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON"}
    ratios: dict[str, list[float]] = {name: [] for name in TARGETS}
    base: list[float] = []
    for number in range(_ROUNDS + 1):
        say(f"start, round {number} of {_ROUNDS}")
        base.append(_start(_BASE, given | environ))
        for name in TARGETS:
            code, arguments, extra = _how(name)
            ratios[name].append(_start(code, given | environ | extra, *arguments) / base[-1])
    # The first round compiles everything.
    rows = {name: spread_of(values[1:]) for name, values in ratios.items()}
    return {
        "seconds": spread_of(base[1:]).median,
        "rows": {name: [row.median, row.first, row.third] for name, row in rows.items()},
    }


def _how(name: str) -> tuple[str, list[str], dict[str, str]]:
    if name.startswith("completion"):
        words = "st" if name.endswith("command") else "status --"
        asked = {"COMP_WORDS": f"x {words}", "COMP_CWORD": f"{len(words.split())}"}
        return f"import sys; sys.argv[0] = 'fastapi-maintenance'\n{_COMMAND}", [], _COMPLETE | asked
    if name.startswith("import"):
        return (f"{_BASE}\n{_MIDDLEWARE}" if "and" in name else name), [], {}
    return _COMMAND, name.split(), {}


def _start(code: str, environ: Mapping[str, str], *arguments: str) -> float:
    """The processor time of a new process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environ,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _imports() -> dict[str, Any]:
    """The modules that an application gets by the middleware."""
    names = [
        subprocess.run(
            [sys.executable, "-c", _NAMES.format(code)], capture_output=True, text=True, check=True
        ).stdout.split()
        for code in (_BASE, f"{_BASE}\n{_MIDDLEWARE}")
    ]
    more = {*names[1]} - {*names[0]}
    return {
        "modules": len(names[0]),
        "more": len(more),
        "ours": sum(name.startswith("fastapi_maintenance") for name in more),
        "unwanted": sorted({name.partition(".")[0] for name in more} & {*_UNWANTED}),
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
