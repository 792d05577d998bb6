"""How exactly a worker knows its backend's clock, and until when its gate may speak."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import ComponentSwitch, Snapshot
from fastapi_maintenance.model.state import OFF, ON
from fastapi_maintenance.runtime.gate import SnapshotCache, StalenessPolicy

POLICY = StalenessPolicy(
    kind="redis",
    enable_maintenance=None,
    on_unreachable="last-known",
    stale_after=2.0,
    ttl=1.0,
    counts_from_registering=True,
    asks_always=False,
)
AHEAD = 1_000_000.0  # so far is the backend's clock ahead of ours


def learned(*trips: tuple[float, float, float]) -> SnapshotCache:
    """Each reading was asked for, made and received at these local times."""
    knowledge = SnapshotCache(POLICY)
    for asked, made, arrived in trips:
        assert knowledge.store(Snapshot(now=AHEAD + made), asked, arrived)
    return knowledge


def test_clock_offset_is_bounded_by_the_round_trip() -> None:
    assert learned((1.0, 1.1, 1.2)).backend_time(5.0) == pytest.approx(AHEAD + 5.0)


def test_clock_offset_survives_a_slow_snapshot() -> None:
    quick, slow = (1.0, 1.001, 1.002), (2.0, 2.0, 3.0)
    assert learned(slow).backend_time(5.0) == pytest.approx(AHEAD + 4.5)
    assert learned(quick, slow).backend_time(5.0) == pytest.approx(AHEAD + 5.0, abs=0.001)


def test_clock_offset_combines_slow_snapshots() -> None:
    assert learned((1.0, 1.01, 2.0), (3.0, 3.99, 4.0)).backend_time(5.0) == pytest.approx(
        AHEAD + 5.0, abs=0.01
    )


def test_clock_offset_follows_a_clock_that_was_set() -> None:
    assert learned((1.0, 1.001, 1.002), (2.0, 102.001, 2.002)).backend_time(5.0) == pytest.approx(
        AHEAD + 105.0
    )


@pytest.mark.parametrize(
    "ending",
    [
        {"expires_in": 0.5, "switch": ON},
        {"holds": (Hold("a", ON, deadline=AHEAD + 10.5),)},
        {"components": {"billing": ComponentSwitch(ON, 0.5)}},
        {"holds": (Hold("a", ON, deadline=AHEAD + 10.5, component="billing"),)},
    ],
    ids=["switch", "hold", "switch of a component", "hold of a component"],
)
def test_gate_expires_when_anything_ends_in_a_component(ending: Any) -> None:
    """By each request, whether or not a timer or a push has come."""
    knowledge = SnapshotCache(POLICY)
    assert knowledge.store(Snapshot(**{"switch": OFF, "now": AHEAD + 10.0, **ending}), 10.0, 10.0)
    gate = knowledge.evaluate_gate(10.0, None, "default", watched=True)
    assert not gate.is_open
    assert gate.until == pytest.approx(10.5)
    assert knowledge.evaluate_gate(10.5, None, "default", watched=True).is_open
