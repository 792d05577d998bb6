"""A small application behind the switch, as docker-compose.yml runs it in several processes on several hosts."""

from __future__ import annotations

import os
import socket

from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware, force_maintenance_mode_off

app = FastAPI(title="Example")
app.add_middleware(MaintenanceModeMiddleware)  # the backend is the one that FASTAPI_MAINTENANCE_BACKEND names


@app.get("/")
async def index() -> dict[str, str]:
    """Answer while the service is open."""
    return {"served by": f"{socket.gethostname()}, process {os.getpid()}"}


@app.get("/health")
@force_maintenance_mode_off
async def health() -> dict[str, str]:
    """Answer always: a host in maintenance is healthy, and must not be restarted for it."""
    return {"status": "ok"}
