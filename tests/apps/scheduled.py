"""An application that announces the windows of its switch."""

from __future__ import annotations

import os

from fastapi import FastAPI

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    force_maintenance_mode_off,
    maintenance_component,
)

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware, announce=True)


@app.get("/")
async def gated() -> int:
    """Which process answers, while it is open."""
    return os.getpid()


@app.get("/billing")
@maintenance_component("billing")
async def billing() -> int:
    """The same in a component."""
    return os.getpid()


@app.get("/pid")
@force_maintenance_mode_off
async def pid() -> int:
    """Which process answers, always."""
    return os.getpid()
