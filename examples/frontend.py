"""A single-page frontend that stays while its API is closed, with a 404 handler for its pages."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from fastapi_maintenance import MaintenanceModeMiddleware, force_maintenance_mode_off

FILES: Final = Path(__file__).parent / "static"

app = FastAPI()
# The backend is the one that FASTAPI_MAINTENANCE_BACKEND names.
app.add_middleware(MaintenanceModeMiddleware)


@app.get("/api/orders")
async def orders() -> list[str]:
    """Answer while the service is open; closed, the frontend shows the message of the 503."""
    return ["tea", "cups"]


# Its files change nothing, so they stay. It is last, because it takes every path that is left.
app.mount("/", force_maintenance_mode_off(StaticFiles(directory=FILES, html=True)))


@app.exception_handler(404)
async def not_found(request: Request, error: HTTPException) -> Response:
    """Send the frontend for its own pages, like /orders/7, and JSON for the API."""
    if request.url.path.startswith("/api/"):
        return JSONResponse({"detail": error.detail}, 404)
    return FileResponse(FILES / "index.html")
