"""An application that must not start: its middleware has an option that cannot be meant."""

from __future__ import annotations

from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware, on_unreachable="maybe")  # type: ignore[arg-type] # as mypy says, too
