"""What every command does with its options and with errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from ..backends import BaseStateBackend
from ..exceptions import ConfigurationError, MaintenanceError
from ..exemptions.allow_list import check_entry
from ..model.state import MAX_ALLOW_ENTRIES
from .console import ExitCode, echo_error
from .switch import operator
from .target import BackendSelection

__all__ = ["allowed_by", "exit_with", "handle_errors", "invalid_option", "open_target"]


def open_target(
    ctx: typer.Context,
    backend: str | None,
    var_name: str | None,
    file_path: str | None,
    component: str | None = None,
) -> BaseStateBackend:
    """The backend that the options after the command name, else those before it, and of which a component is asked if any.

    A history is told who runs the command.

    Raises `ConfigurationError`.
    """
    outer: BackendSelection = ctx.obj
    target = BackendSelection(backend, var_name, file_path).merge(outer).create()
    if component is not None:
        target.follow_components([component])
    return target.as_operator(operator())


def exit_with(sentence: str, code: ExitCode) -> NoReturn:
    """Say why, and end the command."""
    echo_error(sentence)
    raise typer.Exit(code)


@contextmanager
def handle_errors() -> Iterator[None]:
    """Make a sentence and an exit code of this package's errors, and of no others: `typer.Exit` is an exception too."""
    try:
        yield
    except ConfigurationError as error:
        exit_with(str(error), ExitCode.USAGE)
    except MaintenanceError as error:
        exit_with(str(error), ExitCode.FAILED)


def allowed_by(entries: list[str] | None) -> tuple[str, ...]:
    """What `--allow` names, if it can be read."""
    with invalid_option("--allow"):
        allowed = tuple(map(check_entry, entries or ()))
        if len(allowed) > MAX_ALLOW_ENTRIES:
            raise ValueError(
                f"{len(allowed)} entries are too many: {MAX_ALLOW_ENTRIES} are the most there can be."
            )
    return allowed


@contextmanager
def invalid_option(option: str) -> Iterator[None]:
    """Let an option's value be refused as typer refuses one."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
