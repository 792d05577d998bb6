"""examples/webhook.py, with what the tests ask workers for."""

from __future__ import annotations

import os

from examples.webhook import app
from fastapi_maintenance import force_maintenance_mode_off


@app.get("/pid")
@force_maintenance_mode_off
async def pid() -> int:
    return os.getpid()
