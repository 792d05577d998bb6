"""A program that is not run."""

from __future__ import annotations

from pathlib import Path

from fastapi_maintenance.demo.errors import DemoError
from fastapi_maintenance.demo.program import Program

__all__ = ["Standing"]


class Standing(Program):
    """Stands in for a program that runs, until a test says that it has ended."""

    def __init__(self) -> None:
        super().__init__("stand-in", (), log=Path("/dev/null"))
        self.ended = False

    def check(self) -> None:
        if self.ended:
            raise DemoError("The stand-in ended.")
