"""An application of which parts can be closed alone."""

from __future__ import annotations

import asyncio
import os

from fastapi import APIRouter, FastAPI

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    force_maintenance_mode_off,
    maintenance_component,
)

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware, announce=True)
billing = APIRouter(prefix="/billing")
reports = FastAPI()


@app.get("/")
async def general() -> int:
    """In no component."""
    return os.getpid()


@billing.get("/invoices")
async def invoices() -> int:
    """In the component of its router."""
    return os.getpid()


@billing.get("/slow")
async def slow(seconds: float) -> int:
    """So too, for a while."""
    await asyncio.sleep(seconds)
    return os.getpid()


@billing.get("/search")
@maintenance_component("search")
async def search() -> int:
    """In a component of its own within the router."""
    return os.getpid()


@reports.get("/all")
async def all_reports() -> int:
    """In the component of what is mounted."""
    return os.getpid()


@app.get("/slow")
async def slow_in_general(seconds: float) -> int:
    """In no component, for a while."""
    await asyncio.sleep(seconds)
    return os.getpid()


@app.get("/pid")
@force_maintenance_mode_off
async def pid() -> int:
    """Which process answers, always."""
    return os.getpid()


app.include_router(maintenance_component("billing")(billing))
app.mount("/reports", maintenance_component("reports")(reports))
