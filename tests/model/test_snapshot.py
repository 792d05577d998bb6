"""What a switch and its holds mean together at a given time."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any, Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastapi_maintenance.exceptions import InvalidStateError
from fastapi_maintenance.model.evaluate import evaluate
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import (
    ComponentSwitch,
    Snapshot,
    with_last_known,
    with_stable_expiry,
)
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState

from .test_state import states

NOW = 1_795_318_200.0
READ_ONLY = MaintenanceState(enabled=True, mode="read-only")


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def on(message: str, **details: object) -> MaintenanceState:
    return MaintenanceState(enabled=True, message=message).replace(**details)


# -- the switch alone ------------------------------------------------------------------------------


def test_snapshot_empty_is_off_forever() -> None:
    effective = evaluate(Snapshot(now=NOW), NOW)
    assert (effective.hold, effective.state, effective.until) == (None, OFF, math.inf)


def test_switch_never_known_is_off() -> None:
    assert evaluate(Snapshot(None, None, NOW, error="unreadable"), NOW).state == OFF


def test_switch_alone_is_the_state_with_details() -> None:
    state = on("soon", reason="OPS-1")
    assert evaluate(Snapshot(state, now=NOW), NOW).state is state


@pytest.mark.parametrize(
    ("now", "enabled", "until"),
    [(-1.0, False, 0.0), (0.0, True, 60.0), (59.9, True, 60.0), (60.0, False, math.inf)],
)
def test_window_turns_switch_on_and_off(now: float, enabled: bool, until: float) -> None:
    switch = on("window", starts_at=moment(NOW), ends_at=moment(NOW + 60))
    effective = evaluate(Snapshot(switch, now=NOW - 100), NOW + now)
    assert effective.state.enabled is enabled
    assert effective.state.message == "window"
    assert effective.until == (NOW + until if until < math.inf else math.inf)


def test_window_is_upcoming_until_it_begins() -> None:
    switch = on("window", starts_at=moment(NOW), ends_at=moment(NOW + 60))
    assert evaluate(Snapshot(switch, now=NOW - 100), NOW - 0.1).upcoming is switch
    assert evaluate(Snapshot(switch, now=NOW - 100), NOW).upcoming is None
    assert (
        evaluate(Snapshot(switch.replace(enabled=False), now=NOW - 100), NOW - 0.1).upcoming is None
    )
    assert evaluate(Snapshot(None, now=NOW - 100), NOW - 0.1).upcoming is None


@pytest.mark.parametrize("left", [99.0, 100.0])
def test_window_after_expiry_is_not_upcoming(left: float) -> None:
    assert (
        evaluate(
            Snapshot(on("window", starts_at=moment(NOW)), now=NOW - 100, expires_in=left), NOW - 50
        ).upcoming
        is None
    )


def test_upcoming_window_ends_with_expiry() -> None:
    coming = evaluate(
        Snapshot(on("window", starts_at=moment(NOW)), now=NOW - 100, expires_in=130.0), NOW - 50
    ).upcoming
    assert coming == on("window", starts_at=moment(NOW), ends_at=moment(NOW + 30))


def test_expiry_ends_switch_and_is_its_end() -> None:
    reading = Snapshot(ON, now=NOW, expires_in=90.0)
    assert evaluate(reading, NOW + 30).state == MaintenanceState(
        enabled=True, ends_at=moment(NOW + 90)
    )
    assert evaluate(reading, NOW + 30).state.retry_after_at(moment(NOW + 30)) == 60
    assert evaluate(reading, NOW + 30).until == NOW + 90
    assert evaluate(reading, NOW + 90) == evaluate(Snapshot(now=NOW), NOW)


def test_end_before_expiry_is_kept() -> None:
    switch = MaintenanceState(enabled=True, ends_at=moment(NOW + 10))
    effective = evaluate(Snapshot(switch, now=NOW, expires_in=90.0), NOW)
    assert effective.state is switch
    assert effective.until == NOW + 10


@pytest.mark.parametrize("seconds", [1e12, 9.2e15, 1e18, 1e300])
def test_expiry_beyond_calendar_is_no_end(seconds: float) -> None:
    assert evaluate(Snapshot(ON, now=NOW, expires_in=seconds), NOW).state is ON


# -- holds -----------------------------------------------------------------------------------------


def test_on_hold_closes_until_its_deadline() -> None:
    reading = Snapshot(OFF, (Hold("a", on("migrating"), deadline=NOW + 30),), NOW)
    assert evaluate(reading, NOW + 29).state == on("migrating", retry_after=60)
    assert evaluate(reading, NOW + 29).until == NOW + 30
    assert evaluate(reading, NOW + 30).hold is None
    assert evaluate(reading, NOW + 30).state == OFF


def test_off_hold_opens_closed_switch() -> None:
    assert evaluate(Snapshot(ON, (Hold("a", OFF),), NOW), NOW).state == OFF


def test_off_hold_lifts_named_on_holds() -> None:
    holds = (Hold("outer", ON, since=1.0), Hold("inner", OFF, since=2.0, lifts=("outer",)))
    assert not evaluate(Snapshot(OFF, holds, NOW), NOW).state.enabled


def test_off_hold_does_not_lift_other_on_holds() -> None:
    holds = (
        Hold("theirs", on("their migration"), since=1.0),
        Hold("mine", OFF, since=2.0),
        Hold("outer", ON, since=3.0),
    )
    assert evaluate(Snapshot(OFF, holds, NOW), NOW).state.enabled
    lifting = replace(holds[1], lifts=("outer",))
    assert evaluate(Snapshot(OFF, (holds[0], lifting, holds[2]), NOW), NOW).state == on(
        "their migration", retry_after=60
    )


def test_off_hold_expired_lifts_nothing() -> None:
    holds = (
        Hold("outer", ON, since=1.0),
        Hold("inner", OFF, since=2.0, deadline=NOW, lifts=("outer",)),
    )
    assert evaluate(Snapshot(OFF, holds, NOW), NOW).state.enabled


def test_on_holds_have_newest_details_and_strictest_mode() -> None:
    holds = (
        Hold("a", on("newest", mode="read-only"), since=2.0),
        Hold("b", on("oldest"), since=1.0),
    )
    assert evaluate(Snapshot(OFF, holds, NOW), NOW).state == on(
        "newest", mode="full", retry_after=60
    )


def test_on_holds_allow_common_entries() -> None:
    allowing = ON.replace(allow=("/login", "/b", "/c"))
    holds = (
        Hold("a", allowing, since=2.0),
        Hold("b", ON.replace(allow=("/c", "/login")), since=1.0),
    )
    assert evaluate(Snapshot(OFF, holds[:1], NOW), NOW).state.allow == ("/login", "/b", "/c")
    assert evaluate(Snapshot(OFF, holds, NOW), NOW).state.allow == ("/login", "/c")
    assert evaluate(Snapshot(OFF, (*holds, Hold("c", ON)), NOW), NOW).state.allow is None
    assert evaluate(Snapshot(allowing, (Hold("c", ON),), NOW), NOW).state.allow is None, (
        "a switch allows nothing under a hold"
    )


def test_on_holds_read_only_stay_read_only() -> None:
    holds = (
        Hold("a", READ_ONLY, since=1.0),
        Hold("b", READ_ONLY, since=2.0),
        Hold("c", OFF, since=3.0, lifts=("a",)),
    )
    assert evaluate(Snapshot(ON, holds, NOW), NOW).state.mode == "read-only"


def test_lifted_hold_does_not_affect_mode() -> None:
    holds = (
        Hold("full", ON, since=1.0),
        Hold("off", OFF, since=2.0, lifts=("full",)),
        Hold("ro", READ_ONLY, since=3.0),
    )
    assert evaluate(Snapshot(OFF, holds, NOW), NOW).state.mode == "read-only"


def test_off_holds_have_newest_details() -> None:
    holds = (
        Hold("a", OFF.replace(reason="newest"), since=2.0),
        Hold("b", OFF.replace(reason="oldest"), since=1.0),
    )
    assert evaluate(Snapshot(ON, holds, NOW), NOW).state.reason == "newest"


IDS = ["a", "b", "c", "d"]
modes = st.sampled_from(["full", "read-only"])
hold_states = st.builds(
    MaintenanceState, enabled=st.booleans(), mode=modes, message=st.sampled_from("xyz")
)


@st.composite
def readings(draw: st.DrawFn) -> Snapshot:
    """A switch with a time to live or without, and up to four holds."""
    ids = draw(st.lists(st.sampled_from(IDS), unique=True))
    holds = tuple(
        Hold(
            id,
            draw(hold_states),
            since=float(draw(st.integers(0, 3))),
            deadline=NOW + draw(st.integers(-2, 2)),
            lifts=tuple(draw(st.lists(st.sampled_from(IDS), max_size=2))),
        )
        for id in ids
    )
    return Snapshot(draw(hold_states), holds, NOW, draw(st.none() | st.floats(-2, 2)))


def closed_by_the_rules(reading: Snapshot, now: float) -> bool:
    """Whether it is closed, by the words of the specification and in the most tedious way."""
    live = [hold for hold in reading.holds or () if hold.deadline > now]
    for hold in live:
        if hold.state.enabled and not any(
            hold.id in other.lifts for other in live if not other.state.enabled
        ):
            return True
    if any(not hold.state.enabled for hold in live):
        return False
    alive = reading.expires_in is None or now < reading.now + reading.expires_in
    return alive and reading.switch is not None and reading.switch.enabled


@given(readings(), st.sampled_from([NOW - 1, NOW, NOW + 1.5]))
def test_random_holds_follow_the_rules(reading: Snapshot, now: float) -> None:
    assert evaluate(reading, now).state.enabled is closed_by_the_rules(reading, now)


@given(readings(), st.permutations(IDS))
def test_holds_order_is_ignored(reading: Snapshot, order: list[str]) -> None:
    shuffled = sorted(reading.holds or (), key=lambda hold: order.index(hold.id))
    assert evaluate(replace(reading, holds=tuple(shuffled)), NOW) == evaluate(reading, NOW)


@given(readings(), st.floats(0, 0.999))
def test_effective_state_is_constant_before_until(reading: Snapshot, fraction: float) -> None:
    effective = evaluate(reading, NOW)
    assert effective.until > NOW
    later = NOW + fraction * (min(effective.until, NOW + 10) - NOW)
    assume(later < effective.until)  # times of today are told apart by a quarter of a microsecond
    assert evaluate(reading, later) == effective


@given(readings())
def test_on_hold_of_others_always_closes(
    reading: Snapshot,
) -> None:
    theirs = Hold("theirs", on("their migration"), since=9.0)
    effective = evaluate(replace(reading, holds=(*(reading.holds or ()), theirs)), NOW)
    assert effective.state.enabled
    assert effective.state.message == "their migration"


# -- holds as text ---------------------------------------------------------------------------------


@given(states(), st.floats(0, 1e12), st.lists(st.text(), max_size=3))
def test_hold_written_and_parsed_is_equal(
    state: MaintenanceState, since: float, lifts: list[str]
) -> None:
    hold = Hold("id", state, since, 5.0, tuple(lifts))
    assert Hold.parse("id", 5.0, hold.dump()) == hold


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "5",
        "[" * 100_000,
        b"\xff",
        "{}",
        '{"state": 1}',
        '{"state": {"enabled": true}, "since": "soon"}',
        '{"state": {"enabled": true}, "since": NaN}',
        '{"state": {"enabled": true}, "since": 1e999}',
        pytest.param(
            '{"state": {"enabled": true}, "since": 1' + "0" * 400 + "}", id="since beyond a float"
        ),
        '{"state": {"enabled": true}, "lifts": "abc"}',
        '{"state": {"enabled": true}, "lifts": null}',
    ],
    ids=lambda text: repr(text)[:50],
)
def test_hold_unreadable_is_refused_by_id(text: str | bytes) -> None:
    with pytest.raises(InvalidStateError, match=r"The hold 'id' cannot be read\."):
        Hold.parse("id", 5.0, text)


def test_hold_with_invalid_details_is_obeyed() -> None:
    hold = Hold.parse(
        "id",
        5.0,
        '{"state": {"enabled": true, "colour": 1, "mode": "half"}, "since": 1, "later": 2}',
    )
    assert (hold.state.enabled, hold.state.mode) == (True, "full")
    assert hold.state.ignored == (
        "mode: Input should be 'full' or 'read-only'",
        "colour: unknown key",
    )


@given(
    st.text()
    | st.binary()
    | st.recursive(st.none() | st.floats() | st.text(), lambda parts: st.lists(parts)).map(
        json.dumps
    )
)
def test_hold_garbage_raises_invalid_state_error(garbage: str | bytes) -> None:
    with pytest.raises(InvalidStateError):
        Hold.parse("id", 5.0, garbage)


# -- one reading after another ---------------------------------------------------------------------


def test_snapshot_complete_is_unchanged() -> None:
    new, old = Snapshot(ON, (), NOW), Snapshot(OFF, (Hold("a", ON),), NOW - 1)
    assert with_last_known(new, old) is new


def test_snapshot_gaps_are_filled_with_last_known() -> None:
    holds = (Hold("a", ON),)
    filled = with_last_known(
        Snapshot(None, None, NOW, error="unreadable"), Snapshot(READ_ONLY, holds, NOW - 1)
    )
    assert (filled.switch, filled.holds, filled.now, filled.error) == (
        READ_ONLY,
        holds,
        NOW,
        "unreadable",
    )


def test_last_known_switch_keeps_its_expiry() -> None:
    filled = with_last_known(Snapshot(None, (), NOW), Snapshot(ON, (), NOW - 50, expires_in=60.0))
    assert evaluate(filled, NOW + 9).state.enabled
    assert not evaluate(filled, NOW + 10).state.enabled


def test_snapshot_gap_without_last_known_stays() -> None:
    new = Snapshot(None, None, NOW)
    assert with_last_known(new, None) is new


def test_expiry_within_jitter_is_stable() -> None:
    old, new = Snapshot(ON, (), NOW, expires_in=60.0), Snapshot(ON, (), NOW + 10, expires_in=50.005)
    assert with_stable_expiry(new, old).expires_in == 50.0


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (Snapshot(ON, (), NOW + 10, expires_in=55.0), Snapshot(ON, (), NOW, expires_in=60.0)),
        (Snapshot(ON, (), NOW), Snapshot(ON, (), NOW, expires_in=60.0)),
        (Snapshot(ON, (), NOW, expires_in=60.0), Snapshot(ON, (), NOW)),
        (Snapshot(ON, (), NOW, expires_in=60.0), None),
    ],
    ids=["moved", "gone", "new", "first"],
)
def test_expiry_beyond_jitter_is_taken(new: Snapshot, old: Snapshot | None) -> None:
    assert with_stable_expiry(new, old) is new


# -- components ------------------------------------------------------------------------------------

COMING = on("coming", starts_at=moment(NOW + 10))
OVER = on("over", ends_at=moment(NOW - 10))
OWN: Final[dict[str, ComponentSwitch | None]] = {
    "none": None,
    "on": ComponentSwitch(on("own")),
    "off": ComponentSwitch(OFF),
    "expired": ComponentSwitch(on("own"), -1.0),
    "off, expired": ComponentSwitch(OFF, -1.0),
    "coming": ComponentSwitch(COMING),
    "over": ComponentSwitch(OVER),
}


def component_holds(general: bool | None, own: bool | None, other: bool | None) -> tuple[Hold, ...]:
    given = ((None, general), ("s", own), ("other", other))
    return tuple(
        Hold(str(component), ON.replace(enabled=enabled), component=component)
        for component, enabled in given
        if enabled is not None
    )


@pytest.mark.parametrize("switch", [ON, OFF])
@pytest.mark.parametrize("own", OWN)
def test_component_state_follows_the_table(own: str, switch: MaintenanceState) -> None:
    cases = 0
    for general, itself, other in product((None, True, False), repeat=3):
        holds = component_holds(general, itself, other)
        components = {} if (present := OWN[own]) is None else {"s": present}
        found = evaluate(
            Snapshot(switch, holds, NOW, components=components), NOW, "s"
        ).state.enabled
        table = [
            (general is True or itself is True, True),
            (itself is False, False),
            (own == "on", True),
            (own == "off", False),
            (general is False, False),
            (True, switch.enabled),
        ]
        assert found is next(enabled for applies, enabled in table if applies), (
            general,
            itself,
            other,
        )
        cases += 1
    assert cases == 27


@pytest.mark.parametrize("own", OWN)
def test_general_state_ignores_components(own: str) -> None:
    components = {} if (present := OWN[own]) is None else {"s": present}
    for enabled in (True, False):
        reading = Snapshot(OFF, component_holds(None, enabled, enabled), NOW, components=components)
        assert evaluate(reading, NOW).state == OFF
        assert evaluate(reading, NOW).until == math.inf


def test_component_off_hold_lifts_in_its_component_only() -> None:
    holds = (Hold("a", ON), Hold("b", OFF, lifts=("a",), component="s"))
    reading = Snapshot(OFF, holds, NOW)
    assert not evaluate(reading, NOW, "s").state.enabled
    assert evaluate(reading, NOW).state.enabled
    assert evaluate(reading, NOW, "other").state.enabled


def test_general_off_hold_lifts_component_block_not_switch() -> None:
    holds = (Hold("a", ON, component="s"), Hold("b", OFF, lifts=("a",)))
    assert not evaluate(Snapshot(ON, holds, NOW), NOW, "s").state.enabled
    assert evaluate(
        Snapshot(OFF, holds, NOW, components={"s": ComponentSwitch(ON)}), NOW, "s"
    ).state.enabled


def test_component_until_is_its_next_change() -> None:
    def until(own: ComponentSwitch, switch: MaintenanceState = OFF) -> float:
        return evaluate(Snapshot(switch, now=NOW, components={"s": own}), NOW, "s").until

    assert until(ComponentSwitch(ON, 5.0)) == NOW + 5
    assert until(ComponentSwitch(COMING)) == NOW + 10
    assert until(ComponentSwitch(OFF, 5.0), on("all", ends_at=moment(NOW + 3))) == NOW + 3


def test_component_upcoming_window_else_general() -> None:
    general = on("all", starts_at=moment(NOW + 20))

    def coming(
        own: ComponentSwitch | None, switch: MaintenanceState = general
    ) -> MaintenanceState | None:
        return evaluate(
            Snapshot(switch, now=NOW, components={} if own is None else {"s": own}), NOW, "s"
        ).upcoming

    assert coming(None) == general
    assert coming(ComponentSwitch(COMING)) == COMING
    assert coming(ComponentSwitch(OVER)) == general
    assert coming(ComponentSwitch(OFF)) is None
    assert coming(ComponentSwitch(ON)) is None


def test_component_hold_written_and_parsed_is_equal() -> None:
    hold = Hold("a", ON, since=1.0, deadline=2.0, lifts=("b",), component="billing")
    assert Hold.parse("a", 2.0, hold.dump()) == hold


@pytest.mark.parametrize("component", ["1", "[]", "{}", "true"])
def test_component_hold_unreadable_is_refused(component: str) -> None:
    """And not one of everything, nor of nothing."""
    with pytest.raises(InvalidStateError):
        Hold.parse("a", 2.0, f'{{"state": {{"enabled": true}}, "scope": {component}}}')


def test_component_gaps_are_filled_with_last_known() -> None:
    old = Snapshot(now=NOW, components={"a": ComponentSwitch(ON, 60.0), "b": ComponentSwitch(ON)})
    new = Snapshot(
        now=NOW + 10,
        components={
            "a": ComponentSwitch(None),
            "c": ComponentSwitch(None),
            "d": ComponentSwitch(OFF),
        },
    )
    assert with_last_known(new, old).components == {
        "a": ComponentSwitch(ON, 50.0),
        "d": ComponentSwitch(OFF),
    }
    assert with_last_known(new, None).components == {"d": ComponentSwitch(OFF)}
    assert with_last_known(replace(new, components=None), old).components == {
        "a": ComponentSwitch(ON, 50.0),
        "b": ComponentSwitch(ON),
    }
    assert with_last_known(replace(new, components=None), None).components == {}


def test_component_expiry_within_jitter_is_stable() -> None:
    old = Snapshot(
        now=NOW, components={"a": ComponentSwitch(ON, 60.0), "b": ComponentSwitch(ON, 60.0)}
    )
    new = Snapshot(
        now=NOW + 10,
        components={
            "a": ComponentSwitch(ON, 50.01),
            "b": ComponentSwitch(ON, 70.0),
            "c": ComponentSwitch(ON, 1.0),
        },
    )
    assert with_stable_expiry(new, old).components == {
        "a": ComponentSwitch(ON, 50.0),
        "b": ComponentSwitch(ON, 70.0),
        "c": ComponentSwitch(ON, 1.0),
    }


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({}, 60),
        ({"retry_after": 7}, 7),
        ({"retry_after": 0}, 0),
        ({"ends_at": moment(NOW + 120)}, 120),
    ],
)
def test_hold_without_known_end_says_60_seconds(details: dict[str, Any], expected: int) -> None:
    reading = Snapshot(ON, (Hold("a", MaintenanceState(enabled=True, **details)),), NOW)
    assert evaluate(reading, NOW).state.retry_after_at(moment(NOW)) == expected


def test_switch_without_known_end_says_an_hour() -> None:
    assert evaluate(Snapshot(ON, (), NOW), NOW).state.retry_after_at(moment(NOW)) == 3600
