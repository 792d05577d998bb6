"""The commands `wait`, `workers` and `workers forget`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from functools import partial
from typing import Annotated, Any

import typer

from ..backends import BaseStateBackend
from ..coordination.barrier import BarrierResult, forget_workers, registry_of, wait_until_applied
from ..exceptions import BarrierError, MaintenanceError
from ..model.workers import RegistrySnapshot
from .console import ExitCode, echo, echo_error, exit_with, handle_errors, terminal
from .options import (
    BackendOption,
    ComponentOption,
    ExpectOption,
    JsonOption,
    TimeoutOption,
    UnfencedOption,
)
from .status import on_interruption
from .worker_table import as_table, listed, rows, wait_display, ways_around, worker_lines

app = typer.Typer()
group = typer.Typer(invoke_without_command=True, short_help="List the workers, and how they stand.")
app.add_typer(group, name="workers")


@app.command(short_help="Wait until every live worker has followed.")
def wait(
    backend: BackendOption,
    drained: Annotated[
        bool,
        typer.Option(
            "--drained", help="Wait also until no request is in flight that would be refused now."
        ),
    ] = False,
    timeout: TimeoutOption = 30.0,
    allow_unfenced: UnfencedOption = False,
    expect: ExpectOption = None,
    component: ComponentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until every live worker has applied the current state, on or off.

    Exit codes: 0 proved, 3 not in time, 4 not proved: workers vanished that may still be serving,
    or none is registered; 130 interrupted.
    """
    with handle_errors():
        result = watch_wait(
            backend,
            component=component,
            drained=drained,
            timeout=timeout,
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
    """Wait with a live table on a terminal, or a line for each change elsewhere.

    `silent` where a program reads the output.

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
            "Interrupted before it was known whether every worker has followed; the state "
            "stays as it is.",
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
        exit_with(str(error), exit_code_of(error))


@group.callback()
def workers(ctx: typer.Context, backend: BackendOption, as_json: JsonOption = False) -> None:
    """List the workers: where they run, how they hear of changes, and what they have in flight.

    The link is 'tracking' where Redis pushes every write to the worker, 'message' where it is told
    of what this package writes and polls for the rest, 'polling' where it only polls, 'down' where
    it hears of nothing. A worker stands 'open'; 'closed' while requests from before are at work;
    then 'drained'. One that 'vanished' does not report any more and is not proved gone. The fence
    is after how many seconds without Redis it closes by itself, if ever.
    """
    if ctx.invoked_subcommand is not None:
        return
    with handle_errors():
        roll, warnings = asyncio.run(_read(backend))
    console = terminal()
    if as_json:
        echo(json.dumps(rows(roll, warnings), indent=2))
    elif console is None:
        for line in worker_lines(roll):
            echo(line)
    else:
        console.print(as_table(listed(roll)))
    for sentence in (*ways_around(roll.workers), *warnings):
        echo_error(sentence)


async def _read(backend: BaseStateBackend) -> tuple[RegistrySnapshot, tuple[str, ...]]:
    return await registry_of(backend).read_registry(), await backend.warnings()


@group.command(short_help="Forget workers that vanished and are gone.")
def forget(
    backend: BackendOption,
    names: Annotated[
        list[str],
        typer.Argument(metavar="ID|HOST...", help="The workers' ids, or the hosts they ran on."),
    ],
) -> None:
    """Forget workers that vanished: your word that they are gone. Make sure of that first.

    Every wait believes it. A worker that still reports is never forgotten.
    """
    with handle_errors():
        gone = asyncio.run(forget_workers(registry_of(backend), names))
    for worker in gone:
        echo(f"Forgot {worker.id}, {worker.name}.")
    if not gone:
        exit_with("No worker of that id or host has vanished.", ExitCode.FAILED)


def exit_code_of(error: MaintenanceError) -> ExitCode:
    """Return the exit code of an error."""
    if not isinstance(error, BarrierError):
        return ExitCode.FAILED
    return ExitCode.UNFENCED if error.result.is_over else ExitCode.NOT_DRAINED
