"""What is read of a worker's registration, which anybody with access to Redis may have written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance.model.workers import LEFT, ComponentStatus, Worker


def test_a_report_is_read_whole() -> None:
    report = {
        "host": "web-1",
        "pid": 7,
        "epoch": 3,
        "closed": True,
        "drained": True,
        "http": 2,
        "websockets": 1,
        "fence": 1.5,
        "lifetime": 3.0,
    }

    worker = Worker.parse("a", 12.5, json.dumps(report))

    assert worker == Worker("a", 12.5, **report)  # type: ignore[arg-type]
    assert worker.name == "7@web-1"


@pytest.mark.parametrize("report", [LEFT, LEFT.encode()], ids=["text", "bytes"])
def test_a_worker_that_left_says_so(report: str | bytes) -> None:
    assert Worker.parse("a", 1.0, report).left


def test_what_another_version_reports_in_addition_is_passed_over_and_what_it_lacks_is_unknown() -> (
    None
):
    read = Worker.parse("a", 1.0, '{"pid": 7, "mood": "good", "components": {"billing": {}}}')

    assert read == Worker(
        "a",
        1.0,
        pid=7,
        components={"billing": ComponentStatus(closed=False, drained=False, http=0, websockets=0)},
    )


@given(
    st.one_of(
        st.text(),
        st.binary(),
        st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps),
    )
)
def test_garbage_makes_a_worker_of_which_nothing_is_known(report: str | bytes) -> None:
    worker = Worker.parse("a", 1.0, report)

    assert worker in (Worker("a", 1.0), Worker("a", 1.0, left=True))


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
def test_a_fence_must_close_before_the_registry_forgets(fence: float | None, fenced: bool) -> None:
    assert Worker("a", 1.0, fence=fence, lifetime=3.0).is_fenced is fenced
