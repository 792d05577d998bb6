"""The commands and their options."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

import typer

from .._internal.version import VERSION
from ..backends import EnvVarBackend
from ..backends.status import look
from ..model.state import MaintenanceState
from . import bypass, history, schedule
from . import workers as barrier
from .console import ExitCode, echo, echo_error, prepare, terminal
from .durations import parse_duration, parse_until
from .options import (
    AllowOption,
    AtOption,
    BackendOption,
    ByOption,
    ComponentOption,
    FilePathOption,
    ForOption,
    JsonOption,
    MessageOption,
    ModeName,
    ModeOption,
    ReasonOption,
    RetryAfterOption,
    TimeoutOption,
    UnfencedOption,
    UntilOption,
    VarNameOption,
)
from .render import finish, print_status
from .shared import allowed_by, exit_with, handle_errors, invalid_option, open_target
from .status import Lines, Screen, follow
from .switch import operator, turn_off, turn_on
from .target import BackendSelection
from .workers import conclude_wait, watch_wait

__all__ = ["app"]

# Plain help, as typer's own is drawn in boxes that break sentences apart, also in a pipe; and Python's own tracebacks.
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
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Turn maintenance mode on and off, and see what it is.

    The options of the backend may stand before the command or after it.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted; those of a command's own are in its help.
    """
    prepare()
    ctx.obj = BackendSelection(backend, var_name, file_path)


@app.command()
def on(
    ctx: typer.Context,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until every live worker has closed.")
    ] = False,
    drained: Annotated[
        bool,
        typer.Option(
            "--drained",
            help="As --wait, and until no request is in flight that would be refused now.",
        ),
    ] = False,
    timeout: TimeoutOption = "30s",
    allow_unfenced: UnfencedOption = False,
    message: MessageOption = None,
    reason: ReasonOption = None,
    at: AtOption = None,
    length: ForOption = None,
    until: UntilOption = None,
    retry_after: RetryAfterOption = None,
    mode: ModeOption = ModeName.FULL,
    allow: AllowOption = None,
    component: ComponentOption = None,
    by: ByOption = None,
    as_json: JsonOption = False,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Turn maintenance on, and print what is true afterwards.

    With --at it begins by itself then; until then 'schedule' shows it, and can cancel it.

    Where Redis has replicas it says how many of them have it, after a second at most: a failover to another one would lose it.

    Fails with exit code 1 if maintenance is not on then, whatever the cause; with --wait, with 3 if workers have not followed
    in time, and with 4 if some have vanished that may still be serving. It stays on then.
    """
    if length is not None and until is not None:
        raise typer.BadParameter(
            "both say when it ends: give one of them.", param_hint="--for and --until"
        )
    if at is not None and (wait or drained):
        raise typer.BadParameter(
            "there is nothing to wait for until it begins: give one of them.",
            param_hint="--at and --wait",
        )
    now = datetime.now().astimezone()
    with invalid_option("--timeout"):
        patience = parse_duration(timeout).total_seconds()
    with invalid_option("--at"):
        starts_at = None if at is None else parse_until(at, now)
    with invalid_option("--for"):
        lasting = None if length is None else parse_duration(length)
    with invalid_option("--until"):
        ends_at = None if until is None else parse_until(until, now, starts_at)
    state = MaintenanceState(
        enabled=True,
        message=message or None,
        reason=reason or None,
        retry_after=retry_after,
        starts_at=starts_at,
        ends_at=ends_at,
        mode=mode.value,
        allow=allowed_by(allow) or None,
        by=by or operator(),
    )
    with handle_errors():
        target = open_target(ctx, backend, var_name, file_path, component)
        finish(asyncio.run(turn_on(target, state, lasting, component)), as_json=as_json)
        result = (
            watch_wait(
                target, component=component, drained=drained, timeout=patience, silent=as_json
            )
            if wait or drained
            else None
        )
    if result is not None:
        conclude_wait(result, strict=not allow_unfenced)


@app.command()
def off(
    ctx: typer.Context,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="End all holds too: whoever relies on one is told that it is lost."
        ),
    ] = False,
    component: ComponentOption = None,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Turn maintenance off, and print what is true afterwards.

    A component that is turned off has no switch of its own any more: what holds in general decides again.

    Fails with exit code 1 if maintenance is still on then, as it is while somebody's hold stands.
    """
    if force and component is not None:
        raise typer.BadParameter(
            "--force ends the holds of everything: give one of them.",
            param_hint="--force and --component",
        )
    with handle_errors():
        target = open_target(ctx, backend, var_name, file_path, component)
        finish(asyncio.run(turn_off(target, force=force, component=component)))


@app.command()
def status(
    ctx: typer.Context,
    as_json: JsonOption = False,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="Exit with 0 if maintenance is off, with 6 if it is on."),
    ] = False,
    component: ComponentOption = None,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Print whether maintenance is on, and why.

    Fails with exit code 1, with and without --exit-code, if that cannot be said.
    """
    with handle_errors():
        report = asyncio.run(
            look(open_target(ctx, backend, var_name, file_path, component), component)
        )
    print_status(report, as_json=as_json)
    if report.state is None:
        exit_with(
            f"Each worker keeps the state that it knows; whether that is on cannot be said: {report.reading.error}",
            ExitCode.FAILED,
        )
    if exit_code and report.state.enabled:
        raise typer.Exit(ExitCode.ON)


@app.command()
def watch(
    ctx: typer.Context,
    as_json: JsonOption = False,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Follow the state live, until Ctrl-C.

    Hears of changes as a worker does; shows the state on a terminal, one line a change in a pipe, and with it where the
    state comes from and how long ago that was confirmed. Keeps trying while the backend cannot be reached.
    Being interrupted is how it ends, as is a pipe that nobody reads any more: the exit code is 0.
    """
    with handle_errors():
        target = open_target(ctx, backend, var_name, file_path)
        if isinstance(target, EnvVarBackend):
            echo_error(
                f"{target.describe()} is read from this process' own environment, which nobody changes from outside."
            )
        console = terminal()
        if as_json or console is None or console.is_dumb_terminal:
            asyncio.run(follow(target, Lines(as_json=as_json)))
        else:
            with Screen(console) as screen:
                asyncio.run(follow(target, screen))


@app.command()
def demo(
    workers: Annotated[
        int, typer.Option("--workers", metavar="COUNT", min=1, help="How many workers to start.")
    ] = 4,
    check: Annotated[
        bool, typer.Option("--check", help="Flip the switch in every way and judge every answer.")
    ] = False,
) -> None:
    """Show how fast a flip reaches several workers.

    Starts the workers with a small application and a Redis of their own. Needs the extra 'demo'.
    With --check, the exit code is 0 if every worker followed every flip, else 1.
    """
    from .demo import run  # not above: it imports the middleware, which no other command needs

    with handle_errors():
        raise typer.Exit(run(workers, check=check))


# ----------------------------------------------------------------------------------------------------------------------------


barrier.add_to(app)
schedule.add_to(app)
bypass.add_to(app)
history.add_to(app)
