"""Console output and exit codes."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer

from .._internal.logging import one_line
from ..exceptions import BarrierError, ConfigurationError, MaintenanceError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table


_INTERRUPTIONS: Final = (signal.SIGINT, signal.SIGTERM)


class ExitCode(IntEnum):
    """The exit codes, the same for every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # as typer exits for options that it cannot parse
    NOT_DRAINED = 3  # not every worker followed in time
    UNFENCED = 4  # vanished workers may still be serving
    LEASE_LOST = 5  # the hold ended before the command did
    ON = 6  # `status --exit-code` only
    INTERRUPTED = 130  # as a shell exits after Ctrl-C


def exit_code_of(error: MaintenanceError) -> ExitCode:
    """Return the exit code of an error."""
    if isinstance(error, BarrierError):
        return ExitCode.UNFENCED if error.result.is_over else ExitCode.NOT_DRAINED
    return ExitCode.USAGE if isinstance(error, ConfigurationError) else ExitCode.FAILED


def exit_with(sentence: str, code: ExitCode) -> NoReturn:
    """Print an error and end the command."""
    echo_error(sentence)
    raise typer.Exit(code)


def terminal() -> Console | None:
    """Return the terminal on standard output, or None for a pipe or a file. Follows NO_COLOR."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def show(
    document: Callable[[], Any],
    lines: Callable[[], Iterable[str]],
    table: Callable[[], RenderableType],
    *,
    as_json: bool,
) -> None:
    """Print JSON if asked, else a table on a terminal, else lines."""
    if as_json:
        echo_json(document())
    elif (console := terminal()) is not None:
        console.print(table())
    else:
        for line in lines():
            echo(line)


def as_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | None]],
    colours: Mapping[str, str] | None = None,
) -> Table:
    """Return a table for a terminal. `colours` maps words to their styles."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns)
    for row in rows:
        table.add_row(
            *(Text(one_line(text or ""), style=(colours or {}).get(text or "", "")) for text in row)
        )
    return table


def echo_json(document: Any) -> None:
    """Print a document as indented JSON."""
    echo(json.dumps(document, indent=2))


def echo(line: str) -> bool:
    """Print a line at once. Returns False if the reader has closed the pipe."""
    try:
        typer.echo(line)
    except BrokenPipeError:
        # The rest of the buffer would fail again when Python ends, with a traceback.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return False
    return True


def echo_error(sentence: str) -> None:
    """Print to standard error on one line, red on a terminal. Follows NO_COLOR."""
    colour = None if os.environ.get("NO_COLOR") else "red"
    typer.secho(one_line(sentence), fg=colour, err=True)


@contextmanager
def on_interruption(callback: Callable[[], object]) -> Iterator[None]:
    """Call back on SIGINT and SIGTERM instead of ending, so that the terminal is restored."""
    import asyncio  # a third of the start, which not every command needs

    loop = asyncio.get_running_loop()
    for number in _INTERRUPTIONS:
        loop.add_signal_handler(number, callback)
    try:
        yield
    finally:
        for number in _INTERRUPTIONS:
            loop.remove_signal_handler(number)


def stdout_closed() -> bool:
    """Return whether standard output is a pipe without a reader. Writes nothing."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):  # closed from the start, or not a file at all
        return False
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are always reported
    return any(event & select.POLLERR for _, event in poll.poll(0))
