"""The commands that wait for the workers: `wait`, `workers` and `run`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from enum import Enum
from typing import Annotated

import typer

from ..backends import BaseStateBackend
from ..barrier import BarrierResult, registered_workers, wait_until_applied
from ..context import maintenance_mode_on
from ..exceptions import BarrierError
from .codes import ExitCode
from .options import BackendOption, FilePathOption, JsonOption, MessageOption, ReasonOption, TimeoutOption, UnfencedOption, VarNameOption
from .output import complain, say, terminal
from .roll import LiveRoll, RollLines, as_json, as_table, listed, summary, worker_lines, workers_json
from .run import find, run_held
from .shared import argument, explained, fail, open_target
from .times import parse_duration

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
    app.command()(wait)
    app.command()(workers)
    app.command()(run)


def wait(
    ctx: typer.Context,
    drained: Annotated[bool, typer.Option("--drained", help="Wait also until no request is in flight that would be refused now.")] = False,
    timeout: TimeoutOption = "30s",
    allow_unfenced: UnfencedOption = False,
    as_json_: JsonOption = False,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Wait until every live worker has applied the current state, on or off.

    Exit codes: 0 proved, 3 not in time, 4 workers vanished that may still be serving.
    """
    with argument("--timeout"):
        seconds = parse_duration(timeout).total_seconds()
    with explained():
        target = open_target(ctx, backend, var_name, file_path)
        if as_json_:
            result = asyncio.run(wait_until_applied(target, drained=drained, timeout=seconds))
            say(json.dumps(as_json(result), indent=2))
        else:
            result = watch_wait(target, drained=drained, timeout=seconds)
    conclude_wait(result, strict=not allow_unfenced)


def watch_wait(backend: BaseStateBackend, *, drained: bool, timeout: float) -> BarrierResult:
    """Wait with a live table on a terminal, or a line for each change elsewhere."""
    console = terminal()
    with RollLines() if console is None else LiveRoll(console) as view:
        return asyncio.run(wait_until_applied(backend, drained=drained, timeout=timeout, progress=view.show))


def conclude_wait(result: BarrierResult, *, strict: bool) -> None:
    """End the command with the exit code that a result deserves, unless it is proved."""
    try:
        result.check(strict=strict)
    except BarrierError as error:
        fail(str(error), code_of(error))


def code_of(error: BarrierError) -> ExitCode:
    """The exit code of a barrier that failed."""
    return ExitCode.UNFENCED if error.result.is_over else ExitCode.NOT_DRAINED


def workers(
    ctx: typer.Context,
    as_json_: JsonOption = False,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """List the live workers: where they run, how they hear of changes, and what they have in flight."""
    with explained():
        present = asyncio.run(registered_workers(open_target(ctx, backend, var_name, file_path)))
    console = terminal()
    if as_json_:
        say(json.dumps(workers_json(present), indent=2))
    elif console is None:
        for line in worker_lines(present):
            say(line)
    else:
        console.print(as_table(listed(present)))


def run(
    ctx: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD ARGS…", help="The command, after two dashes.", show_default=False)],
    drain: Annotated[
        str, typer.Option("--drain", metavar="LENGTH", help="How long to wait for the workers to drain; 0 for not at all.")
    ] = "30s",
    lease: Annotated[
        str, typer.Option("--lease", metavar="LENGTH", help="How long the service stays closed if this process dies.")
    ] = "30s",
    reason: ReasonOption = None,
    message: MessageOption = None,
    on_error: Annotated[
        OnErrorName, typer.Option("--on-error", help="When the command fails: release the hold, or keep the service closed.")
    ] = OnErrorName.RELEASE,
    on_lost: Annotated[
        OnLostName, typer.Option("--on-lost", help="When the hold is lost while the command runs: say so, or also end the command.")
    ] = OnLostName.WARN,
    allow_unfenced: UnfencedOption = False,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Hold the service closed while a command runs: close, wait until every worker has drained, run, open again.

    The command has this terminal's input and output, and gets the signals that this process gets. If this process dies, the
    service opens again after the lease.

    Exit codes: the command's own; else 3 not drained in time, 4 workers vanished that may still be serving (in both cases the
    command was not run), 5 the command succeeded, but the hold was lost while it ran.
    """
    with argument("--drain"):
        patience = 0.0 if drain.strip() in ("0", "0s") else parse_duration(drain).total_seconds()
    with argument("--lease"):
        seconds = parse_duration(lease).total_seconds()
    if code := find(command):
        complain(f"{command[0]} cannot be run: {'it is not executable' if code == 126 else 'there is no such command'}.")
        raise typer.Exit(code)
    with explained():
        target = open_target(ctx, backend, var_name, file_path)
        block = maintenance_mode_on(target, reason=reason, message=message, lease=seconds, on_error=on_error.value)
        running = run_held(
            block,
            command,
            drain=patience or None,
            strict=not allow_unfenced,
            on_lost=on_lost.value,
            progress=_telling(),
        )
        try:
            code = asyncio.run(running)
        except BarrierError as error:
            fail(f"{error} The command was not run.", code_of(error))
        except asyncio.CancelledError:
            fail("Interrupted before the command was run.", ExitCode.INTERRUPTED)
    raise typer.Exit(code)


def _telling() -> Callable[[BarrierResult], None]:
    """Say on standard error, as standard output is the command's, how the wait goes."""

    def tell(result: BarrierResult) -> None:
        typer.echo(f"{result.elapsed:.1f} s: {summary(result)}", err=True)

    return tell
