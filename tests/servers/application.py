"""An application with one of everything that a closing concerns, for every server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    force_maintenance_mode_off,
    maintenance_mode_on,
)

IMPORTED_BY: Final = os.getpid()
BUSY: Final = Path("busy")  # exists once the slow request is in flight
RELEASED: Final = Path("released")  # lets it end


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.started = True
    yield


app = FastAPI(lifespan=lifespan)
app.state.started = False
app.add_middleware(MaintenanceModeMiddleware, close_websockets=0.1, close_streams=0.1)


@app.api_route("/", methods=["GET", "HEAD"])
async def gated() -> str:
    """Is refused while closed."""
    return "open"


@app.get("/pid")
@force_maintenance_mode_off
async def pid() -> int:
    """Which process answers."""
    return os.getpid()


@app.get("/imported-by")
@force_maintenance_mode_off
async def imported_by() -> int:
    """Which process imported the application."""
    return IMPORTED_BY


@app.get("/started")
@force_maintenance_mode_off
async def started() -> bool:
    """Whether the server sent lifespan events."""
    return bool(app.state.started)


@app.get("/slow")
async def slow() -> str:
    """Stays in flight until it is released."""
    BUSY.touch()
    while not RELEASED.exists():  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(0.01)
    return "done"


@app.get("/ticks")
async def ticks() -> StreamingResponse:
    """A stream without an end."""

    async def forever() -> AsyncIterator[str]:
        while True:
            yield "tick "
            await asyncio.sleep(0.01)

    return StreamingResponse(forever())


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    """A WebSocket without an end."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


@app.get("/migrate")
@force_maintenance_mode_off
async def migrate() -> str:
    """Hold the service closed, and drain it."""
    async with maintenance_mode_on(drain=30):
        return "migrated"
