"""Options that several commands share, parsed and checked."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import typer

from ..exceptions import ConfigurationError
from .durations import parse_duration

if TYPE_CHECKING:
    from ..backends import BaseStateBackend

_PLUGINS: Final = "PYDANTIC_DISABLE_PLUGINS"
MAX_RETRY_AFTER: Final = 2**31 - 1  # as in model/state.py, which imports pydantic


def option(
    spec: str,
    text: str,
    default: object = None,
    *,
    parse: Callable[[str], object] | None = None,
    **more: Any,
) -> Any:
    """Describe an option, like `--force` or `--for LENGTH`. The errors of `parse` name it."""

    def parser(given: Any) -> object:
        try:
            return parse(given) if parse and isinstance(given, str) else given  # or a default
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    name, _, metavar = spec.partition(" ")
    if parse is not None:
        more["parser"] = parser
    return typer.Option(default, name, metavar=metavar or None, help=text, **more)


def parse_seconds(text: str) -> float:
    """Parse a length. Raises `ValueError`."""
    return parse_duration(text).total_seconds()


def none_if_empty(value: str | None) -> str | None:
    """Return a text, or None if there is none."""
    return value or None


# -- the backend -----------------------------------------------------------------------------------


class BackendSelection(NamedTuple):
    """The options that name a backend."""

    url: str | None = None
    var_name: str | None = None
    file_path: str | None = None

    def create(self) -> BaseStateBackend:
        """Create the backend. Raises `ConfigurationError`."""
        with _without_plugins():
            from ..backends.default import BACKEND_VARIABLE, backend_or_default

        url = self.url or None
        for name, value, kind in (
            ("--var-name", self.var_name, "env"),
            ("--file-path", self.file_path and quote(self.file_path), "file"),
        ):
            if value is None:
                continue
            if not value:
                raise ConfigurationError(f"{name} must not be empty. Give a value, or omit it.")
            if url not in (None, kind):
                raise ConfigurationError(
                    f"{name} must be used with --backend {kind}, got another backend. "
                    "Remove one of the two options."
                )
            url = f"{kind}:{value}"
        try:
            return backend_or_default(url)
        except ConfigurationError as error:
            if url:
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


def _create_backend(ctx: typer.Context, url: str | None) -> object:
    root: BackendSelection = ctx.obj
    return root._replace(url=url or root.url).create().as_operator(operator())


_BACKEND_HELP: Final = (
    "Where the switch is: redis://…, rediss://…, unix://…, redis+sentinel://…, redis+cluster://…, "
    "file:PATH or env:NAME; valkey://… means redis://…. "
    "Default: the URL in FASTAPI_MAINTENANCE_BACKEND, else env:FASTAPI_MAINTENANCE_MODE."
)
ROOT_BACKEND: Final = option("--backend URL", _BACKEND_HELP)
BACKEND: Final = option("--backend URL", _BACKEND_HELP, parse=str, callback=_create_backend)
VAR_NAME: Final = option("--var-name NAME", "The variable of --backend env.", hidden=True)
FILE_PATH: Final = option("--file-path PATH", "The file of --backend file.", hidden=True)

# -- the state -------------------------------------------------------------------------------------


def _check_entry(entry: str) -> str:
    from ..exemptions.allow_list import check_entry

    return check_entry(entry)


def _check_number(entries: list[str] | None) -> list[str] | None:
    if entries:
        from ..model.state import MAX_ALLOW_ENTRIES

        if len(entries) > MAX_ALLOW_ENTRIES:
            raise typer.BadParameter(
                f"must be given at most {MAX_ALLOW_ENTRIES} times, got {len(entries)}."
            )
    return entries


COMPONENT: Final = option(
    "--component NAME",
    "Only the routes of this component. Its key is that of the general switch with :NAME.",
)
MESSAGE: Final = option("--message TEXT", "The message for visitors.", callback=none_if_empty)
REASON: Final = option(
    "--reason TEXT", "The reason, for operators. Visitors never see it.", callback=none_if_empty
)
ALLOW: Final = option(
    "--allow ENTRY",
    'Let these requests pass: "/login", "POST /login", "/users/{id}", 10.1.0.0/16 or '
    '"GET 10.1.0.0/16". May be repeated.',
    parse=_check_entry,
    callback=_check_number,
)

# -- waiting and output ----------------------------------------------------------------------------

TIMEOUT: Final = option(
    "--timeout LENGTH",
    "The longest time to wait, like 90, 30s or 5m.",
    30.0,
    parse=parse_seconds,
    show_default="30s",
)
DRAINED: Final = option(
    "--drained", "Also wait until no request is in flight that is refused now.", False
)
EXPECT: Final = option(
    "--expect N",
    "Wait for exactly this number of workers. Default: at least one must be registered.",
    min=0,
)
ALLOW_UNFENCED: Final = option(
    "--allow-unfenced", "Succeed although vanished workers may still be serving.", False
)
AS_JSON: Final = option("--json", "Print JSON, always with the same keys.", False)
