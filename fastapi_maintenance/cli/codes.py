"""The exit codes, the same for every command."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


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
