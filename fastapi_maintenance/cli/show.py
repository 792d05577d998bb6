"""Printing a report, for whoever reads it, and ending a command by what came of it."""

from __future__ import annotations

import json

from ..report import Report
from .codes import ExitCode
from .output import say, terminal
from .shared import fail
from .switch import Outcome
from .view import as_lines, as_tables, replicas_line

__all__ = ["conclude", "show"]


def show(report: Report, *, as_json: bool = False) -> None:
    """Print it as JSON, as lines for a pipe, or as tables on a terminal."""
    console = terminal()
    if as_json:
        say(json.dumps(report.to_json(), indent=2))
    elif console is None:
        say("\n".join(as_lines(report)))
    else:
        console.print(as_tables(report))


def conclude(outcome: Outcome, *, as_json: bool = False) -> None:
    """Print what is true afterwards; where that is not what was asked for, say why and fail."""
    if as_json:
        say(json.dumps(outcome.to_json(), indent=2))
    else:
        show(outcome.report)
        if outcome.replicas is not None:
            say(replicas_line(outcome.replicas))
    if outcome.problem:
        fail(outcome.problem, ExitCode.FAILED)
