"""Starts workers quickly: a process that has imported everything, and forks one for each line on
its standard input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware, force_maintenance_mode_off
from fastapi_maintenance.runtime.cache import OutagePolicy, SnapshotCache
from tests.support.waiting import eventually


def make_app(url: str, policy: OutagePolicy, stale_after: float) -> FastAPI:
    """The application under the checker."""
    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware, backend=url, on_unreachable=policy, stale_after=stale_after
    )

    @app.get("/")
    async def gated() -> int:
        return os.getpid()

    @app.get("/slow")
    async def slow(seconds: float, until: Path | None = None) -> int:
        with suppress(AssertionError):  # its time is up
            await eventually(
                lambda: until is not None and until.exists(), within=seconds, every=0.02
            )
        return os.getpid()

    @app.get("/alive")
    @force_maintenance_mode_off
    async def alive() -> int:
        return os.getpid()

    return app


def break_fence() -> None:
    """Let a worker believe that it is always up to date: what the checker must notice."""

    def always_now(self: SnapshotCache, now: float) -> float:
        return now

    SnapshotCache.confirmed_at = always_now  # type: ignore[method-assign]


def serve(order: dict[str, Any]) -> None:
    """Be one worker until terminated."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if order["broken"]:
        break_fence()
    app = make_app(order["url"], order["policy"], order["stale_after"])
    config = uvicorn.Config(
        app, uds=order["socket"], log_level="critical", timeout_graceful_shutdown=2
    )
    uvicorn.Server(config).run()


def main() -> None:
    """Fork a worker for each order, and answer with its process id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, 0)
            # Else the nursery's own pipe would stay open for as long as any worker lives.
            os.dup2(nowhere, 1)
            try:
                serve(json.loads(line))
            finally:
                os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
