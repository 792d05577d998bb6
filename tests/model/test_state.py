"""The switch's value: words, JSON, windows, Retry-After."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fastapi_maintenance.exceptions import InvalidStateError
from fastapi_maintenance.model.state import (
    DEFAULT_RETRY_AFTER,
    MAX_BYTES,
    OFF,
    ON,
    MaintenanceState,
    parse_bool,
)

NOW = datetime(2026, 11, 22, 3, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FIELDS = list(MaintenanceState.model_fields)

time_zones = st.integers(-14 * 60, 14 * 60).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)
moments = st.datetimes(
    min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=time_zones
)
texts = st.text(max_size=80)


@st.composite
def states(draw: st.DrawFn) -> MaintenanceState:
    """Any state there can be."""
    times = sorted(draw(st.sets(moments, min_size=2, max_size=2)))
    return MaintenanceState(
        enabled=draw(st.booleans()),
        message=draw(st.none() | texts),
        reason=draw(st.none() | texts),
        retry_after=draw(st.none() | st.integers(0, 2**31 - 1)),
        starts_at=draw(st.sampled_from([None, times[0]])),
        ends_at=draw(st.sampled_from([None, times[1]])),
        mode=draw(st.sampled_from(["full", "read-only"])),
        by=draw(st.none() | texts),
        since=draw(st.none() | moments),
    )


# -- words -----------------------------------------------------------------------------------------

TRUE = ["1", "on", "true", "yes", "y", "t"]
FALSE = ["0", "off", "false", "no", "n", "f"]


@pytest.mark.parametrize(
    "disguise",
    [str, str.upper, str.title, " {}\n".format],
    ids=["as-is", "upper", "title", "spaced"],
)
@pytest.mark.parametrize(
    ("word", "meaning"), [(word, True) for word in TRUE] + [(word, False) for word in FALSE]
)
def test_state_boolean_word_is_parsed_in_any_case(word: str, meaning: bool, disguise: Any) -> None:
    text = disguise(word)
    assert parse_bool(text) is meaning
    assert (
        MaintenanceState.parse(text)
        == MaintenanceState.parse(text.encode())
        == MaintenanceState(enabled=meaning)
    )


def test_state_absent_is_off() -> None:
    assert MaintenanceState.parse(None) == OFF


@pytest.mark.parametrize(
    "text", ["", " \n", "2", "maybe", "onn", "1 1", "[1]", '"on"', "null", "ı", "\ufeff1"]
)
def test_state_unknown_word_is_refused_with_known_ones(text: str) -> None:
    with pytest.raises(
        InvalidStateError,
        match=r"write 1, on, true, yes, y or t for on; 0, off, false, no, n or f for off",
    ):
        MaintenanceState.parse(text)


def test_state_refusal_quotes_only_the_beginning() -> None:
    with pytest.raises(InvalidStateError, match=r"^'x{40}'… is not a boolean word"):
        MaintenanceState.parse("x" * 1000)


# -- JSON ------------------------------------------------------------------------------------------


def test_state_json_is_parsed_with_all_details() -> None:
    state = MaintenanceState.parse(
        b' {"enabled": true, "message": "Back at 04:00 UTC", "reason": "OPS-417 reindex", '
        b'"retry_after": 120,'
        b' "starts_at": "2026-11-22T03:00:00Z", "ends_at": "2026-11-22T05:00:00+01:00", "mode": '
        b'"read-only", "by": "ana@ops",'
        b' "since": "2026-11-22T02:59:00Z"}\n'
    )
    assert state == MaintenanceState(
        enabled=True,
        message="Back at 04:00 UTC",
        reason="OPS-417 reindex",
        retry_after=120,
        starts_at=datetime(2026, 11, 22, 3, tzinfo=UTC),
        ends_at=datetime(2026, 11, 22, 4, tzinfo=UTC),
        mode="read-only",
        by="ana@ops",
        since=datetime(2026, 11, 22, 2, 59, tzinfo=UTC),
    )


def test_state_allow_is_kept_as_written() -> None:
    state = MaintenanceState.parse('{"enabled": true, "allow": ["POST /login", "what is this?"]}')
    assert state.allow == ("POST /login", "what is this?")
    assert MaintenanceState.parse(state.dump()) == state
    assert "allow" not in MaintenanceState(enabled=True, reason="x").dump()


@pytest.mark.parametrize(
    ("details", "ignored"),
    [
        ({"msg": "x"}, ["msg: unknown key"]),
        (
            {"colour": "red", "Message": "case matters"},
            ["colour: unknown key", "Message: unknown key"],
        ),
        ({"mode": "readonly"}, ["mode: Input should be 'full' or 'read-only'"]),
        ({"starts_at": "2026-11-22T03:00:00"}, ["starts_at: Input should have timezone info"]),
        ({"ends_at": "2026-11-22T03:00:00"}, ["ends_at: Input should have timezone info"]),
        (
            {"starts_at": "tomorrow", "ends_at": 1e400},
            ["starts_at: Input should be a valid datetime", "ends_at: "],
        ),
        (
            {"starts_at": "2026-11-22T03:00:00Z", "ends_at": "2026-11-22T03:00:00Z"},
            ["Value error, ends_at must be later than starts_at"],
        ),
        ({"retry_after": -1}, ["retry_after: "]),
        ({"retry_after": 2147483648}, ["retry_after: "]),
        ({"retry_after": "soon"}, ["retry_after: "]),
        (
            {"message": 7, "reason": ["x"], "by": {}, "since": "now"},
            ["message: ", "reason: ", "by: ", "since: "],
        ),
        ({"allow": "/login"}, ["allow: "]),
        ({"allow": [1]}, ["allow.0: "]),
        ({"allow": ["/"] * 101}, ["allow: "]),
        ({"bypass": [{"id": "x"}]}, ["bypass.0.until: Field required"]),
        ({"k" * 50_000: 1}, ["k" * 40 + ": unknown key"]),
        (
            {f"key{number}": 1 for number in range(9)},
            [f"key{number}: unknown key" for number in range(5)],
        ),
        (
            {"starts_at": "x", "ends_at": "2026-11-22T03:00:00Z", "later": {"version": 2}},
            ["starts_at: ", "later: unknown key"],
        ),
    ],
    ids=map(str, range(18)),
)
def test_state_invalid_details_are_ignored_and_named(
    details: dict[str, Any], ignored: list[str]
) -> None:
    for enabled in (True, False):
        state = MaintenanceState.parse(json.dumps({"enabled": enabled, **details}))
        assert state.enabled is enabled
        assert len(state.ignored) == len(ignored)
        assert all(
            named.startswith(expected)
            for named, expected in zip(state.ignored, ignored, strict=True)
        )
        assert not set(details) & set(json.loads(state.dump())) - {"enabled", "mode", "ends_at"}
        assert state.mode == "full"
        assert MaintenanceState.parse(state.dump()).ignored == ()


def test_state_one_invalid_detail_leaves_the_others() -> None:
    state = MaintenanceState.parse(
        '{"enabled": true, "message": "Back soon", "mode": "readonly", "retry_after": 9, "later": '
        "1}"
    )
    assert (state.message, state.retry_after, state.mode, len(state.ignored)) == (
        "Back soon",
        9,
        "full",
        2,
    )


VALUES = st.none() | st.integers() | st.floats() | st.text() | st.lists(st.text())


def test_state_bypass_of_newer_version_is_kept() -> None:
    record = {"id": "x", "until": "2026-11-22T03:00:00Z", "uses": 3}
    state = MaintenanceState.parse(json.dumps({"enabled": True, "bypass": [record]}))
    assert state.bypass is not None
    assert state.ignored == ()


@given(
    st.booleans(),
    st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=9), VALUES),
    moments,
)
def test_state_with_valid_enabled_is_obeyed_whatever_the_details(
    enabled: bool, details: dict[str, Any], now: datetime
) -> None:
    state = MaintenanceState.parse(json.dumps(details | {"enabled": enabled}))
    assert state.enabled is enabled
    assert (
        state.active_at(now) is enabled or state.starts_at is not None or state.ends_at is not None
    )


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("{}", "enabled: Field required"),
        ('{"enabled": null}', "enabled: "),
        ('{"enabled": "maybe"}', "enabled: "),
        ('{"msg": "x"}', "enabled: Field required"),
        ('{"enabled": true', "Invalid JSON"),
        ("{" * 30_000, "Invalid JSON"),
        ('{"enabled": ' + "[" * 30_000, "Invalid JSON"),
        ('{"enabled": true, "message": "\\ud800"}', "Invalid JSON"),
    ],
)
def test_state_json_without_enabled_is_refused(document: str, complaint: str) -> None:
    with pytest.raises(InvalidStateError, match=r"^The JSON cannot be read as a state: ") as caught:
        MaintenanceState.parse(document)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("document", [None, 7, "on", [True], {"enabled": None}])
def test_state_from_document_without_enabled_is_refused(document: Any) -> None:
    with pytest.raises(InvalidStateError):
        MaintenanceState.from_document(document)


@given(st.text() | st.binary())
def test_state_garbage_raises_invalid_state_error(garbage: str | bytes) -> None:
    message = ""
    try:
        MaintenanceState.parse(garbage)
    except InvalidStateError as error:
        message = str(error)
    assert len(message) < 500


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=9))
def test_state_any_json_raises_invalid_state_error_at_most(
    document: dict[str, Any],
) -> None:
    with suppress(InvalidStateError):
        MaintenanceState.parse(json.dumps({"enabled": True} | document))


@pytest.mark.parametrize(
    "value", [b"\xff", b'{"enabled": true, "message": "\xff"}', "\udcff", chr(0xD800)]
)
def test_state_not_utf_8_is_refused(value: str | bytes) -> None:
    with pytest.raises(InvalidStateError, match=r" is not UTF-8 text\.$"):
        MaintenanceState.parse(value)


def test_state_over_64_kib_is_not_parsed() -> None:
    longest = b"1" + b" " * (MAX_BYTES - 1)
    assert MaintenanceState.parse(longest) == ON
    with pytest.raises(InvalidStateError, match=r"at most 65536 bytes, got 65537"):
        MaintenanceState.parse(longest + b" ")


def test_state_limit_counts_bytes() -> None:
    with pytest.raises(InvalidStateError, match=r"at most 65536 bytes"):
        MaintenanceState.parse("ä" * (MAX_BYTES // 2 + 1))


# -- writing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "text"), [(ON, "1"), (OFF, "0")])
def test_state_on_and_off_are_written_as_one_character(state: MaintenanceState, text: str) -> None:
    assert state.dump() == text
    assert not state.has_details


@given(states())
def test_state_written_and_parsed_is_equal(state: MaintenanceState) -> None:
    assert MaintenanceState.parse(state.dump()) == state


def test_state_writes_known_details_only() -> None:
    assert json.loads(MaintenanceState(enabled=True, message="soon").dump()) == {
        "enabled": True,
        "message": "soon",
        "mode": "full",
    }


def test_state_over_64_kib_is_not_written() -> None:
    frame = len(MaintenanceState(enabled=True, message="").dump())
    MaintenanceState(enabled=True, message="x" * (MAX_BYTES - frame)).dump()
    with pytest.raises(
        InvalidStateError, match=r"at most 65536 bytes, got 65537\. Shorten its texts"
    ):
        MaintenanceState(enabled=True, message="x" * (MAX_BYTES - frame + 1)).dump()


@pytest.mark.parametrize("field", ["message", "reason", "by"])
def test_state_lone_surrogates_are_escaped(field: str) -> None:
    state = MaintenanceState.model_validate({"enabled": True, field: "caf\udce9.txt"})
    assert getattr(state, field) == "caf\\udce9.txt"
    assert MaintenanceState.parse(state.dump()) == state


def test_state_is_immutable() -> None:
    with pytest.raises(ValidationError):
        ON.enabled = False


# -- windows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("starts", "ends", "active", "change"),
    [
        (None, None, True, None),
        (NOW, None, True, None),
        (NOW + SECOND, None, False, NOW + SECOND),
        (None, NOW, False, None),
        (None, NOW + SECOND, True, NOW + SECOND),
        (NOW - SECOND, NOW + SECOND, True, NOW + SECOND),
        (NOW + SECOND, NOW + 2 * SECOND, False, NOW + SECOND),
        (NOW - 2 * SECOND, NOW - SECOND, False, None),
    ],
)
def test_window_includes_start_and_excludes_end(
    starts: datetime | None, ends: datetime | None, active: bool, change: datetime | None
) -> None:
    state = MaintenanceState(enabled=True, starts_at=starts, ends_at=ends)
    assert state.active_at(NOW) is active
    assert state.changes_after(NOW) == change


def test_window_of_off_state_is_ignored() -> None:
    state = MaintenanceState(enabled=False, starts_at=NOW - SECOND, ends_at=NOW + SECOND)
    assert not state.active_at(NOW)
    assert state.changes_after(NOW) is None


@given(states(), st.lists(moments, min_size=2, max_size=2).map(sorted))
def test_window_is_constant_until_next_change(
    state: MaintenanceState, times: list[datetime]
) -> None:
    earlier, later = times
    change = state.changes_after(earlier)
    if change is None or later < change:
        assert state.active_at(later) == state.active_at(earlier)
    if change is not None:
        assert earlier < change
        assert state.active_at(change) != state.active_at(earlier)


# -- Retry-After -----------------------------------------------------------------------------------


def test_retry_after_explicit_wins() -> None:
    assert (
        MaintenanceState(enabled=True, retry_after=0, ends_at=NOW + SECOND).retry_after_at(NOW) == 0
    )


def test_retry_after_without_end_is_default() -> None:
    assert ON.retry_after_at(NOW) == DEFAULT_RETRY_AFTER == 3600
    assert ON.retry_after_at(NOW, default=7) == 7


@pytest.mark.parametrize(
    ("left", "said"),
    [(90.0, 90), (89.001, 90), (0.5, 1), (0.0, 0), (-5.0, 0), (2.0**32, 2**31 - 1)],
)
def test_retry_after_with_end_is_rounded_up_and_bounded(left: float, said: int) -> None:
    assert (
        MaintenanceState(enabled=True, ends_at=NOW + timedelta(seconds=left)).retry_after_at(NOW)
        == said
    )


@given(states(), moments)
def test_retry_after_of_any_state_is_in_range(state: MaintenanceState, now: datetime) -> None:
    assert 0 <= state.retry_after_at(now) < 2**31
