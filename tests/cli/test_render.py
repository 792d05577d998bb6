from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from fastapi_maintenance import MaintenanceState
from fastapi_maintenance.backends.base import ReplicaAck
from fastapi_maintenance.backends.status import StatusReport
from fastapi_maintenance.cli.durations import show_moment
from fastapi_maintenance.cli.render import as_lines, as_tables, replicas_line
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF, ON

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
EARLIER = NOW - timedelta(minutes=10)
HOLD = Hold(
    "7f",
    MaintenanceState(enabled=True, by="ci:41", reason="reindex", mode="read-only"),
    1.0,
    NOW.timestamp() + 23,
)


def report(**reading: Any) -> StatusReport:
    return StatusReport(
        "redis://host:6379/0?key=maintenance",
        "redis",
        Snapshot(now=NOW.timestamp(), **reading),
        NOW.timestamp(),
    )


def drawn(seen: StatusReport, width: int = 100) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(as_tables(seen))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_off_needs_few_lines() -> None:
    assert as_lines(report()) == [
        "maintenance: off",
        "decided by: switch",
        "switch: off",
        "backend: redis://host:6379/0?key=maintenance",
    ]


def test_every_fact_has_a_line() -> None:
    state = MaintenanceState(
        enabled=True,
        message="Back soon",
        reason="OPS-417",
        by="ana@ops",
        since=EARLIER,
        ends_at=LATER,
        retry_after=120,
    )
    assert as_lines(report(switch=state, expires_in=7200.0)) == [
        "maintenance: on",
        "mode: full",
        "message: Back soon",
        "reason: OPS-417",
        "by: ana@ops",
        f"since: {show_moment(EARLIER)} (10 min ago)",
        f"until: {show_moment(LATER)} (in 1 h)",
        "retry-after: 120 s",
        "decided by: switch",
        "switch: on, 2 h left to live",
        "backend: redis://host:6379/0?key=maintenance",
    ]


def test_status_names_ignored_details() -> None:
    switch = MaintenanceState.parse('{"enabled": true, "msg\\n": "x", "mode": "readonly"}')
    lines = as_lines(report(switch=switch))
    assert "ignored: mode: Input should be 'full' or 'read-only'" in lines
    assert "ignored: msg\\n: unknown key" in lines


def test_every_hold_has_a_line() -> None:
    off = Hold("8a", OFF, 2.0)
    lines = as_lines(report(holds=(HOLD, off)))
    assert "hold: on, read-only, by ci:41 (reindex), lease 23 s left" in lines
    assert "hold: off, by 8a, lease as long as its process lives" in lines


@pytest.mark.parametrize(
    ("reading", "lines"),
    [
        (
            {"switch": None, "error": "It is garbage."},
            ["maintenance: unknown", "switch: unreadable", "error: It is garbage."],
        ),
        (
            {"holds": None, "error": "Not a hash."},
            ["maintenance: unknown", "switch: off", "holds: unreadable", "error: Not a hash."],
        ),
    ],
)
def test_what_cannot_be_read_is_said(reading: dict[str, Any], lines: list[str]) -> None:
    assert as_lines(report(**reading))[:-1] == lines


def test_a_window_is_announced_with_both_its_ends() -> None:
    window = MaintenanceState(enabled=True, starts_at=LATER, ends_at=LATER + timedelta(hours=1))
    assert (
        f"coming: on from {show_moment(LATER)} (in 1 h) until "
        f"{show_moment(LATER + timedelta(hours=1))}" in as_lines(report(switch=window))
    )
    endless = MaintenanceState(enabled=True, starts_at=LATER)
    assert f"coming: on from {show_moment(LATER)} (in 1 h)" in as_lines(report(switch=endless))


def test_window_after_the_end_of_its_key_is_not_announced() -> None:
    window = MaintenanceState(enabled=True, starts_at=LATER)
    lines = as_lines(report(switch=window, expires_in=600.0))
    assert lines[0] == "maintenance: off"
    assert "switch: on, but gone before its window begins, 10 min left to live" in lines
    assert not any(line.startswith("coming") for line in lines)


def test_an_end_that_is_over_is_said_of_the_switch() -> None:
    lines = as_lines(report(switch=MaintenanceState(enabled=True, ends_at=EARLIER)))
    assert lines[0] == "maintenance: off"
    assert f"switch: on, ended {show_moment(EARLIER)} (10 min ago)" in lines


def test_text_from_the_backend_is_escaped() -> None:
    evil = "x\nmaintenance: off\x1b[2J\u202e"
    state = MaintenanceState(enabled=True, message=evil, reason=evil, by=evil)
    seen = report(
        switch=state,
        holds=(Hold(evil, state, 1.0), Hold("b", MaintenanceState(enabled=True, reason=evil), 2.0)),
        error=evil,
    )
    lines = as_lines(seen)
    assert [line for line in lines if line.startswith("maintenance:")] == ["maintenance: on"]
    for text in (*lines, drawn(seen, width=400)):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "\n" not in "".join(lines)


def test_a_terminal_gets_the_same_facts_and_a_table_of_holds() -> None:
    text = drawn(report(switch=ON, holds=(HOLD,), error="It is garbage."))
    assert text.splitlines()[0].strip() == "● Maintenance is on"
    for fact in (
        "read-only",
        "ci:41",
        "reindex",
        "23 s left",
        "It is garbage.",
        "redis://host:6379/0?key=maintenance",
    ):
        assert fact in text
    assert "lease" not in drawn(report(switch=ON))


def test_rich_markup_in_a_text_is_only_text() -> None:
    assert "[bold]now[/bold] [/]" in drawn(
        report(switch=MaintenanceState(enabled=True, reason="[bold]now[/bold] [/]"))
    )


@pytest.mark.parametrize(
    ("replicas", "line"),
    [
        (ReplicaAck(2, 2), "replicas: 2 of 2 have it"),
        (ReplicaAck(0, 1), "replicas: 0 of 1 have it"),
        (ReplicaAck(3, None), "replicas: 3 have it"),
    ],
)
def test_replicas_are_counted(replicas: ReplicaAck, line: str) -> None:
    assert replicas_line(replicas) == line
