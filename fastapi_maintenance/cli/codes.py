"""The exit codes, the same for every command."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """What a command says to the script that runs it. 3, 4 and 5 are left to commands that wait for the workers."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # also what typer says of options it cannot read
    ON = 6  # `status --exit-code` only
