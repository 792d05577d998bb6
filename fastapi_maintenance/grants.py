"""Granting bypasses: the switch names them, and nothing that somebody else writes into it meanwhile is lost."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Final

from .backends import BaseStateBackend
from .bypass import Bypass
from .exceptions import BackendError
from .report import Report, look
from .state import MOST_ALLOWED, BypassRecord, MaintenanceState

__all__ = ["NotGrantedError", "UnknownBypassError", "grant", "granted", "holding", "revoke"]

_ATTEMPTS: Final = 5

Records = tuple[BypassRecord, ...]


class UnknownBypassError(BackendError):
    """The switch names no such bypass."""


class NotGrantedError(BackendError):
    """What is there, or was asked for, lets no bypass be granted or revoked."""


async def grant(
    backend: BaseStateBackend, bypass: Bypass, lasting: timedelta, note: str | None, scope: str | None = None
) -> tuple[str, BypassRecord, Report]:
    """Let the switch, or that of a scope, which must be on, name a new token. Returns that, its record, and what was true before.

    Raises `BackendError`, also where the switch is off.
    """
    now = (await look(backend, scope)).now
    try:
        token, record = bypass.issue(now + lasting, note)
    except OverflowError:
        raise NotGrantedError("That would last beyond the calendar.") from None

    def with_it(records: Records) -> Records:
        if len(records) >= MOST_ALLOWED:
            raise NotGrantedError(f"There are {len(records)} bypasses already, the most there can be: revoke some first.")
        return *records, record

    return token, record, await _change(backend, scope, with_it)


async def granted(backend: BaseStateBackend, scope: str | None = None) -> Records:
    """The bypasses that hold now, in general or for a scope. Raises `BackendError`."""
    report = await look(backend, scope)
    return holding(_switch_of(report), report.now)


async def revoke(backend: BaseStateBackend, ids: Collection[str] | None, scope: str | None = None) -> None:
    """Let the switch, or that of a scope, name these no more; None for all. Raises `UnknownBypassError` or another `BackendError`."""

    def without(records: Records) -> Records:
        if unknown := set(ids or ()) - {record.id for record in records}:
            raise UnknownBypassError(f"There is no bypass {', '.join(map(repr, sorted(unknown)))}: 'bypass list' shows which there are.")
        return tuple(record for record in records if ids is not None and record.id not in ids)

    await _change(backend, scope, without)


def holding(switch: MaintenanceState, now: datetime) -> Records:
    """Those that a switch names and that have not run out."""
    return tuple(record for record in switch.bypass or () if now < record.until)


async def _change(backend: BaseStateBackend, scope: str | None, change: Callable[[Records], Records]) -> Report:
    """Write other bypasses into the switch, and nothing over what somebody else writes meanwhile."""
    for _ in range(_ATTEMPTS):
        report = await look(backend, scope)
        switch = _own_switch_of(report)
        records = change(holding(switch, report.now))
        amended = MaintenanceState(**dict(switch) | {"bypass": records or None})
        if await backend.compare_and_set(report.reading, amended, scope=scope, keep_ttl=True):
            return report
    raise NotGrantedError("Somebody else keeps changing the switch: try again.")


def _own_switch_of(report: Report) -> MaintenanceState:
    """The one that can name bypasses here."""
    switch = _switch_of(report)
    if report.scope is not None and not report.has_own_switch:
        raise NotGrantedError(f"{report.scope} has no switch of its own: run 'on --scope {report.scope}' first, or leave --scope out.")
    if not switch.enabled:
        raise NotGrantedError("The switch is off, so there is nothing to bypass: run 'on' first.")
    return switch


def _switch_of(report: Report) -> MaintenanceState:
    if report.switch is None:
        raise BackendError(f"Which bypasses there are cannot be said: {report.reading.error}")
    return report.switch
