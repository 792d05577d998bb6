"""The program `fastapi-maintenance`: every command with its options. Other modules do the work.

A command is built when it is named, and its work is imported when it runs. So completion and
`--version` are quick, and `status` imports no FastAPI.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from .console import echo, handle_errors, prepare
from .durations import parse_duration, parse_until
from .options import (
    MAX_RETRY_AFTER,
    AllowOption,
    BackendOption,
    BackendSelection,
    ComponentOption,
    ExpectOption,
    FilePathOption,
    ForOption,
    JsonOption,
    MessageOption,
    ReasonOption,
    RetryAfterOption,
    RootBackendOption,
    TimeoutOption,
    UnfencedOption,
    VarNameOption,
    flag,
    operator,
    option,
    parse_seconds,
)

F = TypeVar("F", bound=Callable[..., Any])


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


def _typer(**options: Any) -> typer.Typer:
    return typer.Typer(cls=_Group, rich_markup_mode=None, add_completion=False, **options)


_workers: Final = _typer(
    invoke_without_command=True, short_help="List the workers, and how they stand."
)
_schedule: Final = _typer(
    no_args_is_help=True,
    help="List and cancel windows, in which maintenance starts or ends automatically.",
)
_bypass: Final = _typer(no_args_is_help=True, help="Let testers through while the switch is on.")
_COMMANDS: Final[dict[str, typer.Typer]] = {}


def _command(name: str, **options: Any) -> Callable[[F], F]:
    """Register a function as a command of the root."""
    _COMMANDS[name] = _typer()
    return _COMMANDS[name].command(name, cls=_Command, **options)


class _Built(Mapping[str, Any]):
    """The commands by name, each built when it is asked for."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = get_command(_COMMANDS[name])
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


class _Root(_Group):
    """The root command. Prints the errors of every command as one sentence."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _Built()  # type: ignore[assignment]  # read-only

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: Any) -> Any:
        with handle_errors():
            return super().invoke(ctx)


# Plain help, because typer's boxes break sentences apart, and Python's own tracebacks.
app = typer.Typer(
    name="fastapi-maintenance",
    cls=_Root,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from .._internal.version import VERSION

        echo(f"fastapi-maintenance {VERSION}")
        raise typer.Exit


@app.callback()
def _main(
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


# -- the switch ------------------------------------------------------------------------------------


@_command("on")
def _on(
    backend: BackendOption,
    wait: Annotated[bool, flag("--wait", "Wait until every live worker has closed.")] = False,
    drained: Annotated[
        bool, flag("--drained", "Also wait until no request is in flight that is refused now.")
    ] = False,
    timeout: TimeoutOption = 30.0,
    allow_unfenced: UnfencedOption = False,
    message: MessageOption = None,
    reason: ReasonOption = None,
    at: Annotated[
        str | None,
        option(
            "--at TIME",
            "Start at this time instead of now, in the formats of --until. "
            "--for is then measured from the start.",
        ),
    ] = None,
    length: ForOption = None,
    until: Annotated[
        str | None,
        option(
            "--until TIME",
            "End automatically at this time. 04:00 or 04:00:30 is the next such time here, after "
            "--at if given. 2026-11-22T04:00 is local time, too. 2026-11-22T04:00Z and "
            "2026-11-22T04:00+01:00 name their zone.",
        ),
    ] = None,
    retry_after: RetryAfterOption = None,
    mode: Annotated[
        Literal["full", "read-only"],
        flag("--mode", "read-only lets GET, HEAD, OPTIONS and TRACE pass."),
    ] = "full",
    allow: AllowOption = None,
    component: ComponentOption = None,
    by: Annotated[
        str | None, option("--by TEXT", "The operator's name. Default: user@host.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Turn maintenance on, and print the resulting status.

    With --at it starts at that time. Until then, 'schedule' shows the window and can cancel it.

    If Redis has replicas, prints how many have the new state, after one second at most. A
    failover to a replica without it would open the service.

    Exits with 1 if maintenance is off afterwards, for whatever reason. With --wait, exits with 3
    if workers have not followed in time, and with 4 if vanished workers may still be serving.
    Maintenance then stays on.
    """
    if length is not None and until is not None:
        raise typer.BadParameter("both set the end. Use one.", param_hint="--for and --until")
    if at is not None and (wait or drained):
        raise typer.BadParameter(
            "nothing closes before the start. Use one.", param_hint="--at and --wait"
        )
    from .switch import turn_on

    turn_on(
        backend,
        component,
        at=at,
        until=until,
        length=length,
        as_json=as_json,
        message=message or None,
        reason=reason or None,
        retry_after=retry_after,
        mode=mode,
        allow=tuple(allow or ()) or None,
        by=by or operator(),
    )
    if wait or drained:
        from .workers import watch_wait

        watch_wait(
            backend,
            component=component,
            drained=drained,
            timeout=timeout,
            silent=as_json,
            strict=not allow_unfenced,
        )


