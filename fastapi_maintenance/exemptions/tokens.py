"""Issue, list and revoke bypass tokens, by compare-and-set on the switch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Final

from ..backends import BaseStateBackend
from ..backends.status import StatusReport, look
from ..exceptions import BackendError
from ..model.state import MAX_ALLOW_ENTRIES, BypassRecord, MaintenanceState
from .bypass import Bypass

_ATTEMPTS: Final = 5

Records = tuple[BypassRecord, ...]


class UnknownBypassError(BackendError):
    """The switch lists no such bypass."""


class NotGrantedError(BackendError):
    """The current switch does not allow the change."""


async def grant(
    backend: BaseStateBackend,
    bypass: Bypass,
    lasting: timedelta,
    note: str | None,
    component: str | None = None,
) -> tuple[str, BypassRecord, StatusReport]:
    """Add a new token to the switch, or to that of a component.

    Returns the token, its record, and the report before the change. Raises `BackendError`, also if
    the switch is off.
    """
    now = (await look(backend, component)).now
    try:
        token, record = bypass.issue(now + lasting, note)
    except OverflowError:
        raise NotGrantedError("The duration must end before the year 10000.") from None

    def with_it(records: Records) -> Records:
        if len(records) >= MAX_ALLOW_ENTRIES:
            raise NotGrantedError(
                f"A switch must have at most {MAX_ALLOW_ENTRIES} bypasses. Revoke some first."
            )
        return *records, record

    return token, record, await _change(backend, component, with_it)


async def granted(backend: BaseStateBackend, component: str | None = None) -> Records:
    """Return the valid bypasses, in general or for a component. Raises `BackendError`."""
    report = await look(backend, component)
    return holding(_switch_of(report), report.now)


async def revoke(
    backend: BaseStateBackend, ids: Collection[str] | None, component: str | None = None
) -> None:
    """Remove bypasses, or all with `None`. Raises `BackendError`."""

    def without(records: Records) -> Records:
        if unknown := set(ids or ()) - {record.id for record in records}:
            raise UnknownBypassError(
                f"Unknown bypass {', '.join(map(repr, sorted(unknown)))}. Run 'bypass list'."
            )
        return tuple(record for record in records if ids is not None and record.id not in ids)

    await _change(backend, component, without)


def holding(switch: MaintenanceState, now: datetime) -> Records:
    """Return the records of a switch that have not expired."""
    return tuple(record for record in switch.bypass or () if now < record.until)


async def _change(
    backend: BaseStateBackend, component: str | None, change: Callable[[Records], Records]
) -> StatusReport:
    """Replace the bypasses of the switch by compare-and-set."""
    for _ in range(_ATTEMPTS):
        report = await look(backend, component)
        switch = _switch_of(report)
        if component is not None and not report.has_own_switch:
            raise NotGrantedError(
                f"{component} has no switch of its own. "
                f"Run 'on --component {component}' first, or omit --component."
            )
        if not switch.enabled:
            raise NotGrantedError("The switch is off. Run 'on' first.")
        amended = switch.replace(bypass=change(holding(switch, report.now)) or None)
        if await backend.compare_and_set(
            report.reading, amended, component=component, keep_ttl=True
        ):
            return report
    raise NotGrantedError("The switch changed during every attempt. Try again.")


def _switch_of(report: StatusReport) -> MaintenanceState:
    if report.switch is None:
        raise BackendError(f"Cannot list the bypasses: {report.reading.error}")
    return report.switch
