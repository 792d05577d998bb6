from __future__ import annotations

import io
import re

import pytest

from fastapi_maintenance.demo import screen
from fastapi_maintenance.demo.board import Board
from fastapi_maintenance.demo.screen import PlainScreen, TableScreen, can_draw, open_screen
from fastapi_maintenance.demo.witness import Statement


class Terminal(io.StringIO):
    """What says that it is a terminal, and keeps what is drawn on it."""

    def isatty(self) -> bool:
        return True


def board() -> Board:
    shown = Board()
    shown.rungs = {11: "tracking"}
    shown.saw(200, Statement(pid=11, enabled=False, source="redis", changes=0, changed_at=1.0))
    shown.saw(503, Statement(pid=12, enabled=True, source="last-known", changes=1, changed_at=1.0))
    return shown


def test_a_pipe_gets_a_line_for_each_event_with_its_time() -> None:
    out = io.StringIO()
    with open_screen(out) as plain:
        assert isinstance(plain, PlainScreen)
        plain.tell("worker 11 is open")
        plain.draw(board())
        plain.tell("worker 12 is closed")
    assert [re.sub(r"^\d\d:\d\d:\d\d\.\d{3}  ", "", line) for line in out.getvalue().splitlines()] == [
        "worker 11 is open",
        "worker 12 is closed",
    ]


def test_a_terminal_gets_a_table_of_the_workers_and_the_latest_events() -> None:
    out = Terminal()
    with open_screen(out, {"TERM": "xterm"}) as table:
        assert isinstance(table, TableScreen)
        for number in range(9):
            table.tell(f"event {number}")
        table.draw(board())
    drawn = out.getvalue()
    for text in ("pid 11", "200 open", "tracking", "pid 12", "503 closed", "last-known", "event 1", "event 8"):
        assert text in drawn
    assert "event 0" not in drawn


def test_a_terminal_that_cannot_be_drawn_on_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_draw(Terminal(), {"TERM": "xterm"})
    assert not can_draw(Terminal(), {"TERM": "dumb"})
    assert not can_draw(Terminal(), {})
    monkeypatch.setattr(screen, "find_spec", lambda name: None)
    assert not can_draw(Terminal(), {"TERM": "xterm"})
