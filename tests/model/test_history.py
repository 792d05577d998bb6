"""What is noted of a change, and what an entry says as JSON."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance.exceptions import InvalidStateError
from fastapi_maintenance.model.history import Attribution, Change, attribution_json
from fastapi_maintenance.model.state import ON, BypassRecord, MaintenanceState

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


def test_attribution_has_author_place_and_state() -> None:
    state = MaintenanceState(enabled=True, by="ana", reason="OPS-417")

    read = Attribution.parse(attribution_json(state, by="somebody else", component="billing"))

    assert read == Attribution(
        by="ana", host=socket.gethostname(), pid=os.getpid(), state=state, component="billing"
    )


def test_attribution_without_author_uses_by() -> None:
    assert Attribution.parse(attribution_json(ON, by="ana")).by == "ana"
    assert Attribution.parse(attribution_json(by="ana")).state is None


def test_attribution_truncates_texts_and_omits_lists() -> None:
    record = BypassRecord(id="tester-1", until=NOW)
    state = MaintenanceState(
        enabled=True,
        by="a" * 300,
        message="ü" * 60_000,
        reason="r" * 501,
        allow=("/login",),
        bypass=(record,),
    )

    text = attribution_json(state)
    read = Attribution.parse(text)

    assert read.state is not None
    assert read.state.message == "ü" * 499 + "…"
    assert (read.state.allow, read.state.bypass) == (None, None)
    assert (len(read.state.reason or ""), len(read.by or "")) == (500, 200)
    assert len(text) < 8 * 1024
    assert "tester-1" not in text


def test_attribution_of_newer_version_is_readable() -> None:
    read = Attribution.parse(
        json.dumps({"by": "ana", "state": {"enabled": True, "colour": "red"}, "mood": "good"})
    )

    assert read.by == "ana"
    assert read.state is not None
    assert read.state.enabled
    assert Attribution.parse(json.dumps({"by": "ana", "state": {"enabled": "maybe"}})).state is None


@given(
    st.one_of(
        st.text(),
        st.binary(),
        st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps),
    )
)
def test_attribution_garbage_is_invalid_state(text: str | bytes) -> None:
    with pytest.raises(InvalidStateError, match="cannot be read"):
        Attribution.parse(text)


def test_change_json_has_constant_keys() -> None:
    bare = Change("1-0", NOW, "lost")
    full = Change(
        "1-1",
        NOW,
        "set",
        "billing",
        "h",
        MaintenanceState(enabled=True, reason="OPS-417"),
        "ana",
        "web-1",
        7,
        "no",
    )

    assert (
        json.loads(json.dumps(bare.to_json())).keys()
        == json.loads(json.dumps(full.to_json())).keys()
    )
    assert full.to_json()["at"] == "2026-11-22T03:00:00Z"
    assert full.to_json()["state"]["reason"] == full.reason == "OPS-417"
    assert (bare.to_json()["state"], bare.reason) == (None, None)
