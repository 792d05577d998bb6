"""Any value of the switch is a state or an `InvalidStateError`, whatever the time."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance.exceptions import InvalidStateError
from fastapi_maintenance.model.evaluate import evaluate
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import MAX_BYTES, MaintenanceState, parse_bool
from fastapi_maintenance.responses.response import MaintenanceResponse

from .attempt import attempt
from .effort import effort
from .garbage import JSON, SWITCHES, TEXT

YEAR_10000 = 253402300799.0


@effort(300)
@given(SWITCHES, st.floats(0, YEAR_10000), st.none() | st.floats(0, 1e300))
def test_any_value_is_a_state_or_invalid(raw: bytes, now: float, expires_in: float | None) -> None:
    state, problem = attempt(lambda: MaintenanceState.parse(raw), InvalidStateError)
    if state is None:
        assert len(problem.encode()) < 1000, "an error must not quote the whole value"
        return
    assert len(raw) <= MAX_BYTES
    effective = evaluate(Snapshot(state, (), now, expires_in), now)
    assert 0 <= effective.state.retry_after_at(datetime.fromtimestamp(now, UTC)) < 2**31
    MaintenanceResponse(effective.state)
    # An escape may take more bytes than what it stands for.
    with contextlib.suppress(InvalidStateError):
        assert dict(MaintenanceState.parse(state.dump())) == dict(state)  # but for what it ignored


@effort(200)
@given(TEXT)
def test_any_text_is_a_state_or_invalid(text: str) -> None:
    for parse in (MaintenanceState.parse, parse_bool):
        with contextlib.suppress(InvalidStateError):
            parse(text)


@effort(300)
@given(
    st.one_of(
        st.binary(max_size=200),
        TEXT,
        JSON.map(json.dumps),
        st.builds(
            lambda *values: json.dumps(dict(zip(("state", "since", "lifts"), values, strict=True))),
            JSON,
            JSON,
            JSON,
        ),
        st.builds(
            lambda since, lifts: json.dumps(
                {"state": {"enabled": True}, "since": since, "lifts": lifts}
            ),
            JSON,
            JSON,
        ),
        st.just("[" * 30_000),
    ),
    st.floats(0, YEAR_10000),
)
def test_any_hold_is_a_hold_or_invalid(text: str | bytes, now: float) -> None:
    try:
        hold = Hold.parse("a", now + 1, text)
    except InvalidStateError:
        return
    evaluate(Snapshot(holds=(hold,), now=now), now)
    assert Hold.parse("a", now + 1, hold.dump()) == hold
