"""ETags: different for different states, and accepted in their weak form."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance.admin.etags import etag_of, matches
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import ComponentSwitch, Snapshot
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState

READINGS = [
    Snapshot(OFF),
    Snapshot(ON),
    Snapshot(MaintenanceState(enabled=True, reason="OPS-417")),
    Snapshot(None, error="garbage"),
    Snapshot(None, error="other garbage"),
    Snapshot(OFF, (Hold("a", ON),)),
    Snapshot(OFF, None),
    Snapshot(OFF, components={"billing": ComponentSwitch(ON)}),
    Snapshot(OFF, components={"billing": ComponentSwitch(None)}),
    Snapshot(OFF, fingerprint="1"),
    Snapshot(ON, fingerprint="2"),
]


def test_etag_differs_for_different_states() -> None:
    for one, other in itertools.combinations(READINGS, 2):
        assert etag_of(one) != etag_of(other), (one, other)


def test_etag_ignores_the_time() -> None:
    early, late = (
        Snapshot(ON, (Hold("a", ON, 1.0, now + 30),), now, 600 - now) for now in (10.0, 20.0)
    )
    assert etag_of(early) == etag_of(late)


@given(st.text())
def test_etag_of_any_fingerprint_is_valid(fingerprint: str) -> None:
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag_of(Snapshot(fingerprint=fingerprint)))


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ('"a"', True),
        ("*", True),
        (' "b" , "a"', True),
        ('"b"', False),
        ('W/"a"', True),
        ('W/"b"', False),
        ('W/"b", "a"', True),
        ("a", False),
        ('"a', False),
        ("", False),
    ],
)
def test_if_match_compares_tags(field: str, expected: bool) -> None:
    assert matches(field, '"a"') == expected


@given(st.text())
def test_any_if_match_is_parsed(field: str) -> None:
    assert matches(field, '"0123"') in (True, False)
