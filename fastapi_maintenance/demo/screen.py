"""Where the demo shows what happens: plain lines, or a live table on a terminal."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from .board import Board

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

__all__ = ["PlainScreen", "Screen", "TableScreen", "can_draw", "open_screen"]

_RECENT: Final = 8  # events below the table


class Screen(Protocol):
    """What the live view is shown on."""

    def tell(self, event: str) -> None:
        """Something happened."""

    def draw(self, board: Board) -> None:
        """This is how things are now."""


class PlainScreen:
    """A line for each event, with the time; for pipes and files."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def tell(self, event: str) -> None:
        print(f"{_clock()}  {event}", file=self._out, flush=True)

    def draw(self, board: Board) -> None:
        """Nothing: what changed was told."""


class TableScreen:
    """A table that changes in place, and the latest events below it."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._events: deque[str] = deque(maxlen=_RECENT)

    def tell(self, event: str) -> None:
        self._events.append(f"{_clock()}  {event}")

    def draw(self, board: Board) -> None:
        self._live.update(_render(board, self._events), refresh=True)


@contextmanager
def open_screen(out: TextIO, environment: Mapping[str, str] = os.environ) -> Iterator[Screen]:
    """The best screen for where the output goes."""
    if not can_draw(out, environment):
        yield PlainScreen(out)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(file=out), auto_refresh=False) as live:
        yield TableScreen(live)


def can_draw(out: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether it is a terminal that can be drawn on, and there is what draws."""
    return out.isatty() and environment.get("TERM", "dumb") != "dumb" and find_spec("rich") is not None


def _render(board: Board, events: deque[str]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("worker", "a visitor gets", "state from", "hears by", "reached in", "median")
    for row in board.rows():
        colour = "green" if row.status == 200 else "red"
        answer = Text(f"{row.status} {row.state}", style=colour)
        table.add_row(f"pid {row.pid}", answer, row.source, row.rung, row.reached, row.median)
    return Group(table, *map(Text, events))


def _clock() -> str:
    now = time.time()
    return f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now % 1 * 1000):03d}"
