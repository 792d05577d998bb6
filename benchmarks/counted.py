"""7. How many instructions a request costs, which CI holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from . import instructions
from .progress import say
from .table import table

__all__ = ["TITLE", "measure", "plots", "report"]

TITLE: Final = "Instructions"
_WHAT: Final = f"""\
Counted by callgrind, so the same on a busy machine. The application beneath does nothing, but for `bare`, which is FastAPI's cheapest JSON
endpoint. `scripts/bench instructions --check` fails in CI if the open or the 503 path has grown by over {instructions.MOST_GROWTH:.0%}
against [instructions.json](instructions.json), where they are in units of a yardstick of plain Python, so that two builds of one
interpreter agree. `scripts/bench instructions --renew` renews it; say in the commit what the growth buys."""


def measure() -> dict[str, Any]:
    """Count them, where that is possible."""
    try:
        return {"counted": instructions.count()}
    except RuntimeError as error:
        say(str(error))
        return {"counted": {}}


def report(figures: Mapping[str, Any]) -> str:
    """The table."""
    counted = figures["counted"]
    if not counted:
        return "There was no valgrind."
    rows = [
        [name, f"{cost:,.0f}", f"{cost / counted['bare']:.1%}"] for name, cost in counted.items()
    ]
    return "\n\n".join([_WHAT, table(["", "instructions", "of a bare request"], rows)])


def plots(figures: Mapping[str, Any]) -> dict[str, str]:
    """None."""
    return {}
