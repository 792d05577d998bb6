"""Options that several commands share, parsed and checked."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..exceptions import ConfigurationError
from .durations import parse_duration

if TYPE_CHECKING:
    from ..backends import BaseStateBackend
else:
    BaseStateBackend = object  # as typer needs a type at run time


_PLUGINS: Final = "PYDANTIC_DISABLE_PLUGINS"
MAX_RETRY_AFTER: Final = 2**31 - 1  # as in model/state.py, which imports pydantic


def option(spec: str, text: str, parse: Callable[[str], object] | None = None, **more: Any) -> Any:
    """Describe an option with a value, like `--for LENGTH`. The errors of `parse` name it."""
    name, metavar = spec.split()
    if parse is not None:
        more["parser"] = _parser_of(parse)
    return typer.Option(name, metavar=metavar, help=text, **more)


def flag(name: str, text: str) -> Any:
    """Describe an option without a value."""
    return typer.Option(name, help=text)


def _parser_of(parse: Callable[[str], object]) -> Callable[[Any], object]:
    def parser(text: Any) -> object:
        try:
            return parse(text) if isinstance(text, str) else text  # click parses defaults, too
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parser


def parse_seconds(text: str) -> float:
    """Parse a length. Raises `ValueError`."""
    return parse_duration(text).total_seconds()


# -- the backend -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BackendSelection:
    """The options that name a backend."""

    url: str | None = None
    var_name: str | None = None
    file_path: str | None = None

    def create(self) -> BaseStateBackend:
        """Create the backend. Raises `ConfigurationError`."""
        with _without_plugins():
            from ..backends.default import BACKEND_VARIABLE, backend_of_kind, backend_or_default

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


@contextmanager
def _without_plugins() -> Iterator[None]:
    """Keep pydantic from searching every installed package for plugins."""
    given = os.environ.get(_PLUGINS)
    os.environ[_PLUGINS] = "__all__"
    try:
        yield
    finally:  # the command of `run` has its own pydantic
        del os.environ[_PLUGINS]
        if given is not None:
            os.environ[_PLUGINS] = given


def _create_backend(ctx: typer.Context, url: str | None) -> BaseStateBackend | None:
    if ctx.resilient_parsing:  # for completion
        return None
    selection: BackendSelection = ctx.obj or BackendSelection()
    return replace(selection, url=url or selection.url).create().as_operator(operator())


_BACKEND_HELP = (
    "Where the switch is: redis://…, rediss://…, unix://…, redis+sentinel://…, redis+cluster://…, "
    "file:PATH or env:NAME; valkey://… means redis://…. "
    "Default: the URL in FASTAPI_MAINTENANCE_BACKEND, else env:FASTAPI_MAINTENANCE_MODE."
)
RootBackendOption = Annotated[str | None, option("--backend URL", _BACKEND_HELP)]
VarNameOption = Annotated[
    str | None, option("--var-name NAME", "The variable of --backend env.", hidden=True)
]
FilePathOption = Annotated[
    str | None, option("--file-path PATH", "The file of --backend file.", hidden=True)
]
BackendOption = Annotated[
    BaseStateBackend,
    option(
        "--backend URL",
        _BACKEND_HELP,
        str,
        default_factory=lambda: None,
        show_default=False,
        callback=_create_backend,
    ),
]


# -- the state -------------------------------------------------------------------------------------


def _check_entry(entry: str) -> str:
    from ..exemptions.allow_list import check_entry

    return check_entry(entry)


def _check_number(entries: list[str] | None) -> tuple[str, ...]:
    if entries:
        from ..model.state import MAX_ALLOW_ENTRIES

        if len(entries) > MAX_ALLOW_ENTRIES:
            raise typer.BadParameter(
                f"must be given at most {MAX_ALLOW_ENTRIES} times, got {len(entries)}."
            )
    return tuple(entries or ())


ComponentOption = Annotated[
    str | None,
    option(
        "--component NAME",
        "Only the routes of this component. Its key is that of the general switch with :NAME.",
    ),
]
MessageOption = Annotated[str | None, option("--message TEXT", "The message for visitors.")]
ReasonOption = Annotated[
    str | None, option("--reason TEXT", "The reason, for operators. Visitors never see it.")
]
AllowOption = Annotated[
    list[str] | None,
    option(
        "--allow ENTRY",
        'Let these requests pass: "/login", "POST /login", "/users/{id}", 10.1.0.0/16 or '
        '"GET 10.1.0.0/16". May be repeated.',
        _check_entry,
        callback=_check_number,
    ),
]
ForOption = Annotated[
    timedelta | None,
    option(
        "--for LENGTH",
        "End automatically after 90, 90s, 30m, 2h, 1d or 1h30m. A number alone is seconds.",
        parse_duration,
    ),
]
RetryAfterOption = Annotated[
    int | None,
    option(
        "--retry-after SECONDS",
        "When clients should retry. Default: at the end, else in an hour.",
        min=0,
        max=MAX_RETRY_AFTER,
    ),
]


# -- waiting and output ----------------------------------------------------------------------------

TimeoutOption = Annotated[
    float,
    option(
        "--timeout LENGTH",
        "The longest time to wait, like 90, 30s or 5m.",
        parse_seconds,
        show_default="30s",
    ),
]
ExpectOption = Annotated[
    int | None,
    option(
        "--expect N",
        "Wait for exactly this number of workers. Default: at least one must be registered.",
        min=0,
    ),
]
UnfencedOption = Annotated[
    bool, flag("--allow-unfenced", "Succeed although vanished workers may still be serving.")
]
JsonOption = Annotated[bool, flag("--json", "Print JSON, always with the same keys.")]
