"""Dashboard of the panel, and the stream of its changes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, Field

from .._internal.logging import error_text
from ..backends.base import WorkerRegistry, as_backend_error
from ..backends.status import StatusReport
from ..exceptions import BackendError, UnsupportedError
from ..exemptions.tokens import holding
from ..model.snapshot import Snapshot
from ..model.workers import RegistrySnapshot
from ..runtime.mode import MaintenanceMode
from ..runtime.requests import untrack_current_request
from .dependencies import Mode, Operator
from .errors import responses
from .etags import etag_of
from .models import Bypass, Change, ComponentReport, StateReport, WorkerReport
from .security import PrivateRoute

__all__ = ["Dashboard", "follow", "read_dashboard", "router"]

_CHANGES: Final = 10


_PASSING: Final[dict[str, Any]] = {  # differs between two reads although nothing has changed
    "state": {
        "now": True,
        "retry_after": True,
        "holds": {"__all__": {"lease"}},
        "switch": {"expires_in"},
    },
}


class Dashboard(BaseModel):
    """The current state, as one worker sees it."""

    state: StateReport
    etag: str = Field(description="Of the switch, for If-Match.")
    override: bool | None = Field(
        description="The value of enable_maintenance, which overrides the switch."
    )
    closed: bool = Field(description="Whether this worker is closed.")
    source: str = Field(
        description="Where that comes from: a backend, the last known state, or the outage policy."
    )
    trouble: str | None = Field(
        description="Why the backend cannot be read; the last known state is shown instead."
    )
    workers: list[WorkerReport] | None = Field(
        description="null without a registry, or if it cannot be read."
    )
    components: list[ComponentReport]
    bypasses: list[Bypass]
    history: list[Change] | None = Field(
        description="The latest changes, newest first; null without a history, or if it cannot be read."
    )
    grants_bypasses: bool
    operator: str | None = Field(description="The operator who requested it.")

    def shows_the_same_as(self, other: Dashboard | None) -> bool:
        """Return whether nothing but the time has changed."""
        return other is not None and self.model_dump(exclude=_PASSING) == other.model_dump(
            exclude=_PASSING
        )


async def read_dashboard(mode: MaintenanceMode, operator: str | None = None) -> Dashboard:
    """Read the backend or, if that fails, return what this worker knows."""
    trouble, roll, changes = None, None, None
    try:
        reading, roll = await _look(mode)
        changes = await _history(mode)
        report = StatusReport.of(mode.backend, reading)
    except Exception as error:  # a custom backend may raise anything
        report, trouble = _known(mode), error_text(as_backend_error(error, mode.backend))
    gate = await mode.refresh()
    records = () if report.switch is None else holding(report.switch, report.now)
    return Dashboard(
        state=StateReport.of(report),
        etag=etag_of(report.reading),
        override=mode.enable_maintenance,
        closed=gate.closure is not None,
        source=gate.source,
        trouble=trouble,
        workers=None if roll is None else WorkerReport.all_of(roll),
        components=ComponentReport.all_of(report, mode.components),
        bypasses=Bypass.all_of(records),
        history=changes,
        grants_bypasses=mode.granted.bypass is not None,
        operator=operator,
    )


async def _look(mode: MaintenanceMode) -> tuple[Snapshot, RegistrySnapshot | None]:
    if isinstance(mode.backend, WorkerRegistry):
        try:
            roll = await mode.backend.read_registry()
            return roll.reading, roll
        except UnsupportedError:  # its user may not run scripts
            pass
    return await mode.backend.read(), None


async def _history(mode: MaintenanceMode) -> list[Change] | None:
    if not mode.backend.recorded:
        return None
    try:
        return Change.all_of(await mode.backend.history(limit=_CHANGES))
    except BackendError:  # the rest of the dashboard is worth more
        return None


def _known(mode: MaintenanceMode) -> StatusReport:
    """Report the last known state, at the current time."""
    reading = mode.cache.snapshot
    if reading is None:
        return StatusReport.of(
            mode.backend, Snapshot(None, None, time.time(), error="No state was ever read.")
        )
    return StatusReport.of(mode.backend, reading, mode.now().timestamp())


_MIN_PAUSE: Final = 0.1  # seconds between two reads, after a change


_MAX_PAUSE: Final = 0.5


_HEARTBEAT: Final = 2.0


_LIFE: Final = 60.0  # seconds; when the panel reconnects, the guard is asked again


router = APIRouter(route_class=PrivateRoute)


@router.get("/events", response_class=EventSourceResponse, responses=responses())
async def get_events(mode: Mode, operator: Operator) -> AsyncIterator[Dashboard]:
    """Stream the dashboard as server-sent events: at once, after every change, and every two seconds."""
    untrack_current_request()  # else the panel would show its own request in flight
    async for picture in follow(mode, operator):
        yield picture


async def follow(
    mode: MaintenanceMode, operator: str | None = None, *, life: float = _LIFE
) -> AsyncIterator[Dashboard]:
    """Read often after a change and less often later, for `life` seconds or until the server stops."""
    began, sent_at, pause = time.monotonic(), 0.0, _MIN_PAUSE
    shown: Dashboard | None = None
    while time.monotonic() - began < life and not _server_is_stopping():
        picture = await read_dashboard(mode, operator)
        changed = not picture.shows_the_same_as(shown)
        if changed or time.monotonic() - sent_at >= _HEARTBEAT:
            shown, sent_at = picture, time.monotonic()
            yield picture
        pause = _MIN_PAUSE if changed else min(_MAX_PAUSE, pause * 1.5)
        await asyncio.sleep(pause)


def _server_is_stopping() -> bool:
    """Return whether uvicorn is stopping, for it waits for responses before it tells the application."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
