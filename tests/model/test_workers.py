"""What is read of a worker's registration, which anybody with access to Redis may have written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.workers import ComponentStatus, RegistrySnapshot, Worker

RECORD = {
    "host": "web-1",
    "pid": 7,
    "boot": "b",
    "namespace": "n",
    "start": "1",
    "fence": 1.5,
    "lifetime": 3.0,
    "format": 2,
}
REPORT = {
    "epoch": 3,
    "closed": True,
    "drained": True,
    "http": 2,
    "websockets": 1,
    "generation": "g",
    "known_for": 9.0,
}


def parse(record: object = RECORD, report: object = REPORT, sequence: str = "12") -> Worker:
    return Worker.parse(
        "a", json.dumps(record).encode(), f"{sequence} {json.dumps(report)}".encode()
    )


def test_worker_with_record_and_report_is_read_whole() -> None:
    worker = parse()

    known = {name: value for name, value in RECORD.items() if name != "format"}
    assert worker == Worker("a", sequence=12, **known, **REPORT)  # type: ignore[arg-type]
    assert worker.name == "7@web-1"
    assert not worker.vanished


def test_worker_without_report_has_vanished() -> None:
    assert Worker.parse("a", json.dumps(RECORD).encode(), None).vanished


def test_report_of_another_version_is_read_as_far_as_known() -> None:
    read = parse({"pid": 7, "mood": "good"}, {"components": {"billing": {}}, "mood": "good"}, "1")

    assert read == Worker(
        "a",
        sequence=1,
        pid=7,
        components={"billing": ComponentStatus(closed=False, drained=False, http=0, websockets=0)},
    )


@given(
    st.binary(),
    st.none()
    | st.binary()
    | st.recursive(st.none() | st.integers(), st.lists).map(lambda one: json.dumps(one).encode()),
)
def test_garbage_is_a_worker_of_which_nothing_is_known(record: bytes, report: bytes | None) -> None:
    worker = Worker.parse("a", record, report)

    assert worker == Worker("a", vanished=report is None, sequence=worker.sequence)


def test_earlier_registration_is_read_with_its_deadline() -> None:
    entry = json.dumps({"pid": 7, "epoch": 3, "closed": True, "fence": 2.0, "lifetime": 3.0})

    worker = Worker.parse_earlier("a", f"12500000 {entry}".encode(), 12.0)

    assert worker == Worker(
        "a", sequence=12500000, pid=7, epoch=3, closed=True, fence=2.0, lifetime=3.0
    )
    assert Worker.parse_earlier("a", f"12500000 {entry}".encode(), 13.0) == Worker(
        "a", vanished=True, sequence=12500000, pid=7, epoch=3, closed=True, fence=2.0, lifetime=3.0
    )


@pytest.mark.parametrize("entry", [b"12500000 left", b'12500000 {"format": 2}', b"garbage"])
def test_earlier_registration_of_no_such_worker_is_none(entry: bytes) -> None:
    assert Worker.parse_earlier("a", entry, 12.0) is None


@pytest.mark.parametrize(
    ("fence", "fenced"),
    [
        (None, False),
        (0.0, False),
        (-1.0, False),
        (2.0, True),
        (2.8, True),
        (2.9, False),
        (4.0, False),
    ],
)
def test_fence_must_close_before_the_registry_forgets(fence: float | None, fenced: bool) -> None:
    assert Worker("a", fence=fence, lifetime=3.0).is_fenced is fenced


@pytest.mark.parametrize("text", [b"9" * 5000, b"-1", b"x", "²".encode()])
def test_invalid_number_in_the_registry_counts_as_none(text: bytes) -> None:
    """Python converts no number of more than 4,300 digits."""
    assert Worker.parse("w", b"{}", text + b" {}").sequence == 0
    assert Worker.parse_earlier("w", text + b" {}", 1.0) is None


@pytest.mark.parametrize(
    ("gone", "why"),
    [
        (Worker("a", vanished=True), "does not say where"),
        (
            Worker("a", vanished=True, boot="x", namespace="n"),
            "no live worker runs on the same machine",
        ),
        (Worker("a", vanished=True, boot="b", namespace="n"), "was still there"),
    ],
)
def test_vanished_worker_has_a_reason_why_it_is_not_gone(gone: Worker, why: str) -> None:
    beside = Worker("b", boot="b", namespace="n")

    assert why in RegistrySnapshot(Snapshot(), "g", (gone, beside)).why_not_gone(gone)
