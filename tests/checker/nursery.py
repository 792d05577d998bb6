"""Starts workers quickly: a process that has imported everything, and forks one for each line on
its standard input.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import MaintenanceModeMiddleware, maintenance_component
from fastapi_maintenance.runtime.gate import OutagePolicy

from ..support.waiting import eventually
from .variants import VARIANTS


class Stray:
    """A middleware inside the maintenance mode that answers a path without a route itself."""

    def __init__(self, app: ASGIApp, log: int) -> None:
        self._app, self._log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/stray":
            return await self._app(scope, receive, send)
        seconds = float(Request(scope).query_params["seconds"])
        return await JSONResponse(await work("stray", seconds, self._log))(scope, receive, send)


async def work(kind: str, seconds: float, log: int, until: Path | None = None) -> int:
    """Take that long, or until there is a file, and log when that was.

    All processes share the monotonic clock.
    """
    begun = time.monotonic()
    try:
        if until is None:
            await asyncio.sleep(seconds)
        else:
            with suppress(AssertionError):  # its time is up
                await eventually(until.exists, within=seconds, every=0.02)
    finally:
        os.write(log, f"{os.getpid()} {kind} {begun} {time.monotonic()}\n".encode())
    return os.getpid()


def make_app(url: str, policy: OutagePolicy, stale_after: float, log: int) -> FastAPI:
    """The application under the checker."""
    app, billing = FastAPI(), APIRouter(prefix="/billing")
    app.add_middleware(Stray, log=log)
    app.add_middleware(
        MaintenanceModeMiddleware, backend=url, on_unreachable=policy, stale_after=stale_after
    )

    @billing.get("")
    @app.get("/")
    async def gated() -> int:
        return os.getpid()

    @app.get("/slow")
    async def slow(seconds: float, until: Path | None = None) -> int:
        return await work("general", seconds, log, until)

    @billing.get("/slow")
    async def slow_billing(seconds: float) -> int:
        return await work("billing", seconds, log)

    app.include_router(maintenance_component("billing")(billing))
    return app


def serve(order: dict[str, Any]) -> None:
    """Be one worker until terminated."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if order["variant"]:
        VARIANTS[order["variant"]].apply()
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    app = make_app(order["url"], order["policy"], order["stale_after"], log)
    config = uvicorn.Config(
        app, uds=order["socket"], ws="none", log_level="critical", timeout_graceful_shutdown=2
    )
    uvicorn.Server(config).run()


def main() -> None:
    """Fork a worker for each order, and answer with its process id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    # Load now what each worker would load for itself.
    uvicorn.Config(make_app("redis://127.0.0.1:1", "closed", 2.0, 0), ws="none").load()
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            nowhere = os.open(os.devnull, os.O_RDWR)
            # Else the pipes of the nursery would stay open for as long as any worker lives.
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            try:
                serve(json.loads(line))
            finally:
                os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
