"""The command line within the test's own process, and what a command did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from fastapi_maintenance.cli.app import app


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it printed."""
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        """What it printed, read as JSON."""
        return json.loads(self.out)


def run(*arguments: str, env: Mapping[str, str] | None = None) -> Ran:
    """Run a command as a script would, with pipes for output; not for one that starts another.

    A process of its own costs half a second of imports: `tests.cli.program` is for what is about
    processes and terminals.
    """
    result = CliRunner().invoke(app, list(arguments), env=env, catch_exceptions=False)
    return Ran(result.exit_code, result.stdout, result.stderr)