@_command("off")
def _off(
    backend: BackendOption,
    force: Annotated[
        bool, flag("--force", "Also end all holds, and notify their holders.")
    ] = False,
    component: ComponentOption = None,
) -> None:
    """Turn maintenance off, and print the resulting status.

    Turning a component off removes its own switch. The general switch then applies to it.

    Exits with 1 if maintenance is still on, because a hold is active.
    """
    if force and component is not None:
        raise typer.BadParameter(
            "--force ends the holds of all components. Use one.",
            param_hint="--force and --component",
        )
    from .switch import turn_off

    turn_off(backend, force=force, component=component)


@_command("status")
def _status(
    backend: BackendOption,
    as_json: JsonOption = False,
    exit_code: Annotated[bool, flag("--exit-code", "Exit with 6 if maintenance is on.")] = False,
    component: ComponentOption = None,
) -> None:
    """Print whether maintenance is on, and why.

    Exits with 1 if the state is unknown, with or without --exit-code.
    """
    from .render import show_status

    show_status(backend, component, as_json=as_json, exit_code=exit_code)


@_command("watch")
def _watch(backend: BackendOption, as_json: JsonOption = False) -> None:
    """Follow the state live, until Ctrl-C.

    Receives changes as a worker does. Shows the state on a terminal, or prints one line per change
    to a pipe, with the source of the state and its age. Keeps trying while the backend cannot be
    reached. The exit code is 0 after Ctrl-C or when the pipe is closed.
    """
    from .watch import watch

    watch(backend, as_json=as_json)


# -- the workers -----------------------------------------------------------------------------------


