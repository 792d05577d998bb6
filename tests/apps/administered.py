"""An application that operators administer in the browser, behind HTTP Basic."""

from __future__ import annotations

import asyncio
import os
from secrets import compare_digest
from typing import Annotated, Final

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    force_maintenance_mode_off,
    maintenance_component,
)
from fastapi_maintenance.admin import maintenance_admin
from fastapi_maintenance.exemptions.bypass import Bypass

PASSWORD: Final = "correct horse"


def operator(given: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> str:
    """Whoever knows the password, by the name they give."""
    if not compare_digest(given.password.encode(), PASSWORD.encode()):
        raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})
    return given.username


app = FastAPI()
app.add_middleware(
    MaintenanceModeMiddleware, bypass=Bypass("0123456789abcdef0123456789abcdef", secure=False)
)
app.include_router(maintenance_admin(dependencies=[Depends(operator)], operator=operator))


@app.get("/", response_class=HTMLResponse)
async def shop() -> str:
    """What visitors come for."""
    return '<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>The shop</title>'


@app.get("/billing")
@maintenance_component("billing")
async def billing() -> int:
    """A part that can be closed alone."""
    return os.getpid()


@app.get("/slow")
async def slow(seconds: float) -> int:
    """Work that takes its time."""
    await asyncio.sleep(seconds)
    return os.getpid()


@app.get("/pid")
@force_maintenance_mode_off
async def pid() -> int:
    """Which process answers, always."""
    return os.getpid()
