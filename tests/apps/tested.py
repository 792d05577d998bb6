"""An application behind the switch that the environment names, with a bypass whose secret the
environment has.
"""

from __future__ import annotations

import os

from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware, force_maintenance_mode_off
from fastapi_maintenance.exemptions.bypass import Bypass

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware, bypass=Bypass())


@app.get("/")
async def gated() -> int:
    """Which process answers, while it is open or for testers."""
    return os.getpid()


@app.get("/pid")
@force_maintenance_mode_off
async def pid() -> int:
    """Which process answers, always."""
    return os.getpid()
