"""Dashboard of the panel, and the stream of its changes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

from fastapi import APIRouter
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, Field

from .._internal.logging import error_text
from ..backends.base import WorkerRegistry, as_backend_error
from ..backends.status import StatusReport
from ..exceptions import BackendError, UnsupportedError
from ..exemptions.tokens import holding
from ..model.history import Change
from ..model.snapshot import Snapshot, with_stable_expiry
from ..model.state import BypassRecord
from ..model.workers import RegistrySnapshot
from ..runtime.mode import MaintenanceMode
from ..runtime.requests import untrack_current_request
from .dependencies import Mode, Operator
from .errors import responses
from .etags import etag_of
from .models import ComponentReport, StateReport, WorkerReport
from .security import PrivateRoute

_MAX_CHANGES: Final = 10
_MIN_PAUSE: Final = 0.1  # seconds between two reads, after a change
_MAX_PAUSE: Final = 0.5
_HEARTBEAT_INTERVAL: Final = 2.0
_LIFETIME: Final = 60.0  # seconds; when the panel reconnects, the guard is asked again
_VOLATILE: Final[dict[str, Any]] = {  # differs between two reads although nothing has changed
    "state": {
        "now": True,
        "retry_after": True,
        "changes_at": True,
        "holds": {"__all__": {"lease"}},
        "switch": {"expires_in"},
    },
}

router = APIRouter(route_class=PrivateRoute)


class Dashboard(BaseModel):
    """The current state, as one worker sees it."""

    state: StateReport
    etag: str = Field(description="Of the switch, for If-Match.")
    override: bool | None = Field(description="enable_maintenance, which overrides the switch.")
    closed: bool = Field(description="Whether this worker is closed.")
    source: str = Field(description="A backend, the last known state, or the outage policy.")
    last_error: str | None = Field(description="Why this is the last known state only.")
    workers: list[WorkerReport] | None = Field(description="null if there is no readable registry.")
    components: list[ComponentReport]
    bypasses: list[BypassRecord]
    history: list[Change] | None = Field(description="Newest first; null if it is unreadable.")
    warnings: list[str] = Field(description="Settings of the backend that may lose the switch.")
    grants_bypasses: bool
    operator: str | None = Field(description="The operator who requested it.")

    def shows_the_same_as(self, other: Dashboard | None) -> bool:
        """Return whether nothing but the time has changed."""
        if other is None:
            return False
        return self.model_dump(exclude=_VOLATILE) == other.model_dump(exclude=_VOLATILE)


@router.get("/events", response_class=EventSourceResponse, responses=responses())
async def get_events(mode: Mode, operator: Operator) -> AsyncIterator[Dashboard]:
    """Stream the dashboard: at once, after every change, and every two seconds."""
    untrack_current_request()  # else the panel would show its own request in flight
    async for dashboard in follow(mode, operator):
        yield dashboard


async def follow(
    mode: MaintenanceMode, operator: str | None = None, *, lifetime: float = _LIFETIME
) -> AsyncIterator[Dashboard]:
    """Read often after a change and less often later, until the lifetime or the server ends."""
    began, sent_at, pause = time.monotonic(), 0.0, _MIN_PAUSE
    sent: Dashboard | None = None
    while time.monotonic() - began < lifetime and not _server_is_stopping():
        dashboard = await read_dashboard(mode, operator)
        changed = not dashboard.shows_the_same_as(sent)
        if changed or time.monotonic() - sent_at >= _HEARTBEAT_INTERVAL:
            sent, sent_at = dashboard, time.monotonic()
            yield dashboard
        pause = _MIN_PAUSE if changed else min(_MAX_PAUSE, pause * 1.5)
        await asyncio.sleep(pause)


async def read_dashboard(mode: MaintenanceMode, operator: str | None = None) -> Dashboard:
    """Read the backend or, if that fails, return what this worker knows."""
    last_error, registry, changes = None, None, None
    try:
        snapshot, registry = await _read(mode)
        changes = await _read_history(mode)
        snapshot = with_stable_expiry(snapshot, mode.cache.snapshot)
        report = StatusReport.of(mode.backend, snapshot)
    except Exception as error:  # a custom backend may raise anything
        report = _last_known(mode)
        last_error = error_text(as_backend_error(error, mode.backend))
    gate = await mode.refresh()
    link = mode.backend.link_status(mode)
    return Dashboard(
        state=StateReport.of(report),
        etag=etag_of(report.reading),
        override=mode.enable_maintenance,
        closed=gate.closure is not None,
        source=gate.source,
        last_error=last_error,
        workers=None if registry is None else WorkerReport.all_of(registry),
        components=ComponentReport.all_of(report, mode.components),
        bypasses=[] if report.switch is None else [*holding(report.switch, report.now)],
        history=changes,
        warnings=[] if link is None else [*link.warnings],
        grants_bypasses=mode.granted.bypass is not None,
        operator=operator,
    )


async def _read(mode: MaintenanceMode) -> tuple[Snapshot, RegistrySnapshot | None]:
    if isinstance(mode.backend, WorkerRegistry):
        with suppress(UnsupportedError):  # its user may not run scripts
            registry = await mode.backend.read_registry()
            return registry.reading, registry
    return await mode.backend.read(), None


async def _read_history(mode: MaintenanceMode) -> list[Change] | None:
    try:
        return [*reversed(await mode.backend.history(limit=_MAX_CHANGES))]
    except BackendError:  # there is none, or the rest of the dashboard is worth more
        return None


def _last_known(mode: MaintenanceMode) -> StatusReport:
    snapshot = mode.cache.snapshot
    if snapshot is None:
        unknown = Snapshot(None, None, time.time(), error="No state was ever read.")
        return StatusReport.of(mode.backend, unknown)
    return StatusReport.of(mode.backend, snapshot, mode.now().timestamp())


def _server_is_stopping() -> bool:
    """Return whether uvicorn is stopping; it waits for responses before it tells applications."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