@_command("wait", short_help="Wait until every live worker has followed.")
def _wait(
    backend: BackendOption,
    drained: Annotated[
        bool,
        flag("--drained", "Wait also until no request is in flight that would be refused now."),
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
    from .workers import watch_wait

    watch_wait(
        backend,
        component=component,
        drained=drained,
        timeout=timeout,
        expect=expect,
        silent=as_json,
        strict=not allow_unfenced,
        as_json=as_json,
    )


_COMMANDS["workers"] = _workers


@_workers.callback()
def _list_workers(ctx: typer.Context, backend: BackendOption, as_json: JsonOption = False) -> None:
    """List the workers: where they run, how they hear of changes, and what they have in flight.

    The link is 'tracking' if Redis pushes every write to the worker; 'message' if Redis pushes
    only the writes of this package, and the worker polls for the rest; 'polling' if it only polls;
    'down' without a connection. A worker is 'open', 'closed' while earlier requests are in flight,
    or 'drained'. A 'vanished' worker sends no reports and is not proved gone. The fence is the
    number of seconds without Redis after which the worker closes itself.
    """
    if ctx.invoked_subcommand is None:
        from .workers import list_workers

        list_workers(backend, as_json=as_json)


@_workers.command("forget", cls=_Command, short_help="Forget workers that vanished and are gone.")
def _forget(
    backend: BackendOption,
    names: Annotated[
        list[str],
        typer.Argument(metavar="ID|HOST...", help="The workers' ids, or the hosts they ran on."),
    ],
) -> None:
    """Forget vanished workers. Check first that their processes have ended.

    Every wait then counts them as gone. A worker that still reports is never forgotten.
    """
    from .workers import forget

    forget(backend, names)


# -- a command under a hold ------------------------------------------------------------------------


def _parse_drain(text: str) -> float:
    return 0.0 if text.strip() in ("0", "0s") else parse_seconds(text)


# `allow_interspersed_args`: options after the command's name are its own, as for `env` and `sudo`.
@_command(
    "run",
    short_help="Hold the service closed while a command runs.",
    context_settings={"allow_interspersed_args": False},
)
def _run(
    backend: BackendOption,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND",
            help="The command and its arguments, optionally after two dashes.",
            show_default=False,
        ),
    ],
    drain: Annotated[
        float,
        option(
            "--drain LENGTH",
            "The longest time to wait until the workers have drained. 0 does not wait.",
            _parse_drain,
            show_default="30s",
        ),
    ] = 30.0,
    lease: Annotated[
        float,
        option(
            "--lease LENGTH",
            "How long the service stays closed if this process dies.",
            parse_seconds,
            show_default="30s",
        ),
    ] = 30.0,
    reason: ReasonOption = None,
    message: MessageOption = None,
    allow: AllowOption = None,
    component: ComponentOption = None,
    on_error: Annotated[
        Literal["release", "keep"],
        flag(
            "--on-error",
            "If the command fails or is not run: open again, or keep the service closed.",
        ),
    ] = "release",
    on_lost: Annotated[
        Literal["warn", "kill"],
        flag(
            "--on-lost",
            "If the hold is lost while the command runs: warn, or also end the command.",
        ),
    ] = "warn",
    allow_unfenced: UnfencedOption = False,
    expect: ExpectOption = None,
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
    from .run import run

    run(
        backend,
        command,
        kill=on_lost == "kill",
        drain=drain or None,
        lease=lease,
        reason=reason,
        message=message,
        allow=allow or (),
        component=component,
        on_error=on_error,
        strict=not allow_unfenced,
        expect=expect,
    )


# -- history, windows, bypasses --------------------------------------------------------------------


@_command("history", short_help="Print who changed what, when and why.")
def _history(
    backend: BackendOption,
    limit: Annotated[
        int, option("--limit COUNT", "The number of past changes to print.", min=1)
    ] = 20,
    follow: Annotated[bool, flag("--follow", "Also print new changes, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
    component: ComponentOption = None,
) -> None:
    """Print the last changes, the newest at the end: when, what, who, from where, and why.

    The kinds of changes: 'set' by this program, the panel or code. 'noticed': written by another
    program, such as redis-cli; 'at' is the worker that saw it first. 'expired': its time to live
    ended. 'cleared': ended by force. 'hold taken' and 'hold released'. 'hold lapsed': its lease
    ended. 'restored' after Redis lost it. 'lost': not restored. With --follow and --json, each
    change is one line. Only Redis keeps a history.
    """
    from .history import show_history

    show_history(backend, limit, component, follow=follow, as_json=as_json)


_COMMANDS["schedule"] = _schedule


@_schedule.command("list", cls=_Command)
def _list_windows(
    backend: BackendOption, component: ComponentOption = None, as_json: JsonOption = False
) -> None:
    """Print the upcoming or current window, or nothing if there is none."""
    from .switch import list_windows

    list_windows(backend, component, as_json=as_json)


@_schedule.command("cancel", cls=_Command)
def _cancel_window(backend: BackendOption, component: ComponentOption = None) -> None:
    """Cancel the upcoming window or end the current one, and print the resulting status.

    Exits with 1 if there is no window. Use 'off' if maintenance is on without an end.
    """
    from .switch import cancel_window

    cancel_window(backend, component)


_COMMANDS["bypass"] = _bypass


@_bypass.command("create", cls=_Command)
def _create_bypass(
    backend: BackendOption,
    length: Annotated[
        timedelta,
        option(
            "--for LENGTH",
            "The longest time that it is valid, like 30m, 2h or 1d.",
            parse_duration,
            show_default="1h",
        ),
    ] = timedelta(hours=1),
    note: Annotated[
        str | None, option("--note TEXT", "Who it is for. Visitors never see it.")
    ] = None,
    url: Annotated[
        str, option("--url URL", "The address that the link leads to.")
    ] = "http://localhost:8000/",
    component: ComponentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a token that lets its bearer through, and print it with a link.

    It is valid until it expires, is revoked, or the switch gets another value. It does not pass
    while a hold is active. With --component, it passes what the switch of that component closes;
    without, what the general switch closes. The switch stores only a hash. The secret is
    FASTAPI_MAINTENANCE_SECRET, as for the workers.
    """
    from .bypass import create

    create(backend, length, note or None, url, component, as_json=as_json)


@_bypass.command("list", cls=_Command)
def _list_bypasses(
    backend: BackendOption, component: ComponentOption = None, as_json: JsonOption = False
) -> None:
    """Print the valid bypasses, or nothing if there are none."""
    from .bypass import list_bypasses

    list_bypasses(backend, component, as_json=as_json)


@_bypass.command("revoke", cls=_Command)
def _revoke_bypasses(
    backend: BackendOption,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID...", help="As 'bypass list' prints them.", show_default=False),
    ] = None,
    everything: Annotated[bool, flag("--all", "Revoke all of them.")] = False,
    component: ComponentOption = None,
) -> None:
    """Revoke bypasses on every worker at once."""
    if bool(ids) == everything:
        raise typer.BadParameter("must be given, or --all.", param_hint="ID...")
    from .bypass import revoke_bypasses

    revoke_bypasses(backend, ids, component)


# -- in the place of workers -----------------------------------------------------------------------


@_command("page")
def _page(
    out: Annotated[
        Path | None,
        option("--out FILE", "The file, which is replaced atomically. Default: print it."),
    ] = None,
    kind: Annotated[
        Literal["html", "json", "problem", "text", "http"],
        flag("--format", "http is the page with status and headers, for HAProxy."),
    ] = "html",
    message: MessageOption = None,
    until: Annotated[
        datetime | None,
        option(
            "--until TIME",
            "The expected end, in the formats of 'on --until'.",
            lambda text: parse_until(text, datetime.now().astimezone()),
        ),
    ] = None,
    retry_after: Annotated[
        int | None,
        option(
            "--retry-after SECONDS",
            "When clients should retry, in http and problem. Default: at the end, else in 60 s.",
            min=0,
            max=MAX_RETRY_AFTER,
        ),
    ] = None,
    language: Annotated[
        str, option("--language TAG", "The language of html, http and text.")
    ] = "en",
) -> None:
    """Write the maintenance page for a proxy, which sends it while no worker answers.

    It is the page of a closed worker. No backend is read.
    """
    from .page import write_page

    write_page(out, kind, message or None, until, retry_after, language)


@_command("serve")
def _serve(
    backend: BackendOption,
    port: Annotated[int, option("--port PORT", "The port to listen on.", min=0, max=65535)],
    host: Annotated[str, option("--host HOST", "The address to listen on.")] = "127.0.0.1",
) -> None:
    """Answer 503 to every request, in the place of workers that are gone.

    Follows the switch: while maintenance is on, the response is that of a closed worker. While it
    is off, the response says that the service is temporarily unavailable, with a Retry-After of a
    few seconds. Put it behind a proxy as the backup server. No barrier waits for it.

    Needs uvicorn, as in the extra 'demo'.
    """
    from .serve import serve

    serve(backend, host, port)


@_command("demo")
def _demo(
    workers: Annotated[
        int, option("--workers COUNT", "The number of workers to start.", min=1)
    ] = 4,
    check: Annotated[
        bool, flag("--check", "Flip the switch in every way and check every answer.")
    ] = False,
) -> None:
    """Show how fast a flip reaches several workers.

    Starts the workers with a small application and a Redis of their own. Needs the extra 'demo'.
    With --check, exits with 0 if every worker followed every flip, else with 1.
    """
    from .demo import run

    raise typer.Exit(run(workers, check=check))
