"""Issue, list and revoke bypass tokens, by compare-and-set on the switch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Final

from ..backends import BaseStateBackend
from ..backends.status import Report, look
from ..exceptions import BackendError
from ..model.state import MOST_ALLOWED, BypassRecord, MaintenanceState
from .bypass import Bypass

__all__ = ["NotGrantedError", "UnknownBypassError", "grant", "granted", "holding", "revoke"]

_ATTEMPTS: Final = 5

Records = tuple[BypassRecord, ...]


class UnknownBypassError(BackendError):
    """The switch lists no such bypass."""


class NotGrantedError(BackendError):
    """The current switch does not allow the change."""


async def grant(
    backend: BaseStateBackend, bypass: Bypass, lasting: timedelta, note: str | None, scope: str | None = None
) -> tuple[str, BypassRecord, Report]:
    """Add a new token to the switch, or to that of a scope. Returns the token, its record, and the report before the change.

    Raises `BackendError`, also if the switch is off.
    """
    now = (await look(backend, scope)).now
    try:
        token, record = bypass.issue(now + lasting, note)
    except OverflowError:
        raise NotGrantedError("The duration must end before the year 10000.") from None

    def with_it(records: Records) -> Records:
        if len(records) >= MOST_ALLOWED:
            raise NotGrantedError(f"A switch must have at most {MOST_ALLOWED} bypasses. Revoke some first.")
        return *records, record

    return token, record, await _change(backend, scope, with_it)


async def granted(backend: BaseStateBackend, scope: str | None = None) -> Records:
    """Return the valid bypasses, in general or for a scope. Raises `BackendError`."""
    report = await look(backend, scope)
    return holding(_switch_of(report), report.now)


async def revoke(backend: BaseStateBackend, ids: Collection[str] | None, scope: str | None = None) -> None:
    """Remove bypasses from the switch, or from that of a scope; `None` removes all. Raises `BackendError`."""

    def without(records: Records) -> Records:
        if unknown := set(ids or ()) - {record.id for record in records}:
            raise UnknownBypassError(f"Unknown bypass {', '.join(map(repr, sorted(unknown)))}. Run 'bypass list'.")
        return tuple(record for record in records if ids is not None and record.id not in ids)

    await _change(backend, scope, without)


def holding(switch: MaintenanceState, now: datetime) -> Records:
    """Return the records of a switch that have not expired."""
    return tuple(record for record in switch.bypass or () if now < record.until)


async def _change(backend: BaseStateBackend, scope: str | None, change: Callable[[Records], Records]) -> Report:
    """Replace the bypasses of the switch by compare-and-set."""
    for _ in range(_ATTEMPTS):
        report = await look(backend, scope)
        switch = _own_switch_of(report)
        records = change(holding(switch, report.now))
        amended = MaintenanceState(**dict(switch) | {"bypass": records or None})
        if await backend.compare_and_set(report.reading, amended, scope=scope, keep_ttl=True):
            return report
    raise NotGrantedError("The switch changed during every attempt. Try again.")


def _own_switch_of(report: Report) -> MaintenanceState:
    """Return the switch that lists the bypasses."""
    switch = _switch_of(report)
    if report.scope is not None and not report.has_own_switch:
        raise NotGrantedError(f"{report.scope} has no switch of its own. Run 'on --scope {report.scope}' first, or omit --scope.")
    if not switch.enabled:
        raise NotGrantedError("The switch is off. Run 'on' first.")
    return switch


def _switch_of(report: Report) -> MaintenanceState:
    if report.switch is None:
        raise BackendError(f"Cannot list the bypasses: {report.reading.error}")
    return report.switch
