"""The worker's side of the measurement: when its gate last changed, and a route that tells."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel

from ..decorators import force_maintenance_mode_off
from ..mode import MaintenanceMode, mode_at_hand

__all__ = ["PATH", "Statement", "Witness", "lifespan", "router"]

PATH: Final = "/demo/worker"


class Statement(BaseModel):
    """What a worker says of itself. `changed_at` is a monotonic time, which all processes of one machine have in common.

    `trouble` is why it cannot read the switch; empty if it can.
    """

    pid: int
    enabled: bool
    source: str
    changes: int
    changed_at: float
    trouble: str = ""


class Witness(logging.Handler):
    """Notes when a gate changes. The library logs one line for each change, at once and where it happens."""

    def __init__(self, mode: MaintenanceMode) -> None:
        super().__init__(logging.INFO)
        self._mode = mode
        self._closing = mode.gate.closing
        self._changes = 0
        self._changed_at = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Note the time if this line is about a change."""
        now = time.monotonic()
        if (closing := self._mode.gate.closing) is not self._closing:
            self._closing, self._changes, self._changed_at = closing, self._changes + 1, now

    def speak(self) -> Statement:
        """Tell what is known."""
        reading = self._mode.knowledge.reading
        return Statement(
            pid=os.getpid(),
            enabled=self._mode.gate.closing is not None,
            source=self._mode.gate.source,
            changes=self._changes,
            changed_at=self._changed_at,
            trouble=(reading.error if reading is not None else None) or "",
        )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have a witness for as long as the application lives."""
    mode = mode_at_hand()
    assert mode is not None, "The application has no MaintenanceModeMiddleware."
    logger = logging.getLogger("fastapi_maintenance")
    level = logger.level
    app.state.witness = witness = Witness(mode)
    logger.setLevel(logging.INFO)
    logger.addHandler(witness)
    try:
        yield
    finally:
        logger.removeHandler(witness)
        logger.setLevel(level)


router = APIRouter(include_in_schema=False)


@router.get(PATH)
@force_maintenance_mode_off
async def worker(request: Request) -> Statement:
    """What this worker goes by, and since when."""
    witness: Witness = request.app.state.witness
    return witness.speak()
