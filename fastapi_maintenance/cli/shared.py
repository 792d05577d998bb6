"""What every command does with its options and with errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from ..backends import BaseStateBackend
from ..exceptions import ConfigurationError, MaintenanceError
from ..exemptions.allow_list import check_entry
from ..model.state import MOST_ALLOWED
from .console import ExitCode, complain
from .switch import operator
from .target import Target

__all__ = ["allowed_by", "argument", "explained", "fail", "open_target"]


def open_target(
    ctx: typer.Context, backend: str | None, var_name: str | None, file_path: str | None, scope: str | None = None
) -> BaseStateBackend:
    """The backend that the options after the command name, else those before it, and of which a scope is asked if any.

    A history is told who runs the command.

    Raises `ConfigurationError`.
    """
    outer: Target = ctx.obj
    target = Target(backend, var_name, file_path).over(outer).open()
    if scope is not None:
        target.follow_scopes([scope])
    return target.signed(operator())


def fail(sentence: str, code: ExitCode) -> NoReturn:
    """Say why, and end the command."""
    complain(sentence)
    raise typer.Exit(code)


@contextmanager
def explained() -> Iterator[None]:
    """Make a sentence and an exit code of this package's errors, and of no others: `typer.Exit` is an exception too."""
    try:
        yield
    except ConfigurationError as error:
        fail(str(error), ExitCode.USAGE)
    except MaintenanceError as error:
        fail(str(error), ExitCode.FAILED)


def allowed_by(entries: list[str] | None) -> tuple[str, ...]:
    """What `--allow` names, if it can be read."""
    with argument("--allow"):
        allowed = tuple(map(check_entry, entries or ()))
        if len(allowed) > MOST_ALLOWED:
            raise ValueError(f"{len(allowed)} entries are too many: {MOST_ALLOWED} are the most there can be.")
    return allowed


@contextmanager
def argument(option: str) -> Iterator[None]:
    """Let an option's value be refused as typer refuses one."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
