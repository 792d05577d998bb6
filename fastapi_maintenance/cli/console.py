"""Console output and exit codes."""

from __future__ import annotations

import io
import logging
import os
import select
import sys
from enum import IntEnum

import typer
from rich.console import Console
from rich.text import Text

__all__ = ["ExitCode", "echo", "echo_error", "prepare", "sanitize", "stdout_closed", "terminal"]


def prepare() -> None:
    """Make standard output take every character, and standard error only what commands say."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    logger = logging.getLogger("fastapi_maintenance")
    if not logger.handlers:  # without any, Python prints warnings that the commands say better
        logger.addHandler(logging.NullHandler())


def terminal() -> Console | None:
    """The terminal that standard output is; None for a pipe or a file. Follows NO_COLOR."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return Console(highlight=False, markup=False, emoji=False)


def echo(line: str) -> bool:
    """Print a line at once, and say whether anybody is left to read it."""
    try:
        typer.echo(line)
    except BrokenPipeError:
        # What is left in the buffer would fail again, with a traceback, when Python ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return False
    return True


def echo_error(sentence: str) -> None:
    """Print to standard error, on one line however long, red on a terminal."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        Text(sanitize(sentence), style="red")
    )


def stdout_closed() -> bool:
    """Whether standard output is a pipe whose reader has gone; found out without writing."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):  # closed from the start, or not a file at all
        return False
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are always told
    return any(event & select.POLLERR for _, event in poll.poll(0))


def sanitize(text: str) -> str:
    """What somebody else wrote, without what would steer a terminal or begin a new line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ExitCode(IntEnum):
    """What a command says to the script that runs it."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # also what typer says of options it cannot read
    NOT_DRAINED = 3  # not every worker followed in time
    UNFENCED = 4  # workers vanished that may still be serving
    LEASE_LOST = 5  # the hold ended before the command did
    ON = 6  # `status --exit-code` only
    INTERRUPTED = 130  # as a shell says it of Ctrl-C
