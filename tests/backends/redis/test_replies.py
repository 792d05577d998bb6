"""Replies are untrusted: whatever comes, it is a reading or a BackendError."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import NoPermissionError, ResponseError

from fastapi_maintenance.backends.redis.replies import (
    HoldObserver,
    ScriptReply,
    read_natively,
    read_registry,
    read_script,
)
from fastapi_maintenance.exceptions import BackendError
from fastapi_maintenance.model.evaluate import evaluate
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import MAX_BYTES, OFF, ON, MaintenanceState
from fastapi_maintenance.model.workers import RegistrySnapshot, Worker

HOLD = Hold("a", ON, since=1700000000.25, deadline=1700000030.5)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=40)
    | st.sampled_from(
        [
            b"text",
            b"too long",
            b"wrong type",
            b"1",
            b"{}",
            b"1700000000000000",
            b"9" * 400,
            ResponseError("no"),
            b"",
        ]
    )
)
GARBAGE = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=10) | st.dictionaries(st.binary(max_size=3), inner, max_size=2)
    ),
)


def script_reply(**changes: Any) -> list[Any]:
    """What the script answers when everything is well, with changes."""
    reply = {
        "now": b"1700000000000000",
        "status": b"text",
        "value": None,
        "pttl": -2,
        "holds": [],
        "record": [b"17", b"5", b"0"],
        "fingerprint": b"abc",
        "verdict": b"",
        "roll": [],
        "components": [],
        "unrecorded": b"",
    }
    return list((reply | changes).values())


# -- the script ------------------------------------------------------------------------------------


def test_an_absent_switch_is_off_and_the_time_is_that_of_redis() -> None:
    answer = read_script(script_reply())

    assert answer == ScriptReply(
        Snapshot(OFF, (), 1700000000.0, epoch=17, fingerprint="abc"), incarnation=5
    )


def test_a_switch_with_a_time_to_live_and_a_hold() -> None:
    answer = read_script(
        script_reply(
            value=b"on",
            pttl=1500,
            holds=[[b"a", b"1700000030500000", b"1700000000250000", HOLD.dump().encode()]],
            verdict=b"well done",
            record=[b"9", b"8", b"7"],
        )
    )

    assert answer.reading == Snapshot(ON, (HOLD,), 1700000000.0, 1.5, epoch=9, fingerprint="abc")
    assert (answer.incarnation, answer.restored_from, answer.verdict) == (8, 7, "well done")


@pytest.mark.parametrize("pttl", [-1, -2, None, b"12", ResponseError("no")])
def test_without_a_time_to_live_nothing_expires(pttl: object) -> None:
    assert read_script(script_reply(value=b"1", pttl=pttl)).reading.expires_in is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"status": b"wrong type"}, "not a string; delete the key"),
        ({"status": b"too long"}, f"longer than {MAX_BYTES} bytes"),
        ({"value": b"maybe"}, "not a boolean word"),
        ({"value": b"\xff"}, "not UTF-8"),
        ({"value": b'{"enabled": 7}'}, "JSON"),
        ({"value": b"1" * (MAX_BYTES + 1)}, "at most 65536 bytes"),
    ],
)
def test_a_switch_that_cannot_be_read_is_unknown_and_says_why(
    changes: dict[str, Any], problem: str
) -> None:
    reading = read_script(script_reply(**changes)).reading

    assert reading.switch is None
    assert reading.holds == ()
    assert problem in str(reading.error)


def test_holds_of_the_wrong_type_are_unknown() -> None:
    reading = read_script(script_reply(value=b"1", holds=None)).reading

    assert (reading.switch, reading.holds) == (ON, None)
    assert "not a hash; delete that key" in str(reading.error)


@pytest.mark.parametrize(
    "entry",
    [
        [b"b", b"", b"", b""],
        [b"b", b"1700000030500000", b"1700000000250000", b"{"],
        [b"b", b"1700000030500000", b"x", HOLD.dump().encode()],
        [b"b", b"9" * 400, b"1", HOLD.dump().encode()],
        [b"b", b"9" * 5000, b"1", HOLD.dump().encode()],
        [b"b", b"1", b"9" * 400, HOLD.dump().encode()],
    ],
)
def test_a_garbage_hold_is_named_and_hides_no_other(entry: list[bytes]) -> None:
    good = [b"a", b"1700000030500000", b"1700000000250000", HOLD.dump().encode()]

    reading = read_script(script_reply(holds=[entry, good])).reading

    assert reading.holds == (HOLD,)
    assert "The hold 'b' cannot be read" in str(reading.error)


@pytest.mark.parametrize(
    "changes",
    [
        {"now": None},
        {"now": b"soon"},
        {"now": b"9" * 400},
        {"now": b"9" * 30},
        {"now": b"-1"},
        {"status": None},
        {"record": [b"1", b"2"]},
        {"record": [b"x", b"1", b"1"]},
        {"fingerprint": 3},
        {"verdict": None},
        {"holds": [[b"too short"]]},
        {"holds": 4},
        {"holds": [[4, b"1", b"1", b"{}"]]},
    ],
)
def test_another_shape_is_a_backend_error(changes: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="something else than a reading"):
        read_script(script_reply(**changes))


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "now",
                "status",
                "value",
                "pttl",
                "holds",
                "record",
                "fingerprint",
                "verdict",
                "roll",
                "unrecorded",
            ]
        ),
        GARBAGE,
    )
)
def test_garbage_in_a_reply_is_read_or_a_backend_error(
    changes: dict[str, Any],
) -> None:
    for read in (read_script, read_registry):
        try:
            answer = read(script_reply(**changes))
        except BackendError:
            continue
        assert isinstance(answer, ScriptReply | RegistrySnapshot)
        effective = evaluate(answer.reading, answer.reading.now)
        assert math.isinf(effective.until) or effective.until > answer.reading.now


@settings(deadline=None, max_examples=50)
@given(GARBAGE)
def test_a_reply_that_is_garbage_altogether_is_a_backend_error(reply: Any) -> None:
    for read in (read_script, read_registry):
        with pytest.raises(BackendError):
            read(reply)


# -- the roll --------------------------------------------------------------------------------------


RECORD = b'{"pid": 7, "host": "h"}'


def test_roll_call_names_the_workers() -> None:
    known = [[b"w", b"gone"], [RECORD, RECORD], [b'3 {"epoch": 5}', None]]
    earlier = [b"old", b'1700000003000000 {"pid": 8, "rung": "polling"}', b"left", b"1 left"]

    roll = read_registry(script_reply(roll=[b"g", *known, earlier]))

    assert (roll.generation, roll.reading.epoch) == ("g", 17)
    assert roll.workers == (
        Worker("w", sequence=3, pid=7, host="h", epoch=5),
        Worker("gone", vanished=True, pid=7, host="h"),
        Worker("old", sequence=1700000003000000, pid=8, delivery="polling"),
    )


@pytest.mark.parametrize(
    "roll",
    [
        None,
        3,
        [b"g", [b"w"], [b"1"], [], []],
        [b"g", [3], [b"{}"], [None], []],
        [b"g", [], [], [], [b"w"]],
        [1, [], [], [], []],
    ],
)
def test_roll_call_of_another_shape_is_a_backend_error(roll: Any) -> None:
    with pytest.raises(BackendError, match="something else than workers"):
        read_registry(script_reply(roll=roll))


# -- native commands -------------------------------------------------------------------------------


def read(
    replies: list[Any], components: tuple[str, ...] = (), observer: HoldObserver | None = None
) -> ScriptReply:
    answer = read_natively(replies, 42.0, components, observer or HoldObserver(lambda: 0.0))
    assert answer is not None
    return answer


def native(
    value: Any = None,
    pttl: Any = -2,
    *more: Any,
    holds: Any = (),
    clock: Any = (b"1700000000", b"250000"),
) -> list[Any]:
    """What Redis answers to the commands that read."""
    epoch = b"17 5 3 0 0"
    return [
        epoch,
        value,
        pttl,
        *more,
        list(holds) if isinstance(holds, tuple) else holds,
        list(clock),
        epoch,
    ]


def test_native_replies_say_all_that_the_script_does() -> None:
    held = f"1700000030500000 1700000000250000 {HOLD.dump()}".encode()

    answer = read(native(b"1", 2500, b"0", -1, holds=(b"a", held)), ("billing",))

    reading = answer.reading
    assert (reading.switch, reading.expires_in, reading.now, reading.epoch) == (
        ON,
        2.5,
        1700000000.25,
        17,
    )
    assert reading.holds == (HOLD,)
    assert reading.for_component("billing") == replace(reading, switch=OFF, expires_in=None)
    assert (answer.incarnation, answer.restored_from, answer.whole) == (5, 3, True)
    assert (
        read(native(b"1", 2500, b"0", -1, holds={b"a": held}), ("billing",)).reading.fingerprint
        == reading.fingerprint
    )


def test_native_replies_of_two_states_are_none() -> None:
    assert read_natively([*native()[:-1], b"18 5 3 0 0"], 1.0, (), HoldObserver()) is None


@pytest.mark.parametrize("value", [None, b""])
def test_absent_switch_is_off_and_an_empty_one_is_unreadable(value: bytes | None) -> None:
    assert read(native(value, -2)).reading.switch == OFF
    assert (read(native(value, -1)).reading.switch is None) is (value == b"")


@pytest.mark.parametrize(
    "clock", [NoPermissionError("no"), [b"x", b"y"], [None, b"1"], [b"9" * 20, b"0"], [b"1"], None]
)
def test_local_clock_stands_in_for_that_of_redis(clock: object) -> None:
    replies = native()
    replies[-2] = clock

    assert read(replies).reading.now == 42.0


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"perhaps", "not a boolean word"),
        (b"1" * (MAX_BYTES + 1), "longer than"),
        (ResponseError("WRONGTYPE Operation against a key"), "delete the key"),
    ],
)
def test_native_value_that_cannot_be_read_is_unknown(value: object, problem: str) -> None:
    reading = read(native(value, -1, value, -1), ("billing",)).reading

    assert reading.switch is None
    assert problem in str(reading.error)
    assert (reading.components or {})["billing"].switch is None


@pytest.mark.parametrize("value", [NoPermissionError("this user has no permissions"), 5, [b"1"]])
def test_without_a_value_there_is_no_native_reading(value: object) -> None:
    with pytest.raises(BackendError, match="GET"):
        read(native(value, -1))
    assert "GET failed" in str(read(native(b"1", -1, value, -1), ("billing",)).reading.error)


def test_refused_holds_and_epoch_leave_the_switch() -> None:
    refusal = NoPermissionError("no")
    replies = native(b"1", -1, holds=refusal)
    replies[0] = replies[-1] = refusal

    answer = read(replies)

    assert (answer.reading.switch, answer.reading.holds, answer.reading.error) == (ON, None, None)
    assert not answer.whole
    assert "not a hash" in str(
        read(native(b"1", -1, holds=ResponseError("WRONGTYPE"))).reading.error
    )


@pytest.mark.parametrize("holds", [7, [b"a", 7], [7, b"1 2 {}"]])
def test_holds_of_another_shape_are_a_backend_error(holds: object) -> None:
    with pytest.raises(BackendError, match="something else than a hash"):
        read(native(b"1", -1, holds=holds))


@settings(deadline=None, max_examples=50)
@given(st.lists(GARBAGE, min_size=8, max_size=8))
def test_native_garbage_is_a_reading_or_a_backend_error(replies: list[Any]) -> None:
    try:
        answer = read_natively(replies, 1.0, ("billing",), HoldObserver())
    except BackendError:
        return
    assert (
        answer is None
        or answer.reading.switch is None
        or isinstance(answer.reading.switch, MaintenanceState)
    )


# -- holds, on the observer's own clock ------------------------------------------------------------


def test_hold_is_over_when_it_was_seen_unchanged_for_its_lease() -> None:
    at = 0.0
    observer = HoldObserver(lambda: at)

    def holds(deadline: int, now: float) -> tuple[Hold, ...]:
        entry = b"a", b"%d" % deadline, b"7", replace(HOLD, lease=30.0).dump().encode()
        return observer.live([entry], now)[0]

    (hold,) = holds(1, now=1000.0)
    assert hold.deadline == 1030.0, "whatever deadline is stored, in whose past or future"
    at = 29.0
    assert [one.deadline for one in holds(1, now=5.0)] == [6.0], (
        "the server's clock was set back meanwhile"
    )
    assert not observer.over
    at = 30.0
    assert holds(1, now=6.0) == ()
    assert list(observer.over) == ["a"]
    assert len(holds(2, now=6.0)) == 1, "it was renewed"


# -- losing data -----------------------------------------------------------------------------------


def answer(
    epoch: int = 10, incarnation: int = 5, restored_from: int = 0, *, restored: bytes = b""
) -> ScriptReply:
    snapshot = Snapshot(epoch=epoch, fingerprint=str(epoch % 2))
    return ScriptReply(snapshot, incarnation, restored_from, restored=restored)


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        (answer(), answer(), False),
        (answer(), answer(epoch=11), False),
        (answer(), answer(epoch=9), True),  # rolled back
        (answer(), answer(epoch=0, incarnation=0), True),  # gone
        (
            answer(),
            answer(epoch=99, incarnation=9),
            True,
        ),  # begun anew by somebody who remembers nothing
        (answer(), answer(epoch=99, incarnation=9, restored_from=5), False),  # put back already
        (answer(), answer(epoch=12, restored=b"x"), False),  # the same was
        (answer(), answer(epoch=11, restored=b"x"), True),  # something else was
        (answer(restored=b"x"), answer(epoch=11, restored=b"x"), False),  # which is known
        (
            answer(epoch=0, incarnation=0),
            answer(epoch=1, incarnation=9),
            False,
        ),  # there was nothing to lose
    ],
)
def test_data_is_lost_when_its_life_ended_or_went_back(
    before: ScriptReply, after: ScriptReply, lost: bool
) -> None:
    assert before.is_lost_in(after) is lost
