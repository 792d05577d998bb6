"""The program `fastapi-maintenance`: every command with its options. Other modules do the work.

A command is built when it is named, and the function that does its work is imported when it runs.
So completion and `--version` are quick, and `status` imports no FastAPI.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final, Literal

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from ..exceptions import MaintenanceError
from .console import ExitCode, echo, exit_code_of, exit_with
from .durations import parse_duration, parse_until
from .options import (
    ALLOW,
    ALLOW_UNFENCED,
    AS_JSON,
    BACKEND,
    COMPONENT,
    DRAINED,
    EXPECT,
    FILE_PATH,
    MAX_RETRY_AFTER,
    MESSAGE,
    REASON,
    ROOT_BACKEND,
    TIMEOUT,
    VAR_NAME,
    BackendSelection,
    none_if_empty,
    option,
    parse_seconds,
)


class _Quick:
    """A command that parses no values for completion, as typer would import pydantic for them."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        if ctx.resilient_parsing:
            for param in params:
                param.process_value = lambda ctx, value: value
        return params


class _Command(_Quick, TyperCommand): ...


class _Group(_Quick, TyperGroup): ...


_COMMANDS: Final[dict[str, typer.Typer]] = {}


def _group(name: str, **options: Any) -> typer.Typer:
    """Register a command of the root that may have commands itself."""
    group = typer.Typer(cls=_Group, rich_markup_mode=None, add_completion=False, **options)
    return _COMMANDS.setdefault(name, group)


