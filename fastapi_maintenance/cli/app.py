"""The program `fastapi-maintenance`: the root command, and every other command under it."""

from __future__ import annotations

from typing import Annotated

import typer

from .._internal.version import VERSION
from . import bypass, history, page, run, schedule, serve, status, switch, workers
from .console import echo, handle_errors, prepare
from .options import (
    BackendSelection,
    FilePathOption,
    RootBackendOption,
    VarNameOption,
    option,
)

# Plain help, because typer's boxes break sentences apart, and Python's own tracebacks.
app = typer.Typer(
    name="fastapi-maintenance",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        echo(f"fastapi-maintenance {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    backend: RootBackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Turn maintenance mode on and off, and show its state.

    --backend may stand before the command or after it.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. The help of each command lists
    its other codes.
    """
    prepare()
    ctx.obj = BackendSelection(backend, var_name, file_path)


trial = typer.Typer()


@trial.command()
def demo(
    workers: Annotated[
        int, option("--workers", "COUNT", "The number of workers to start.", min=1)
    ] = 4,
    check: Annotated[
        bool, typer.Option("--check", help="Flip the switch in every way and check every answer.")
    ] = False,
) -> None:
    """Show how fast a flip reaches several workers.

    Starts the workers with a small application and a Redis of their own. Needs the extra 'demo'.
    With --check, exits with 0 if every worker followed every flip, else with 1.
    """
    from .demo import run as run_demo  # imports the middleware, which no other command needs

    with handle_errors():
        raise typer.Exit(run_demo(workers, check=check))


for commands in (
    switch.app,
    status.app,
    workers.app,
    run.app,
    history.app,
    page.app,
    serve.app,
    trial,
):
    app.add_typer(commands)
app.add_typer(schedule.app, name="schedule", no_args_is_help=True)
app.add_typer(bypass.app, name="bypass", no_args_is_help=True)
