"""Options that several commands share, parsed and checked."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, TypeVar

import typer

from ..backends import BaseStateBackend
from ..backends.default import BACKEND_VARIABLE, backend_of_kind, backend_or_default
from ..exceptions import ConfigurationError
from ..exemptions.allow_list import check_entry
from ..model.state import MAX_ALLOW_ENTRIES, MAX_RETRY_AFTER
from .console import handle_errors
from .durations import parse_duration

T = TypeVar("T")


def option(name: str, metavar: str, text: str, **more: Any) -> Any:
    """Describe an option with a value."""
    return typer.Option(name, metavar=metavar, help=text, **more)


def parser_of(parse: Callable[[str], T]) -> Callable[[str | T], T]:
    """Report a parser's `ValueError` as the command line reports an invalid value."""

    def parser(text: str | T) -> T:
        try:
            return parse(text) if isinstance(text, str) else text  # click parses defaults, too
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parser


# -- the backend -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BackendSelection:
    """The options that name a backend."""

    url: str | None = None
    var_name: str | None = None
    file_path: str | None = None

    def create(self) -> BaseStateBackend:
        """Create the backend. Raises `ConfigurationError`."""
        implied = "env" if self.var_name is not None else "file" if self.file_path else ""
        kind = self.url or implied
        for name, value, owner in (
            ("--var-name", self.var_name, "env"),
            ("--file-path", self.file_path, "file"),
        ):
            if value is not None and kind != owner:
                raise ConfigurationError(
                    f"{name} must be used with --backend {owner}, got another backend. "
                    "Remove one of the two options."
                )
        if kind == "env":
            return backend_of_kind("env", var_name=self.var_name)
        if kind == "file" and self.file_path is not None:
            return backend_of_kind("file", file_path=self.file_path)
        try:
            return backend_or_default(kind or None)
        except ConfigurationError as error:
            if kind:
                raise
            raise ConfigurationError(
                f"Invalid value of the environment variable {BACKEND_VARIABLE}: {error}"
            ) from None


def operator() -> str:
    """Return who runs the command, as `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user id may have no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _create_backend(ctx: typer.Context, url: str | None) -> BaseStateBackend:
    selection: BackendSelection = ctx.obj or BackendSelection()
    with handle_errors():
        return replace(selection, url=url or selection.url).create().as_operator(operator())


_BACKEND_HELP = (
    "Where the switch is: redis://…, rediss://…, unix://…, redis+sentinel://…, redis+cluster://…, "
    "file:PATH or env:NAME; valkey://… means redis://…. "
    "Default: the URL in FASTAPI_MAINTENANCE_BACKEND, else env:FASTAPI_MAINTENANCE_MODE."
)
RootBackendOption = Annotated[str | None, option("--backend", "URL", _BACKEND_HELP)]
VarNameOption = Annotated[
    str | None, option("--var-name", "NAME", "The variable of --backend env.", hidden=True)
]
FilePathOption = Annotated[
    str | None, option("--file-path", "PATH", "The file of --backend file.", hidden=True)
]
BackendOption = Annotated[
    BaseStateBackend,
    option(
        "--backend",
        "URL",
        _BACKEND_HELP,
        parser=str,
        default_factory=lambda: None,
        show_default=False,
        callback=_create_backend,
    ),
]


# -- the state -------------------------------------------------------------------------------------


def _check_number(entries: list[str] | None) -> tuple[str, ...]:
    if len(entries or ()) > MAX_ALLOW_ENTRIES:
        raise typer.BadParameter(
            f"must be given at most {MAX_ALLOW_ENTRIES} times, got {len(entries or ())}."
        )
    return tuple(entries or ())


class ModeName(Enum):
    """The values of `--mode`."""

    FULL = "full"
    READ_ONLY = "read-only"


ComponentOption = Annotated[
    str | None,
    option(
        "--component",
        "NAME",
        "Only the routes of this component. Its switch is the general one's key with :NAME.",
    ),
]
MessageOption = Annotated[str | None, option("--message", "TEXT", "The message for visitors.")]
ReasonOption = Annotated[
    str | None, option("--reason", "TEXT", "The reason, for operators. Visitors never see it.")
]
ByOption = Annotated[str | None, option("--by", "TEXT", "The operator's name. Default: user@host.")]
ForOption = Annotated[
    timedelta | None,
    option(
        "--for",
        "LENGTH",
        "End automatically after 90, 90s, 30m, 2h, 1d or 1h30m. A number alone is seconds.",
        parser=parser_of(parse_duration),
    ),
]
AtOption = Annotated[
    str | None,
    option(
        "--at",
        "TIME",
        "Start at this time instead of now, in the formats of --until. "
        "--for is then measured from the start.",
    ),
]
UntilOption = Annotated[
    str | None,
    option(
        "--until",
        "TIME",
        "End automatically at this time. 04:00 or 04:00:30 is the next such time here, after "
        "--at if given. 2026-11-22T04:00 is local time, too. 2026-11-22T04:00Z and "
        "2026-11-22T04:00+01:00 name their zone.",
    ),
]
RetryAfterOption = Annotated[
    int | None,
    option(
        "--retry-after",
        "SECONDS",
        "When clients should retry. Default: at the end, else in an hour.",
        min=0,
        max=MAX_RETRY_AFTER,
    ),
]
ModeOption = Annotated[
    ModeName, typer.Option("--mode", help="read-only lets GET, HEAD, OPTIONS and TRACE pass.")
]
AllowOption = Annotated[
    list[str] | None,
    option(
        "--allow",
        "ENTRY",
        'Let these requests pass: "/login", "POST /login", "/users/{id}", 10.1.0.0/16 or '
        '"GET 10.1.0.0/16". May be repeated.',
        parser=parser_of(check_entry),
        callback=_check_number,
    ),
]


# -- waiting and output ----------------------------------------------------------------------------

TimeoutOption = Annotated[
    float,
    option(
        "--timeout",
        "LENGTH",
        "The longest time to wait, like 90, 30s or 5m.",
        parser=parser_of(lambda text: parse_duration(text).total_seconds()),
        show_default="30s",
    ),
]
ExpectOption = Annotated[
    int | None,
    option(
        "--expect",
        "N",
        "Wait for exactly this number of workers. Default: at least one must be registered.",
        min=0,
    ),
]
UnfencedOption = Annotated[
    bool,
    typer.Option(
        "--allow-unfenced", help="Succeed although vanished workers may still be serving."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, always with the same keys.")]
