"""All that the panel shows at one moment, whole, so that whoever missed some of them misses nothing."""

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
_PASSING: Final[dict[str, Any]] = {  # what differs from one look to the next although nothing has changed
    "state": {"now": True, "retry_after": True, "holds": {"__all__": {"lease"}}, "switch": {"expires_in"}},
}


class Picture(BaseModel):
    """What is true now, as one worker sees it."""

    state: StateReport
    etag: str = Field(description="Of the switch, for If-Match.")
    override: bool | None = Field(description="What enable_maintenance says, which goes before the switch.")
    closed: bool = Field(description="Whether this worker is closed just now.")
    source: str = Field(description="Where that comes from: a backend, what was known last, or the policy for an outage.")
    trouble: str | None = Field(description="Why the backend cannot be asked just now: then this is what the worker knew last.")
    workers: list[WorkerReport] | None = Field(description="null where the backend keeps no registry, or cannot be asked.")
    scopes: list[ScopeReport]
    bypasses: list[Bypass]
    history: list[Change] | None = Field(description="The newest changes, newest first; null where none are recorded, or can be read.")
    grants_bypasses: bool
    operator: str | None = Field(description="Who is looking at it.")

    def shows_the_same_as(self, other: Picture | None) -> bool:
        """Whether nothing has changed but the time."""
        return other is not None and self.model_dump(exclude=_PASSING) == other.model_dump(exclude=_PASSING)


async def draw(mode: MaintenanceMode, operator: str | None = None) -> Picture:
    """Ask the backend; where that fails, show what this worker knows."""
    trouble, roll, changes = None, None, None
    try:
        reading, roll = await _look(mode)
        changes = await _history(mode)
        report = Report.of(mode.backend, reading)
    except Exception as error:  # a backend of a user's own may raise anything
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
        except UnsupportedError:  # what its server permits is less
            pass
    return await mode.backend.read(), None


async def _history(mode: MaintenanceMode) -> list[Change] | None:
    if not mode.backend.recorded:
        return None
    try:
        return Change.all_of(await mode.backend.history(limit=_CHANGES))
    except BackendError:  # what it was like is worth less than what it is like
        return None


def _known(mode: MaintenanceMode) -> Report:
    """What this worker was told last, with the time going on."""
    reading = mode.knowledge.reading
    if reading is None:
        return Report.of(mode.backend, Reading(None, None, time.time(), error="Nothing was ever heard of it."))
    return Report.of(mode.backend, reading, mode.now().timestamp())
