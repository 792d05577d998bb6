"""The commands about windows: `schedule list` and `schedule cancel`. `on --at` makes one."""

from __future__ import annotations

import asyncio
import json

import typer

from ..backends.status import StatusReport, look
from .console import ExitCode, echo
from .options import BackendOption, ComponentOption, FilePathOption, JsonOption, VarNameOption
from .render import finish, window_line
from .shared import exit_with, handle_errors, open_target
from .switch import turn_off

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    windows = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="See and cancel windows, in which maintenance begins or ends by itself.",
    )
    windows.command("list")(_list)
    windows.command("cancel")(_cancel)
    app.add_typer(windows, name="schedule")


def _list(
    ctx: typer.Context,
    component: ComponentOption = None,
    as_json: JsonOption = False,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Print the window that is coming or has begun; nothing where there is none."""
    with handle_errors():
        report = _readable(
            asyncio.run(look(open_target(ctx, backend, var_name, file_path, component), component))
        )
    if as_json:
        echo(json.dumps(report.windows_json(), indent=2))
    elif report.window is not None:
        echo(window_line(report, report.window))


def _cancel(
    ctx: typer.Context,
    component: ComponentOption = None,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Cancel the window that is coming, or end the one that has begun, and print what is true afterwards.

    Fails with exit code 1 if there is none, also where maintenance is on without an end: that is turned off with 'off'.
    """
    with handle_errors():
        target = open_target(ctx, backend, var_name, file_path, component)
        if _readable(asyncio.run(look(target, component))).window is None:
            exit_with("There is no window to cancel.", ExitCode.FAILED)
        finish(asyncio.run(turn_off(target, component=component)))


def _readable(report: StatusReport) -> StatusReport:
    if report.switch is None:
        exit_with(f"Which window there is cannot be said: {report.reading.error}", ExitCode.FAILED)
    return report
