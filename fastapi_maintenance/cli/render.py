"""Render a status report as lines and tables."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from .._internal.logging import one_line
from ..backends import BaseStateBackend
from ..backends.base import ReplicaAck
from ..backends.status import StatusReport, describe_hold, label, look
from ..model.holds import Hold
from ..model.state import MaintenanceState
from .console import ExitCode, echo_error, exit_with, show
from .durations import show_moment, show_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

_COLOURS: Final = {"on": "red", "off": "green", "unknown": "yellow"}


def show_status(
    backend: BaseStateBackend, component: str | None, *, as_json: bool, exit_code: bool
) -> ExitCode:
    """Print whether maintenance is on, and return the exit code."""

    async def read() -> tuple[StatusReport, tuple[str, ...]]:
        return await look(backend, component), await backend.warnings()

    report, warnings = asyncio.run(read())
    show_report(report, warnings, as_json=as_json)
    if report.state is None:
        exit_with(
            f"Cannot determine the current state: {report.reading.error} "
            "Workers keep their last known state.",
            ExitCode.FAILED,
        )
    return ExitCode.ON if exit_code and report.state.enabled else ExitCode.DONE


def show_report(
    report: StatusReport, warnings: Sequence[str] = (), *, as_json: bool = False, **more: Any
) -> None:
    """Print a report as JSON with `more`, as lines for a pipe, or as a table on a terminal."""
    show(
        lambda: report.to_json() | {"warnings": warnings, **more},
        lambda: as_lines(report),
        lambda: as_tables(report),
        as_json=as_json,
    )
    for warning in warnings:
        echo_error(warning)


def as_lines(report: StatusReport) -> list[str]:
    """Return one fact per line, as `name: value`."""
    subject = f"maintenance of {report.component}" if report.component else "maintenance"
    facts = (subject, label(report.state)), *_facts(report)
    return [f"{name}: {value}" for name, value in facts]


def replicas_line(replicas: ReplicaAck) -> str:
    """Return how many replicas have acknowledged a write."""
    total = "" if replicas.connected is None else f" of {replicas.connected}"
    return f"replicas: {replicas.acknowledged}{total} have it"


def window_line(report: StatusReport, state: MaintenanceState) -> str:
    """Return the start and the end of a window, and its details."""
    if report.upcoming is not None:
        when = _window(report, state)
    elif state.ends_at is not None:
        when = f"on until {_moment(report, state.ends_at)}"
    else:
        when = "on without an end"
    details = [
        f"{name}: {one_line(text)}"
        for name in ("message", "reason", "by")
        if (text := getattr(state, name)) is not None
    ]
    return ", ".join([when, state.mode, *details])


def as_tables(report: StatusReport) -> RenderableType:
    """Return the effective state, and the facts as a table."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = label(report.state)
    subject = f"Maintenance of {report.component}" if report.component else "Maintenance"
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in _facts(report):
        table.add_row(Text(name), Text(value, style="yellow" if name == "error" else ""))
    return Group(Text(f"● {subject} is {shown}", style=f"bold {_COLOURS[shown]}"), table)


def _facts(report: StatusReport) -> Iterator[tuple[str, str]]:
    """Yield the facts in a fixed order, without those that are not set."""
    if report.state is not None and report.state.enabled:
        yield from _details(report, report.state)
    if report.decided_by is not None:
        yield "decided by", report.decided_by
    yield (
        "general switch" if report.component and not report.has_own_switch else "switch",
        _switch(report),
    )
    yield from (
        ("ignored", one_line(problem))
        for problem in (report.switch.ignored if report.switch else ())
    )
    if report.upcoming is not None:
        yield "coming", _window(report, report.upcoming)
    if report.holds is None:
        yield "holds", "unreadable"
    if report.reading.error is not None:
        yield "error", one_line(report.reading.error)
    yield "backend", one_line(report.url)
    for hold in report.holds or ():
        yield "hold", _hold_line(report, hold)


def _details(report: StatusReport, state: MaintenanceState) -> Iterator[tuple[str, str]]:
    yield "mode", state.mode
    for name in ("message", "reason", "by"):
        if (text := getattr(state, name)) is not None:
            yield name, one_line(text)
    if state.allow is not None:
        yield "allow", ", ".join(map(one_line, state.allow))
        from ..exemptions.allow_list import AllowList  # with FastAPI

        for problem in AllowList(state.allow).errors:
            yield "problem", one_line(problem)
    if state.bypass:
        yield "bypass", f"{len(state.bypass)}, as 'bypass list' shows"
    if state.since is not None:
        yield "since", _moment(report, state.since)
    if state.ends_at is not None:
        yield "until", _moment(report, state.ends_at)
    yield "retry-after", f"{report.retry_after} s"


def _switch(report: StatusReport) -> str:
    if report.switch is None:
        return "unreadable"
    left, starts_at, ends_at = report.expires_in, report.switch.starts_at, report.switch.ends_at
    shown = label(report.switch)
    if report.switch.enabled and ends_at is not None and ends_at <= report.now:
        shown += f", ended {_moment(report, ends_at)}"
    elif report.upcoming is not None:
        shown += ", not started yet"
    elif report.switch.enabled and starts_at is not None and report.now < starts_at:
        shown += ", but gone before its window begins"
    return shown if left is None else f"{shown}, {show_seconds(left)} left to live"


def _window(report: StatusReport, state: MaintenanceState) -> str:
    starts_at = state.starts_at
    assert starts_at is not None  # else it would not be coming
    end = "" if state.ends_at is None else f" until {show_moment(state.ends_at)}"
    return f"on from {_moment(report, starts_at)}{end}"


def _moment(report: StatusReport, moment: datetime) -> str:
    """Return a time, and its distance from now on the backend's clock."""
    away = (moment - report.now).total_seconds()
    distance = f"in {show_seconds(away)}" if away > 0 else f"{show_seconds(-away)} ago"
    return f"{show_moment(moment)} ({distance})"


def _hold_line(report: StatusReport, hold: Hold) -> str:
    state, left = hold.state, report.lease_of(hold)
    of = f"of {hold.component}" if hold.component else ""
    parts = [
        label(state),
        of,
        state.mode if state.enabled else "",
        f"by {describe_hold(hold)}",
        f"lease {'as long as its process lives' if left is None else f'{show_seconds(left)} left'}",
    ]
    return one_line(", ".join(filter(None, parts)))
