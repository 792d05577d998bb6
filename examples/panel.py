"""An application with an admin panel; scripts/panel and docker-compose.yml run it."""

from __future__ import annotations

import os
import socket
from secrets import compare_digest
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from fastapi_maintenance import MaintenanceModeMiddleware, force_maintenance_mode_off
from fastapi_maintenance.admin import maintenance_admin

PASSWORD = os.environ["PANEL_PASSWORD"].encode()


def operator(given: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> str:
    """Return the name of an operator who knows the password."""
    if not compare_digest(given.password.encode(), PASSWORD):
        raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})
    return given.username


app = FastAPI(title="Example")
# The backend is the one that FASTAPI_MAINTENANCE_BACKEND names.
app.add_middleware(MaintenanceModeMiddleware)
app.include_router(maintenance_admin(dependencies=[Depends(operator)], operator=operator))


@app.get("/")
async def index() -> dict[str, str]:
    """Answer while the service is open."""
    return {"served by": f"{socket.gethostname()}, process {os.getpid()}"}


@app.get("/health")
@force_maintenance_mode_off
async def health() -> dict[str, str]:
    """Answer always: a closed host is healthy, and must not be restarted."""
    return {"status": "ok"}
