"""Dashboard: everything that the panel shows, whole, so that a missed event loses nothing."""

from __future__ import annotations

import time
from typing import Any, Final

from pydantic import BaseModel, Field

from ..backends.base import WorkerRegistry, as_backend_error
from ..exceptions import BackendError, UnsupportedError, why
from ..grants import holding
from ..mode import MaintenanceMode
from ..registry import RollCall
from ..report import Report
from ..snapshot import Reading
from .models import Bypass, Change, ScopeReport, StateReport, WorkerReport
from .tags import etag_of

__all__ = ["Picture", "draw"]

_CHANGES: Final = 10
_PASSING: Final[dict[str, Any]] = {  # differs between two reads although nothing has changed
    "state": {"now": True, "retry_after": True, "holds": {"__all__": {"lease"}}, "switch": {"expires_in"}},
}


class Picture(BaseModel):
    """The current state, as one worker sees it."""

    state: StateReport
    etag: str = Field(description="Of the switch, for If-Match.")
    override: bool | None = Field(description="The value of enable_maintenance, which overrides the switch.")
    closed: bool = Field(description="Whether this worker is closed.")
    source: str = Field(description="Where that comes from: a backend, the last known state, or the outage policy.")
    trouble: str | None = Field(description="Why the backend cannot be read; the last known state is shown instead.")
    workers: list[WorkerReport] | None = Field(description="null without a registry, or if it cannot be read.")
    scopes: list[ScopeReport]
    bypasses: list[Bypass]
    history: list[Change] | None = Field(description="The latest changes, newest first; null without a history, or if it cannot be read.")
    grants_bypasses: bool
    operator: str | None = Field(description="The operator who requested it.")

    def shows_the_same_as(self, other: Picture | None) -> bool:
        """Return whether nothing but the time has changed."""
        return other is not None and self.model_dump(exclude=_PASSING) == other.model_dump(exclude=_PASSING)


async def draw(mode: MaintenanceMode, operator: str | None = None) -> Picture:
    """Read the backend or, if that fails, return what this worker knows."""
    trouble, roll, changes = None, None, None
    try:
        reading, roll = await _look(mode)
        changes = await _history(mode)
        report = Report.of(mode.backend, reading)
    except Exception as error:  # a custom backend may raise anything
        report, trouble = _known(mode), why(as_backend_error(error, mode.backend))
    gate = await mode.refresh()
    records = () if report.switch is None else holding(report.switch, report.now)
    return Picture(
        state=StateReport.of(report),
        etag=etag_of(report.reading),
        override=mode.enable_maintenance,
        closed=gate.closing is not None,
        source=gate.source,
        trouble=trouble,
        workers=None if roll is None else WorkerReport.all_of(roll),
        scopes=ScopeReport.all_of(report, mode.scopes),
        bypasses=Bypass.all_of(records),
        history=changes,
        grants_bypasses=mode.guests.bypass is not None,
        operator=operator,
    )


async def _look(mode: MaintenanceMode) -> tuple[Reading, RollCall | None]:
    if isinstance(mode.backend, WorkerRegistry):
        try:
            roll = await mode.backend.roll_call()
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


def _known(mode: MaintenanceMode) -> Report:
    """Report the last known state, at the current time."""
    reading = mode.knowledge.reading
    if reading is None:
        return Report.of(mode.backend, Reading(None, None, time.time(), error="No state was ever read."))
    return Report.of(mode.backend, reading, mode.now().timestamp())
