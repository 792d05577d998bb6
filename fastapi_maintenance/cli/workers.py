"""The commands that wait for the workers: `wait`, `workers` and `run`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from enum import Enum
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console

from ..backends import BaseStateBackend, EnvVarBackend
from ..backends.base import WorkerRegistry
from ..coordination.barrier import BarrierResult, forget_workers, registry_of, wait_until_applied
from ..coordination.context import maintenance_mode_on
from ..exceptions import BarrierError, MaintenanceError, UnsupportedError
from .console import ExitCode, echo, echo_error, terminal
from .durations import parse_duration
from .options import (
    AllowOption,
    BackendOption,
    ComponentOption,
    ExpectOption,
    FilePathOption,
    JsonOption,
    MessageOption,
    ReasonOption,
    TimeoutOption,
    UnfencedOption,
    VarNameOption,
)
from .run import LossReport, resolve_command, run_command
from .shared import allowed_by, exit_with, handle_errors, invalid_option, open_target
from .status import on_interruption
from .worker_table import as_table, listed, rows, wait_display, ways_around, worker_lines

__all__ = ["add_to", "conclude_wait", "watch_wait"]


class OnErrorName(Enum):
    """What `run --on-error` takes."""

    RELEASE = "release"
    KEEP = "keep"


class OnLostName(Enum):
    """What `run --on-lost` takes."""

    WARN = "warn"
    KILL = "kill"


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(short_help="Wait until every live worker has followed.")(wait)
    group = typer.Typer(
        invoke_without_command=True,
        rich_markup_mode=None,
        short_help="List the workers, and how they stand.",
    )
    group.callback()(workers)
    group.command(short_help="Forget workers that vanished and are gone.")(forget)
    app.add_typer(group, name="workers")
    # As `env` and `sudo` do, and not only after two dashes: what follows the command's name is the command's.
    app.command(
        short_help="Hold the service closed while a command runs.",
        context_settings={"allow_interspersed_args": False},
    )(run)


def wait(
    ctx: typer.Context,
    drained: Annotated[
        bool,
        typer.Option(
            "--drained", help="Wait also until no request is in flight that would be refused now."
        ),
    ] = False,
    timeout: TimeoutOption = "30s",
    allow_unfenced: UnfencedOption = False,
    expect: ExpectOption = None,
    component: ComponentOption = None,
    as_json: JsonOption = False,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Wait until every live worker has applied the current state, on or off.

    Exit codes: 0 proved, 3 not in time, 4 not proved: workers vanished that may still be serving, or none is registered;
    130 interrupted.
    """
    with invalid_option("--timeout"):
        seconds = parse_duration(timeout).total_seconds()
    with handle_errors():
        target = open_target(ctx, backend, var_name, file_path)
        result = watch_wait(
            target,
            component=component,
            drained=drained,
            timeout=seconds,
            expect=expect,
            silent=as_json,
        )
    if as_json:
        echo(json.dumps(result.to_json(), indent=2))
    conclude_wait(result, strict=not allow_unfenced)


def watch_wait(
    backend: BaseStateBackend,
    *,
    component: str | None = None,
    drained: bool,
    timeout: float,
    expect: int | None = None,
    silent: bool = False,
) -> BarrierResult:
    """Wait with a live table on a terminal, or a line for each change elsewhere; `silent` where a program reads the output.

    SIGINT and SIGTERM end the command, with the exit code 130.
    """
    wait = partial(
        wait_until_applied,
        backend,
        component=component,
        drained=drained,
        timeout=timeout,
        expect=expect,
    )
    try:
        if silent:
            return asyncio.run(_until_interrupted(wait()))
        with wait_display(terminal(), echo) as roll:
            return asyncio.run(_until_interrupted(wait(progress=roll.show)))
    except asyncio.CancelledError:
        exit_with(
            "Interrupted before it was known whether every worker has followed; the state stays as it is.",
            ExitCode.INTERRUPTED,
        )


async def _until_interrupted(waiting: Coroutine[Any, Any, BarrierResult]) -> BarrierResult:
    task = asyncio.ensure_future(waiting)
    with on_interruption(task.cancel):
        return await task


def conclude_wait(result: BarrierResult, *, strict: bool) -> None:
    """End the command with the exit code that a result deserves, unless it is proved."""
    try:
        result.check(strict=strict)
    except BarrierError as error:
        exit_with(str(error), _code_of(error))


