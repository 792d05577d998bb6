"""The environments of the subjects, and their versions."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.support.ports import free_port
from tests.support.waiting import eventually_sync

_SUBJECTS: Final = Path(__file__).with_name("subjects.py")
_PEERS: Final = Path(sys.prefix) / "peers"  # where scripts/bench makes them
OURS: Final = "ours"
PEERS: Final = ("modelled", "waygate")
_ASK: Final = """
import json, platform, sys
from importlib.metadata import distributions
found = {one.metadata["Name"].lower(): one.version for one in distributions()}
print(json.dumps({"python": platform.python_version(), **{name: found[name] for name in sys.argv[1:] if name in found}}))
"""
_PACKAGES: Final = ("fastapi", "starlette", "uvicorn", "redis", "hiredis", "uvloop", "httptools")
_PACKAGES_COMPARED: Final = (*_PACKAGES, "fastapi-maintenance", "waygate")


def python_of(environment: str) -> Path:
    """Its interpreter, whether it is there or not."""
    return Path(sys.executable) if environment == OURS else _PEERS / environment / "bin" / "python"


def versions_of(environment: str) -> dict[str, str]:
    """What is installed of what matters, with the interpreter; empty where the environment is missing."""
    if not python_of(environment).exists():
        return {}
    done = subprocess.run(
        [python_of(environment), "-c", _ASK, *_PACKAGES_COMPARED],
        capture_output=True,
        text=True,
        check=True,
    )
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


class Served(NamedTuple):
    """A server of a subject."""

    pid: int
    port: int


class Racers:
    """Starts subjects in their environments, all behind one Redis and one file."""

    def __init__(
        self, redis: str, directory: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        settings = {"BENCHMARK_REDIS": redis, "BENCHMARK_FILE": str(directory / "maintenance.json")}
        given = {**os.environ, **(environ or {})}
        self._environ = {**given, **settings, "PYTHONDONTWRITEBYTECODE": "1"}

    def race(
        self, environment: str, environ: Mapping[str, str] | None = None, **options: Any
    ) -> dict[str, list[tuple[float, float]]]:
        """The times of each subject in each round: (clock, processor), in seconds a request."""
        command = python_of(environment), "-P", _SUBJECTS, "race", json.dumps(options)
        done = subprocess.run(
            command,
            env={**self._environ, **(environ or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"the race in {environment} failed: {done.stderr[-2000:]}")
        times: dict[str, list[tuple[float, float]]] = json.loads(done.stdout)
        return times

    @contextmanager
    def serving(self, environment: str, subject: str) -> Iterator[Served]:
        """Serve a subject over uvicorn, in one process."""
        port = free_port()
        command = python_of(environment), "-P", _SUBJECTS, "serve", subject, str(port)
        server = subprocess.Popen(command, env=self._environ, stdout=subprocess.DEVNULL)
        try:
            eventually_sync(lambda: _answers(port), within=60, every=0.1)
            yield Served(server.pid, port)
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
            probe.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return probe.recv(32).startswith((b"HTTP/1.1 200", b"HTTP/1.1 503"))
    except OSError:
        return False