def _command(
    path: str, work: str, **options: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a declaration as the command of this path.

    `work` is the function that takes the values of the options, as `module.function`. It may return
    an exit code.
    """

    def register(declaration: Callable[..., None]) -> Callable[..., None]:
        @wraps(declaration)
        def run(**values: Any) -> None:
            module, _, function = work.partition(".")
            code = getattr(import_module(f".{module}", __package__), function)(**values)
            raise typer.Exit(code or ExitCode.DONE)

        group, _, name = path.rpartition(" ")
        return _group(group or name).command(name, cls=_Command, **options)(run)

    return register


class _Root(_Group):
    """The root command. Builds a command when it is asked for, and prints errors as a sentence."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = dict.fromkeys(_COMMANDS)  # type: ignore[assignment]  # for names

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return get_command(_COMMANDS[cmd_name]) if cmd_name in _COMMANDS else None

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MaintenanceError as error:
            exit_with(str(error), exit_code_of(error))


# Plain help, because typer's boxes break sentences apart, and Python's own tracebacks.
app = typer.Typer(
    name="fastapi-maintenance",
    cls=_Root,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def prepare_output() -> None:
    """Make standard output take every character, and keep log records off standard error."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    logger = logging.getLogger("fastapi_maintenance")
    if not logger.handlers:  # without any, Python prints warnings, which the commands print anyway
        logger.addHandler(logging.NullHandler())


def _show_version(wanted: bool) -> None:
    if wanted:
        from .._internal.version import VERSION

        echo(f"fastapi-maintenance {VERSION}")
        raise typer.Exit


@app.callback()
def _main(
    ctx: typer.Context,
    backend: str | None = ROOT_BACKEND,
    var_name: str | None = VAR_NAME,
    file_path: str | None = FILE_PATH,
    version: bool = option(
        "--version", "Print the version.", False, callback=_show_version, is_eager=True
    ),
) -> None:
    """Turn maintenance mode on and off, and show its state.

    --backend may stand before the command or after it.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. The help of each command lists
    its other codes.
    """
    prepare_output()
    ctx.obj = BackendSelection(backend, var_name, file_path)


# -- the switch ------------------------------------------------------------------------------------


@_command("on", "switch.turn_on")
def _on(
    backend: object = BACKEND,
    wait: bool = option("--wait", "Wait until every live worker has closed.", False),
    drained: bool = DRAINED,
    timeout: float = TIMEOUT,
    allow_unfenced: bool = ALLOW_UNFENCED,
    message: str | None = MESSAGE,
    reason: str | None = REASON,
    at: str | None = option(
        "--at TIME",
        "Start at this time instead of now, in the formats of --until. "
        "--for is then measured from the start.",
    ),
    length: timedelta | None = option(
        "--for LENGTH",
        "End automatically after 90, 90s, 30m, 2h, 1d or 1h30m. A number alone is seconds.",
        parse=parse_duration,
    ),
    until: str | None = option(
        "--until TIME",
        "End automatically at this time. 04:00 or 04:00:30 is the next such time here, after "
        "--at if given. 2026-11-22T04:00 is local time, too. 2026-11-22T04:00Z and "
        "2026-11-22T04:00+01:00 name their zone.",
    ),
    retry_after: int | None = option(
        "--retry-after SECONDS",
        "When clients should retry. Default: at the end, else in an hour.",
        min=0,
        max=MAX_RETRY_AFTER,
    ),
    mode: Literal["full", "read-only"] = option(
        "--mode", "read-only lets GET, HEAD, OPTIONS and TRACE pass.", "full"
    ),
    allow: list[str] | None = ALLOW,
    component: str | None = COMPONENT,
    by: str | None = option("--by TEXT", "The operator's name. Default: user@host."),
    as_json: bool = AS_JSON,
) -> None:
    """Turn maintenance on, and print the resulting status.

    With --at it starts at that time. Until then, 'schedule' shows the window and can cancel it.

    If Redis has replicas, prints how many have the new state, after one second at most. A
    failover to a replica without it would open the service.

    Exits with 1 if maintenance is off afterwards, for whatever reason. With --wait, exits with 3
    if workers have not followed in time, and with 4 if vanished workers may still be serving.
    Maintenance then stays on.
    """


@_command("off", "switch.turn_off")
def _off(
    backend: object = BACKEND,
    force: bool = option("--force", "Also end all holds, and notify their holders.", False),
    component: str | None = COMPONENT,
) -> None:
    """Turn maintenance off, and print the resulting status.

    Turning a component off removes its own switch. The general switch then applies to it.

    Exits with 1 if maintenance is still on, because a hold is active.
    """


@_command("status", "render.show_status")
def _status(
    backend: object = BACKEND,
    as_json: bool = AS_JSON,
    exit_code: bool = option("--exit-code", "Exit with 6 if maintenance is on.", False),
    component: str | None = COMPONENT,
) -> None:
    """Print whether maintenance is on, and why.

    Exits with 1 if the state is unknown, with or without --exit-code.
    """


@_command("watch", "watch.watch")
def _watch(backend: object = BACKEND, as_json: bool = AS_JSON) -> None:
    """Follow the state live, until Ctrl-C.

    Receives changes as a worker does. Shows the state on a terminal, or prints one line per change
    to a pipe, with the source of the state and its age. Keeps trying while the backend cannot be
    reached. The exit code is 0 after Ctrl-C or when the pipe is closed.
    """


# -- the workers -----------------------------------------------------------------------------------


@_command("wait", "workers.wait", short_help="Wait until every worker has applied the state.")
def _wait(
    backend: object = BACKEND,
    drained: bool = DRAINED,
    timeout: float = TIMEOUT,
    allow_unfenced: bool = ALLOW_UNFENCED,
    expect: int | None = EXPECT,
    component: str | None = COMPONENT,
    as_json: bool = AS_JSON,
) -> None:
    """Wait until every live worker has applied the current state, on or off.

    Exit codes: 0 proved, 3 not in time, 4 not proved: workers vanished that may still be serving,
    or none is registered; 130 interrupted.
    """


@_group(
    "workers", invoke_without_command=True, short_help="List the workers and their status."
).callback()
def _list_workers(ctx: typer.Context, backend: Any = BACKEND, as_json: bool = AS_JSON) -> None:
    """List the workers: where they run, how changes reach them, and what they have in flight.

    The delivery is 'tracking' if Redis pushes every write to the worker. It is 'message' if Redis
    pushes only the writes of this package, and the worker polls for the rest. It is 'polling' if
    the worker only polls, and 'down' without a connection. A worker is 'open', 'closed' while
    earlier requests are in flight, or 'drained'. A 'vanished' worker sends no reports and is not
    proved gone. The fence is the number of seconds without Redis after which the worker closes
    itself.
    """
    if ctx.invoked_subcommand is None:
        from .workers import list_workers

        list_workers(backend, as_json=as_json)


@_command(
    "workers forget", "workers.forget", short_help="Forget workers that vanished and are gone."
)
def _forget(
    backend: object = BACKEND,
    names: list[str] = typer.Argument(
        metavar="ID|HOST...", help="The workers' ids, or the hosts they ran on."
    ),
) -> None:
    """Forget vanished workers. Check first that their processes have ended.

    Every wait then counts them as gone. A worker that still reports is never forgotten.
    """


# -- a command under a hold ------------------------------------------------------------------------


def _parse_drain(text: str) -> float:
    return 0.0 if text.strip() in ("0", "0s") else parse_seconds(text)


# `allow_interspersed_args`: options after the command's name are its own, as for `env` and `sudo`.
@_command(
    "run",
    "run.run",
    short_help="Hold the service closed while a command runs.",
    context_settings={"allow_interspersed_args": False},
)
def _run(
    backend: object = BACKEND,
    command: list[str] = typer.Argument(
        metavar="COMMAND",
        help="The command and its arguments, optionally after two dashes.",
        show_default=False,
    ),
    drain: float = option(
        "--drain LENGTH",
        "The longest time to wait until the workers have drained. 0 does not wait.",
        30.0,
        parse=_parse_drain,
        show_default="30s",
    ),
    lease: float = option(
        "--lease LENGTH",
        "How long the service stays closed if this process dies.",
        30.0,
        parse=parse_seconds,
        show_default="30s",
    ),
    reason: str | None = REASON,
    message: str | None = MESSAGE,
    allow: list[str] | None = ALLOW,
    component: str | None = COMPONENT,
    on_error: Literal["release", "keep"] = option(
        "--on-error",
        "If the command fails or is not run: open again, or keep the service closed.",
        "release",
    ),
    on_lost: Literal["warn", "kill"] = option(
        "--on-lost",
        "If the hold is lost while the command runs: warn, or also end the command.",
        "warn",
    ),
    allow_unfenced: bool = ALLOW_UNFENCED,
    expect: int | None = EXPECT,
) -> None:
    """Hold the service closed while a command runs.

    Closes the service, waits until every worker has drained, runs the command, and opens again.

    Everything after the options is the command. It has this terminal's input and output, and
    gets the signals that this process gets. A signal before it runs cancels it. If this process is
    killed (SIGKILL), the command runs on, and the service opens when the lease ends.

    Exit codes: the command's own, or 128 plus the number of the signal that ended it, as with
    --on-lost kill. 5: it succeeded, but the hold was lost while it ran. If it was not run: 1
    failed, 2 wrong usage, 3 not drained in time, 4 not proved (vanished workers may still be
    serving, or none is registered), 126 not executable, 127 not found, 130 interrupted.
    """


# -- history, windows, bypasses --------------------------------------------------------------------


@_command("history", "history.show_history", short_help="Print who changed what, when and why.")
def _history(
    backend: object = BACKEND,
    limit: int = option("--limit COUNT", "The number of past changes to print.", 20, min=1),
    follow: bool = option("--follow", "Also print new changes, until Ctrl-C.", False),
    as_json: bool = AS_JSON,
    component: str | None = COMPONENT,
) -> None:
    """Print the last changes, the newest at the end: when, what, who, from where, and why.

    The kinds of changes: 'set' by this program, the panel or code. 'noticed': written by another
    program, such as redis-cli; 'at' is the worker that saw it first. 'expired': its time to live
    ended. 'cleared': ended by force. 'hold taken' and 'hold released'. 'hold lapsed': its lease
    ended. 'restored' after Redis lost it. 'lost': not restored. With --follow and --json, each
    change is one line. Only Redis keeps a history.
    """


_group(
    "schedule",
    no_args_is_help=True,
    short_help="List and cancel maintenance windows.",
    help="List and cancel windows, in which maintenance starts or ends automatically.",
)


@_command("schedule list", "switch.list_windows")
def _list_windows(
    backend: object = BACKEND, component: str | None = COMPONENT, as_json: bool = AS_JSON
) -> None:
    """Print the upcoming or current window, or nothing if there is none."""


@_command("schedule cancel", "switch.cancel_window", short_help="Cancel or end the window.")
def _cancel_window(backend: object = BACKEND, component: str | None = COMPONENT) -> None:
    """Cancel the upcoming window or end the current one, and print the resulting status.

    Exits with 1 if there is no window. Use 'off' if maintenance is on without an end.
    """


_group("bypass", no_args_is_help=True, help="Let testers through while the switch is on.")


@_command("bypass create", "bypass.create", short_help="Create a token, and print its link.")
def _create_bypass(
    backend: object = BACKEND,
    length: timedelta = option(
        "--for LENGTH",
        "The longest time that it is valid, like 30m, 2h or 1d.",
        timedelta(hours=1),
        parse=parse_duration,
        show_default="1h",
    ),
    note: str | None = option(
        "--note TEXT", "Who it is for. Visitors never see it.", callback=none_if_empty
    ),
    url: str = option("--url URL", "The address that the link leads to.", "http://localhost:8000/"),
    component: str | None = COMPONENT,
    as_json: bool = AS_JSON,
) -> None:
    """Create a token that lets its bearer through, and print it with a link.

    It is valid until it expires, is revoked, or the switch gets another value. It does not pass
    while a hold is active. With --component, it passes what the switch of that component closes;
    without, what the general switch closes. The switch stores only a hash. The secret is
    FASTAPI_MAINTENANCE_SECRET, as for the workers.
    """


@_command("bypass list", "bypass.list_bypasses")
def _list_bypasses(
    backend: object = BACKEND, component: str | None = COMPONENT, as_json: bool = AS_JSON
) -> None:
    """Print the valid bypasses, or nothing if there are none."""


@_command("bypass revoke", "bypass.revoke_bypasses")
def _revoke_bypasses(
    backend: object = BACKEND,
    ids: list[str] | None = typer.Argument(
        None, metavar="ID...", help="As 'bypass list' prints them.", show_default=False
    ),
    everything: bool = option("--all", "Revoke all of them.", False),
    component: str | None = COMPONENT,
) -> None:
    """Revoke bypasses on every worker at once."""


# -- in the place of workers -----------------------------------------------------------------------


@_command("page", "page.write_page", short_help="Write the maintenance page for a proxy.")
def _page(
    out: Path | None = option(
        "--out FILE", "The file, which is replaced atomically. Default: print it."
    ),
    kind: Literal["html", "json", "problem", "text", "http"] = option(
        "--format", "http is the page with status and headers, for HAProxy.", "html"
    ),
    message: str | None = MESSAGE,
    until: datetime | None = option(
        "--until TIME",
        "The expected end, in the formats of 'on --until'.",
        parse=lambda text: parse_until(text, datetime.now().astimezone()),
    ),
    retry_after: int | None = option(
        "--retry-after SECONDS",
        "When clients should retry, in http and problem. Default: at the end, else in 60 s.",
        min=0,
        max=MAX_RETRY_AFTER,
    ),
    language: str = option("--language TAG", "The language of html, http and text.", "en"),
) -> None:
    """Write the maintenance page for a proxy, which sends it while no worker answers.

    It is the page of a closed worker. No backend is read.
    """


@_command("serve", "serve.serve", short_help="Answer 503 in the place of missing workers.")
def _serve(
    backend: object = BACKEND,
    port: int = option("--port PORT", "The port to listen on.", ..., min=0, max=65535),
    host: str = option("--host HOST", "The address to listen on.", "127.0.0.1"),
) -> None:
    """Answer 503 to every request, in the place of workers that are gone.

    Follows the switch: while maintenance is on, the response is that of a closed worker. While it
    is off, the response says that the service is temporarily unavailable, with a Retry-After of a
    few seconds. Put it behind a proxy as the backup server. No barrier waits for it.

    Needs uvicorn, as in the extra 'demo'.
    """


@_command("demo", "demo.run")
def _demo(
    size: int = option("--workers COUNT", "The number of workers to start.", 4, min=1),
    check: bool = option("--check", "Flip the switch in every way and check every answer.", False),
) -> None:
    """Show how fast a flip reaches several workers.

    Starts the workers with a small application and a Redis of their own. Needs the extra 'demo'.
    With --check, exits with 0 if every worker followed every flip, else with 1.
    """
