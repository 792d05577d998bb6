from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from fastapi_maintenance.cli.worker_table import (
    as_table,
    rows,
    summary,
    wait_display,
    ways_around,
    worker_lines,
)
from fastapi_maintenance.coordination.barrier import BarrierResult
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF, ON
from fastapi_maintenance.model.workers import WAY_AROUND, RegistrySnapshot, Worker

DONE = Worker(
    "d",
    host="web-1",
    pid=1,
    delivery="tracking",
    version="1.2",
    closed=True,
    drained=True,
    fence=2.0,
    lifetime=3.0,
)
BUSY = replace(DONE, id="b", pid=2, drained=False, http=2, websockets=1)
LATE = replace(DONE, id="l", pid=3, closed=False, drained=False)
FENCED = replace(DONE, id="f", pid=4)
UNFENCED = replace(DONE, id="u", pid=5, fence=None)
VANISHED = replace(DONE, id="v", pid=6, vanished=True)
MIXED = BarrierResult(
    state=ON,
    drained=(DONE,),
    applied=(BUSY,),
    waiting=(LATE,),
    expired=(FENCED, UNFENCED),
    unfenced=(UNFENCED,),
    joined=(LATE,),
    elapsed=1.23456,
    wants_drained=True,
    looked=True,
)


def roll(*workers: Worker) -> RegistrySnapshot:
    return RegistrySnapshot(Snapshot(), "g", workers)


def terminal(*, term: str = "xterm") -> Console:
    return Console(
        file=StringIO(), force_terminal=True, color_system=None, width=120, _environ={"TERM": term}
    )


def drawn(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


# -- in one line -----------------------------------------------------------------------------------


def test_summary_counts_groups_and_names_pending_workers() -> None:
    assert summary(MIXED) == (
        "maintenance on; 1 drained, 1 applied, 1 waiting, 2 expired, 1 unfenced; waiting for "
        "3@web-1, 2@web-1 (2 requests, 1 WebSockets)"
    )


def test_summary_without_drained_waits_for_no_request() -> None:
    result = BarrierResult(state=OFF, applied=(BUSY,), looked=True)
    assert summary(result) == "maintenance off; 1 applied"


def test_summary_without_workers_or_registry_says_so() -> None:
    assert summary(BarrierResult(looked=True)) == "maintenance off; no workers"
    assert summary(BarrierResult()) == "the registry of workers could not be read"


def test_a_name_from_redis_cannot_steer_the_terminal() -> None:
    evil = replace(LATE, host="\x1b[2Jweb\n1", id="\x1bid")
    assert "3@\\x1b[2Jweb\\n1" in summary(replace(MIXED, waiting=(evil,)))
    assert not any(character in line for line in worker_lines(roll(evil)) for character in "\x1b\n")
    console = Console(file=StringIO(), width=200)
    console.print(as_table([(evil.status, evil)]))
    assert "\\x1bid" in drawn(console)


def test_ways_around_name_each_path_once_and_how_to_close_it() -> None:
    workers = [replace(DONE, unrouted=("/b", "/a\x1b")), replace(DONE, unrouted=("/b",)), DONE]

    assert ways_around(workers) == [f"/a\\x1b {WAY_AROUND}", f"/b {WAY_AROUND}"]


# -- views -----------------------------------------------------------------------------------------


def test_lines_tell_how_long_it_took() -> None:
    told: list[str] = []
    with wait_display(None, told.append) as show:
        show(MIXED)
    assert told == [f"1.2 s: {summary(MIXED)}"]


def test_a_terminal_shows_every_worker_once_and_its_status() -> None:
    console = terminal()
    with wait_display(console, print) as show:
        show(MIXED)
    screen = drawn(console)
    # Drawn again when it ends, so that what remains is whole.
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in screen.splitlines()
        if line.startswith("│")
    ][-5:]
    assert [(row[0], row[4]) for row in rows] == [
        ("l", "waiting"),
        ("b", "applied"),
        ("d", "drained"),
        ("f", "expired"),
        ("u", "unfenced"),
    ]
    assert rows[1] == ["b", "web-1", "2", "tracking", "applied", "2", "1", "2 s"]
    assert rows[4][-1] == "never"
    assert "1.2 s: maintenance on; 1 drained" in screen
    assert screen.endswith("\x1b[?25h"), "the cursor must come back"


def test_dumb_terminal_gets_lines_instead_of_a_table() -> None:
    console, told = terminal(term="dumb"), list[str]()
    with wait_display(console, told.append) as show:
        show(MIXED)
    assert (drawn(console), len(told)) == ("", 1)


# -- for programs ----------------------------------------------------------------------------------


def test_json_of_a_wait_has_each_worker_in_its_group() -> None:
    document = MIXED.to_json()
    groups = {
        name: [worker["id"] for worker in document[name]]
        for name in ("drained", "applied", "waiting", "expired", "unfenced")
    }
    assert groups == {
        "drained": ["d"],
        "applied": ["b"],
        "waiting": ["l"],
        "expired": ["f", "u"],
        "unfenced": ["u"],
    }
    assert (
        document["ok"],
        document["elapsed"],
        document["joined"],
        document["state"]["enabled"],
    ) == (False, 1.235, ["l"], True)
    assert [worker["fenced"] for worker in document["expired"]] == [True, False]
    assert document.keys() == BarrierResult().to_json().keys()


def test_workers_as_json_have_all_they_registered() -> None:
    document = BUSY.to_json()
    assert (
        document["pid"],
        document["host"],
        document["http"],
        document["websockets"],
        document["fenced"],
    ) == (2, "web-1", 2, 1, True)


@pytest.mark.parametrize(
    ("worker", "status"),
    [(DONE, "drained"), (BUSY, "closed"), (LATE, "open"), (VANISHED, "vanished")],
)
def test_worker_is_listed_with_its_status(worker: Worker, status: str) -> None:
    assert worker.status == status
    (line,) = worker_lines(roll(worker))
    assert f" status={status} " in line


def test_a_worker_is_a_line_of_pairs() -> None:
    why = "its record does not say where its process ran"
    assert list(worker_lines(roll(BUSY, UNFENCED, VANISHED))) == [
        (
            "b host=web-1 pid=2 delivery=tracking version=1.2 status=closed http=2 websockets=1 "
            "fence=2s"
        ),
        (
            "u host=web-1 pid=5 delivery=tracking version=1.2 status=drained http=0 websockets=0 "
            "fence=never"
        ),
        (
            "v host=web-1 pid=6 delivery=tracking version=1.2 status=vanished http=0 websockets=0 "
            f"fence=2s ({why})"
        ),
    ]
    assert [row["why_not_gone"] for row in rows(roll(BUSY, VANISHED))] == [None, why]
