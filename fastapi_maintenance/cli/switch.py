"""Turn the switch on and off, and windows: the commands `on`, `off` and `schedule`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

import typer

from ..backends import BaseStateBackend
from ..backends.base import ReplicaAck
from ..backends.status import StatusReport, describe_hold, look
from ..model.holds import Hold
from ..model.state import OFF, MaintenanceState
from .console import ExitCode, echo, echo_json, exit_with
from .durations import parse_until
from .options import operator
from .render import replicas_line, show_report, window_line

_MAX_NAMED_HOLDS: Final = 5
_REPLICA_TIMEOUT: Final = 1.0  # seconds

_WOULD_OPEN: Final = (
    "The switch is on already. A window would turn it off until the start, so nothing was changed. "
    "Run 'off' first to replace it by the window."
)
_TOO_LATE: Final = (
    "The end would be beyond the calendar, so nothing was changed. Use a shorter --for, or none."
)
_CHANGED_AGAIN: Final = (
    "The switch was written, and then changed by another operator. See 'status' and try again."
)


def turn_on(
    backend: BaseStateBackend,
    *,
    component: str | None,
    at: str | None,
    until: str | None,
    length: timedelta | None,
    allow: list[str] | None,
    by: str | None,
    wait: bool,
    drained: bool,
    timeout: float,
    allow_unfenced: bool,
    as_json: bool,
    **details: Any,
) -> None:
    """Turn the switch on from `at` to `until`, or for a `length`, and print the status."""
    if length is not None and until is not None:
        raise typer.BadParameter("both set the end. Use one.", param_hint="--for and --until")
    if at is not None and (wait or drained):
        raise typer.BadParameter(
            "nothing closes before the start. Use one.", param_hint="--at and --wait"
        )
    starts_at, ends_at = _window(at, until)
    state = MaintenanceState(
        enabled=True,
        starts_at=starts_at,
        ends_at=ends_at,
        allow=None if allow is None else tuple(allow),
        by=by or operator(),
        **details,
    )

    async def write() -> tuple[StatusReport, str, ReplicaAck | None, tuple[str, ...]]:
        return *await _write_on(backend, state, length, component), await backend.warnings()

    report, problem, replicas, warnings = asyncio.run(write())
    acks = None if replicas is None else asdict(replicas)
    show_report(report, warnings, as_json=as_json, replicas=acks)
    if replicas is not None and not as_json:
        echo(replicas_line(replicas))
    if problem:
        exit_with(problem, ExitCode.FAILED)
    if wait or drained:
        from .workers import wait_for_workers

        result = wait_for_workers(
            backend, silent=as_json, component=component, drained=drained, timeout=timeout
        )
        result.check(strict=not allow_unfenced)


def turn_off(
    backend: BaseStateBackend, *, force: bool = False, component: str | None = None
) -> None:
    """Turn a switch off, with `force` also end all holds, and print the status."""
    if force and component is not None:
        raise typer.BadParameter(
            "--force ends the holds of all components. Use one.",
            param_hint="--force and --component",
        )

    async def write_off() -> StatusReport:
        if component is not None:
            await backend.write_component(component, OFF)
        elif force:
            await backend.clear()
        else:
            await backend.write(OFF)
        return await look(backend, component)

    report = asyncio.run(write_off())
    show_report(report)
    if problem := _why_not_off(report):
        exit_with(problem, ExitCode.FAILED)


def list_windows(backend: BaseStateBackend, component: str | None, *, as_json: bool) -> None:
    """Print the upcoming or current window, if there is one."""
    report = _read_schedule(backend, component)
    if as_json:
        echo_json(report.windows_json())
    elif report.window is not None:
        echo(window_line(report, report.window))


def cancel_window(backend: BaseStateBackend, component: str | None) -> None:
    """Turn off a switch that has a window."""
    if _read_schedule(backend, component).window is None:
        exit_with("There is no window to cancel.", ExitCode.FAILED)
    turn_off(backend, component=component)


def _read_schedule(backend: BaseStateBackend, component: str | None) -> StatusReport:
    report = asyncio.run(look(backend, component))
    if report.switch is None:
        exit_with(f"Cannot read the schedule: {report.reading.error}", ExitCode.FAILED)
    return report


async def _write_on(
    backend: BaseStateBackend,
    state: MaintenanceState,
    length: timedelta | None,
    component: str | None,
) -> tuple[StatusReport, str, ReplicaAck | None]:
    """Return the status, why maintenance is not on, or "", and which replicas have the state."""
    # Windows are judged by the backend's clock, so `length` counts from there, not from this
    # host's.
    before = await look(backend, component)
    own = component is None or before.has_own_switch
    if state.starts_at is not None and before.switch_is_on and own:
        return before, _WOULD_OPEN, None
    state = state.replace(since=before.now.replace(microsecond=0))
    if length is not None:
        # An end, not a time to live of the key: it can still be read when it is over, and it
        # survives an edit with a plain SET and a copy to another server.
        try:
            state = state.replace(ends_at=(state.starts_at or before.now) + length)
        except OverflowError:
            return before, _TOO_LATE, None
    replicas = None
    if component is None:
        replicas = await backend.write_replicated(state, within=_REPLICA_TIMEOUT)
    else:
        await backend.write_component(component, state)
    report = await look(backend, component)
    return report, _why_not_on(report, state), replicas


def _window(at: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    now = datetime.now().astimezone()
    name = "--at"
    try:
        starts_at = None if at is None else parse_until(at, now)
        name = "--until"
        return starts_at, None if until is None else parse_until(until, now, starts_at)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name) from None


def _why_not_on(report: StatusReport, asked: MaintenanceState) -> str:
    if report.switch != asked:
        return _CHANGED_AGAIN
    if report.state is None:
        return f"The switch is on, but the effective state is unknown: {report.reading.error}"
    if report.state.enabled or report.upcoming is not None:
        return ""
    if report.deciding:
        return (
            f"The switch is on, but maintenance stays off because of {_named(report.deciding)}. "
            "It starts when they end. To end them now, run 'off --force' and then 'on' again."
        )
    return (
        "The switch is on, but its end is over already: "
        f"on {report.url} it is {report.now:%Y-%m-%d %H:%M:%S} UTC."
    )


def _why_not_off(report: StatusReport) -> str:
    own = report.component is None or report.has_own_switch
    if own and report.switch is not None and report.switch.enabled:
        return _CHANGED_AGAIN
    if report.state is None:
        return f"The switch is off, but the effective state is unknown: {report.reading.error}"
    if not report.state.enabled:
        return ""
    if not report.deciding:
        return (
            "The component has no switch of its own any more, but maintenance stays on because of "
            "the general one. See 'status'."
        )
    return (
        f"The switch is off, but maintenance stays on because of {_named(report.deciding)}. "
        "It ends when they do. To end them now, run 'off --force'."
    )


def _named(holds: Sequence[Hold]) -> str:
    names = ", ".join(describe_hold(hold) for hold in holds[:_MAX_NAMED_HOLDS])
    more = len(holds) - _MAX_NAMED_HOLDS
    rest = f" and {more} more" if more > 0 else ""
    return f"{len(holds)} {'hold' if len(holds) == 1 else 'holds'}: {names}{rest}"
