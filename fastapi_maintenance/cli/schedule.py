"""The commands about windows: `schedule list` and `schedule cancel`. `on --at` makes one."""

from __future__ import annotations

import asyncio
import json

import typer

from ..backends.status import Report, look
from .console import ExitCode, say
from .options import BackendOption, FilePathOption, JsonOption, ScopeOption, VarNameOption
from .render import conclude, window_line
from .shared import explained, fail, open_target
from .switch import turn_off

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    windows = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="See and cancel windows, in which maintenance begins or ends by itself."
    )
    windows.command("list")(_list)
    windows.command("cancel")(_cancel)
    app.add_typer(windows, name="schedule")


def _list(
    ctx: typer.Context,
    scope: ScopeOption = None,
    as_json: JsonOption = False,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Print the window that is coming or has begun; nothing where there is none."""
    with explained():
        report = _readable(asyncio.run(look(open_target(ctx, backend, var_name, file_path, scope), scope)))
    if as_json:
        say(json.dumps(report.windows_json(), indent=2))
    elif report.window is not None:
        say(window_line(report, report.window))


def _cancel(
    ctx: typer.Context,
    scope: ScopeOption = None,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Cancel the window that is coming, or end the one that has begun, and print what is true afterwards.

    Fails with exit code 1 if there is none, also where maintenance is on without an end: that is turned off with 'off'.
    """
    with explained():
        target = open_target(ctx, backend, var_name, file_path, scope)
        if _readable(asyncio.run(look(target, scope))).window is None:
            fail("There is no window to cancel.", ExitCode.FAILED)
        conclude(asyncio.run(turn_off(target, scope=scope)))


def _readable(report: Report) -> Report:
    if report.switch is None:
        fail(f"Which window there is cannot be said: {report.reading.error}", ExitCode.FAILED)
    return report
