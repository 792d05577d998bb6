"""An application behind the switch that the environment names; who may ask it can also hold it
closed, and let go.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from typing import Final

from fastapi import FastAPI

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    force_maintenance_mode_off,
    maintenance_mode_on,
)

LEASE: Final = 6.0  # seconds

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware)
app.state.blocks = {}


@app.get("/")
async def gated() -> int:
    """Which process answers, while it is open."""
    return os.getpid()


@app.get("/pid")
@force_maintenance_mode_off
async def pid() -> int:
    """Which process answers, always."""
    return os.getpid()


@app.put("/blocks/{name}")
@force_maintenance_mode_off
async def enter(name: str) -> None:
    """Enter a block in which maintenance is on."""
    block = app.state.blocks[name] = AsyncExitStack()
    await block.enter_async_context(maintenance_mode_on(lease=LEASE))


@app.delete("/blocks/{name}")
@force_maintenance_mode_off
async def leave(name: str) -> None:
    """Leave it again."""
    await app.state.blocks.pop(name).aclose()