def workers(
    ctx: typer.Context,
    as_json: JsonOption = False,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """List the workers: where they run, how they hear of changes, and what they have in flight.

    The link is 'tracking' where Redis pushes every write to the worker, 'message' where it is told of what this package writes and
    polls for the rest, 'polling' where it only polls, 'down' where it hears of nothing. A worker stands 'open'; 'closed' while
    requests from before are at work; then 'drained'. One that 'vanished' does not report any more and is not proved gone.
    The fence is after how many seconds without Redis it closes by itself, if ever.
    """
    if ctx.invoked_subcommand is not None:
        return
    with handle_errors():
        roll = asyncio.run(
            registry_of(open_target(ctx, backend, var_name, file_path)).read_registry()
        )
    console = terminal()
    if as_json:
        echo(json.dumps(rows(roll), indent=2))
    elif console is None:
        for line in worker_lines(roll):
            echo(line)
    else:
        console.print(as_table(listed(roll)))
    for sentence in ways_around(roll.workers):
        echo_error(sentence)


def forget(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(metavar="ID|HOST...", help="The workers' ids, or the hosts they ran on."),
    ],
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Forget workers that vanished: your word that they are gone. Make sure of that first.

    Every wait believes it. A worker that still reports is never forgotten.
    """
    with handle_errors():
        registry = registry_of(open_target(ctx, backend, var_name, file_path))
        gone = asyncio.run(forget_workers(registry, names))
    for worker in gone:
        echo(f"Forgot {worker.id}, {worker.name}.")
    if not gone:
        exit_with("No worker of that id or host has vanished.", ExitCode.FAILED)


def run(
    ctx: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND",
            help="The command and its arguments, after two dashes if you like.",
            show_default=False,
        ),
    ],
    drain: Annotated[
        str,
        typer.Option(
            "--drain",
            metavar="LENGTH",
            help="How long to wait for the workers to drain; 0 for not at all.",
        ),
    ] = "30s",
    lease: Annotated[
        str,
        typer.Option(
            "--lease",
            metavar="LENGTH",
            help="How long the service stays closed if this process dies.",
        ),
    ] = "30s",
    reason: ReasonOption = None,
    message: MessageOption = None,
    allow: AllowOption = None,
    component: ComponentOption = None,
    on_error: Annotated[
        OnErrorName,
        typer.Option(
            "--on-error",
            help="When the command fails or is not run: open again, or keep the service closed.",
        ),
    ] = OnErrorName.RELEASE,
    on_lost: Annotated[
        OnLostName,
        typer.Option(
            "--on-lost",
            help="When the hold is lost while the command runs: say so, or also end the command.",
        ),
    ] = OnLostName.WARN,
    allow_unfenced: UnfencedOption = False,
    expect: ExpectOption = None,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Hold the service closed while a command runs: close, wait until every worker has drained, run, open again.

    Everything after the options is the command. It has this terminal's input and output, and is sent the signals that this
    process is sent; one that comes before it runs cancels it. If this process is killed (SIGKILL), the command runs on, and
    the service opens under it after the lease.

    Exit codes: the command's own, or 128 and the number of the signal that ended it, also where --on-lost kill did; 5 it
    succeeded, but the hold was lost while it ran. If it was not run: 1 failed, 2 wrong usage, 3 not drained in time, 4 not
    proved (workers vanished that may still be serving, or none is registered), 126 it cannot be run, 127 there is no such
    command, 130 interrupted.
    """
    with invalid_option("--drain"):
        patience = 0.0 if drain.strip() in ("0", "0s") else parse_duration(drain).total_seconds()
    with invalid_option("--lease"):
        seconds = parse_duration(lease).total_seconds()
    allowed = allowed_by(allow)
    if missing := resolve_command(command):
        echo_error(
            f"{command[0]} cannot be run: {'it is not executable' if missing == 126 else 'there is no such command'}."
        )
        raise typer.Exit(missing)
    with handle_errors():
        target = open_target(ctx, backend, var_name, file_path)
        _refuse_unless_it_closes_something(target, drains=bool(patience))
        # Standard output is the command's.
        roll = wait_display(
            Console(stderr=True) if sys.stderr.isatty() else None, partial(typer.echo, err=True)
        )
        loss = LossReport()
        block = maintenance_mode_on(
            target,
            reason=reason,
            message=message,
            allow=allowed,
            lease=seconds,
            on_error=on_error.value,
            on_lost=loss,
            drain=patience or None,
            strict=not allow_unfenced,
            expect=expect,
            progress=roll.show,
            component=component,
        )
    try:
        code = asyncio.run(run_command(block, command, loss=loss, on_lost=on_lost.value, roll=roll))
    except asyncio.CancelledError as cancelled:
        exit_with(f"The command was not run: {cancelled}.", ExitCode.INTERRUPTED)
    except MaintenanceError as error:
        exit_with(f"{str(error).removesuffix('.')}. The command was not run.", _code_of(error))
    raise typer.Exit(code)


def _refuse_unless_it_closes_something(backend: BaseStateBackend, *, drains: bool) -> None:
    """Before anything is closed. Raises `UnsupportedError`."""
    if isinstance(backend, EnvVarBackend):
        raise UnsupportedError(
            f"{backend.describe()} is read by each process for itself: no other would be closed. Name a Redis by --backend."
        )
    if drains and not isinstance(backend, WorkerRegistry):
        raise UnsupportedError(
            f"{backend.describe()} has no registry of workers to wait for, as only Redis has. With --drain 0 nobody is waited for."
        )


def _code_of(error: MaintenanceError) -> ExitCode:
    """The exit code of what could not be done."""
    if not isinstance(error, BarrierError):
        return ExitCode.FAILED
    return ExitCode.UNFENCED if error.result.is_over else ExitCode.NOT_DRAINED
