"""The commands `schedule list` and `schedule cancel`, about windows. `on --at` creates one."""

from __future__ import annotations

import asyncio
import json

import typer

from ..backends import BaseStateBackend
from ..backends.status import StatusReport, look
from .console import ExitCode, echo, exit_with, handle_errors
from .options import BackendOption, ComponentOption, JsonOption
from .render import window_line
from .switch import finish, turn_off

app = typer.Typer(
    help="List and cancel windows, in which maintenance starts or ends automatically."
)


@app.command("list")
def _list(
    backend: BackendOption, component: ComponentOption = None, as_json: JsonOption = False
) -> None:
    """Print the upcoming or current window, or nothing if there is none."""
    with handle_errors():
        report = _read(backend, component)
    if as_json:
        echo(json.dumps(report.windows_json(), indent=2))
    elif report.window is not None:
        echo(window_line(report, report.window))


@app.command("cancel")
def _cancel(backend: BackendOption, component: ComponentOption = None) -> None:
    """Cancel the upcoming window or end the current one, and print the resulting status.

    Exits with 1 if there is no window. Use 'off' if maintenance is on without an end.
    """
    with handle_errors():
        if _read(backend, component).window is None:
            exit_with("There is no window to cancel.", ExitCode.FAILED)
        finish(asyncio.run(turn_off(backend, component=component)))


def _read(backend: BaseStateBackend, component: str | None) -> StatusReport:
    report = asyncio.run(look(backend, component))
    if report.switch is None:
        exit_with(f"Cannot read the schedule: {report.reading.error}", ExitCode.FAILED)
    return report
