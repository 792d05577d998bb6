"""Workers that are in the registry and nowhere else."""

from __future__ import annotations

import json
from typing import Any, Final

from .servers import RedisServer

_RECORDED: Final = (
    "host",
    "pid",
    "boot",
    "namespace",
    "start",
    "instance",
    "started",
    "version",
    "fence",
    "lifetime",
)


def register(server: RedisServer, id: str, *, reports: bool = True, **known: Any) -> None:
    """Register a worker of which this is known, with one more report if it `reports`.

    Unless told otherwise it is waited for as one that reported just now, and it has known this
    registry for long.
    """
    server.cli("HSETNX", "{maintenance}:registry", "#generation", "g")
    generation = server.cli("HGET", "{maintenance}:registry", "#generation")
    known = {"lifetime": 600.0, "generation": generation, "known_for": 1e6} | known
    record = {name: value for name, value in known.items() if name in _RECORDED}
    report = {name: value for name, value in known.items() if name not in _RECORDED}
    server.cli("HSET", "{maintenance}:registry", id, json.dumps(record))
    if reports:
        sequence = int(server.cli("GET", f"{{maintenance}}:w:{id}").partition(" ")[0] or 0) + 1
        server.cli("SET", f"{{maintenance}}:w:{id}", f"{sequence} {json.dumps(report)}", "EX", 600)


def reports(server: RedisServer) -> list[str]:
    """The last reports of all workers that report."""
    return [server.cli("GET", key) for key in server.cli("KEYS", "{maintenance}:w:*").splitlines()]
