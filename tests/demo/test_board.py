from __future__ import annotations

from fastapi_maintenance.demo.board import Board, Row
from fastapi_maintenance.demo.witness import Statement
from fastapi_maintenance.demo.writes import Write


def statement(pid: int = 11, *, changes: int = 0, changed_at: float = 1.0, source: str = "redis", trouble: str = "") -> Statement:
    return Statement(pid=pid, enabled=changes % 2 == 1, source=source, changes=changes, changed_at=changed_at, trouble=trouble)


def test_a_worker_is_told_of_when_it_is_first_seen_and_not_again() -> None:
    board = Board()
    assert board.saw(200, statement()) == "worker 11 is open (200)"
    assert board.saw(200, statement()) is None


def test_a_change_is_told_with_the_write_it_followed() -> None:
    board = Board()
    board.saw(200, statement())
    board.wrote(Write(5.0, "SET maintenance 1"))
    assert board.saw(503, statement(changes=1, changed_at=5.0015)) == "worker 11 is closed (503), 1.5 ms after SET maintenance 1"


def test_a_change_that_follows_no_write_came_by_itself() -> None:
    board = Board()
    board.saw(503, statement(changes=1))
    assert board.saw(200, statement(changes=2, changed_at=9.0)) == "worker 11 is open (200), by itself"
    assert board.rows() == [Row(11, 200, "redis", "?", "by itself", "")]


def test_another_source_is_told() -> None:
    board = Board()
    board.saw(503, statement())
    assert board.saw(503, statement(source="last-known")) == "worker 11 has its state from last-known"


def test_a_switch_that_cannot_be_read_is_told_with_what_stands_instead_and_so_is_its_end() -> None:
    board = Board()
    board.saw(503, statement())
    assert board.saw(503, statement(trouble="'x' is no word.")) == (
        "worker 11 stays closed (503), as it cannot read the switch: 'x' is no word."
    )
    assert board.saw(503, statement(trouble="'x' is no word.")) is None
    assert [row.source for row in board.rows()] == ["redis, unreadable"]
    assert board.saw(503, statement()) == "worker 11 can read the switch again, and is closed (503)"
    assert [row.source for row in board.rows()] == ["redis"]


def test_a_worker_that_is_first_seen_with_a_switch_that_it_cannot_read_says_so() -> None:
    assert Board().saw(200, statement(trouble="'x' is no word.")) == (
        "worker 11 stays open (200), as it cannot read the switch: 'x' is no word."
    )


def test_a_worker_that_is_gone_is_told_and_no_longer_shown() -> None:
    board = Board()
    board.saw(200, statement(11))
    board.saw(200, statement(12))
    assert board.left(11) == "worker 11 is gone"
    assert [row.pid for row in board.rows()] == [12]


def test_rows_are_in_order_and_say_what_the_latest_flip_and_the_median_took() -> None:
    board = Board()
    board.rungs = {12: "tracking"}
    board.saw(200, statement(12))
    board.saw(200, statement(11))
    for changes, at, took in ((1, 5.0, 0.002), (2, 6.0, 0.004), (3, 7.0, 0.003)):
        board.wrote(Write(at, "SET"))
        board.saw(503 if changes % 2 else 200, statement(12, changes=changes, changed_at=at + took))
    rows = board.rows()
    assert rows == [Row(11, 200, "redis", "?", "", ""), Row(12, 503, "redis", "tracking", "3.0 ms", "3.0 ms")]
    assert [row.state for row in rows] == ["open", "closed"]
