"""The demo's application, and an example of how to use this library."""

from __future__ import annotations

import os

from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware, force_maintenance_mode_off, force_maintenance_mode_on

from . import witness

app = FastAPI(title="Maintenance demo", lifespan=witness.lifespan)
app.add_middleware(MaintenanceModeMiddleware)  # the switch is where the environment variable FASTAPI_MAINTENANCE_BACKEND says


@app.get("/")
async def index() -> dict[str, object]:
    """An ordinary route: 503 while maintenance is on."""
    return {"hello": "The service is open.", "worker": os.getpid()}


@app.get("/health")
@force_maintenance_mode_off
async def health() -> dict[str, str]:
    """Never in maintenance: a worker that is closed is healthy, and must not be restarted for it."""
    return {"status": "ok"}


@app.get("/reports")
@force_maintenance_mode_on
async def reports() -> None:
    """Always in maintenance: being rebuilt, whatever the switch says."""


app.include_router(witness.router)  # for the demo's table alone; an application of yours needs neither this nor the lifespan
