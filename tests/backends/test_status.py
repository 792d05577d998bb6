"""What is told of a reading: which state holds, what decided it, and until when."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastapi_maintenance import MaintenanceState
from fastapi_maintenance.backends import EnvVarBackend
from fastapi_maintenance.backends.status import StatusReport, describe_hold, label
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import ComponentSwitch, Snapshot
from fastapi_maintenance.model.state import OFF, ON

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
STATE_KEYS = {
    "enabled",
    "message",
    "reason",
    "retry_after",
    "starts_at",
    "ends_at",
    "mode",
    "by",
    "since",
    "allow",
    "bypass",
    "ignored",
}


def on_hold(id: str = "a", *, seconds: float = 30.0, since: float = 1.0, **details: Any) -> Hold:
    return Hold(id, MaintenanceState(enabled=True, **details), since, NOW.timestamp() + seconds)


def off_hold(id: str = "z", *, lifts: tuple[str, ...] = ()) -> Hold:
    return Hold(id, MaintenanceState(enabled=False), 9.0, NOW.timestamp() + 30.0, lifts)


def report(*, at: float = 0.0, **reading: Any) -> StatusReport:
    """What a reading made at `NOW` says `at` seconds later."""
    now = NOW.timestamp()
    return StatusReport(
        "redis://host:6379/0?key=maintenance", "redis", Snapshot(**{"now": now} | reading), now + at
    )


def test_snapshot_is_evaluated_at_its_own_time() -> None:
    reading = Snapshot(now=5.0)
    assert StatusReport.of(EnvVarBackend("X"), reading) == StatusReport(
        "env:X", "env", reading, 5.0
    )
    assert StatusReport.of(EnvVarBackend("X"), reading, 7.0).now == datetime.fromtimestamp(7.0, UTC)


@pytest.mark.parametrize(
    ("reading", "state", "decided_by"),
    [
        ({"switch": ON}, "on", "switch"),
        ({"switch": OFF}, "off", "switch"),
        ({"switch": OFF, "holds": (on_hold(),)}, "on", "hold"),
        ({"switch": ON, "holds": (off_hold(),)}, "off", "hold"),
        ({"switch": OFF, "holds": (on_hold(seconds=-1),)}, "off", "switch"),
        ({"switch": None}, "unknown", None),
        ({"switch": OFF, "holds": None}, "unknown", None),
        ({"switch": ON, "holds": None}, "unknown", None),
        ({"switch": None, "holds": (on_hold(),)}, "on", "hold"),
        ({"switch": None, "holds": (off_hold(),)}, "off", "hold"),
    ],
)
def test_state_is_unknown_where_unreadable_parts_decide(
    reading: dict[str, Any], state: str, decided_by: str | None
) -> None:
    seen = report(**reading)
    assert (label(seen.state), seen.decided_by) == (state, decided_by)


def test_a_hold_that_another_lifts_is_not_what_decides() -> None:
    mine, theirs, lifting = on_hold("a"), on_hold("b", since=2.0), off_hold(lifts=("a",))
    assert report(holds=(theirs, lifting, mine)).deciding == (theirs,)
    assert report(holds=(lifting, mine)).deciding == (lifting,)
    assert report(switch=ON).deciding == ()


def test_holds_are_listed_oldest_first_while_live() -> None:
    newer, older, over = on_hold("a", since=2.0), on_hold("b", since=1.0), on_hold("c", seconds=5.0)
    seen = report(holds=(newer, over, older), at=5.0)
    assert seen.holds == (older, newer)
    assert seen.lease_of(older) == 25.0
    assert report(holds=None).holds is None


def test_hold_is_named_by_owner_and_reason_or_number() -> None:
    assert describe_hold(on_hold("a", by="ana@ops", reason="reindex")) == "ana@ops (reindex)"
    assert describe_hold(on_hold("a", by="ana@ops")) == "ana@ops"
    assert describe_hold(on_hold("a", reason="reindex")) == "a (reindex)"


def test_a_time_to_live_counts_down() -> None:
    assert report(switch=ON, expires_in=60.0, at=20.0).expires_in == 40.0
    assert report(switch=ON, expires_in=60.0, at=70.0).expires_in == 0.0
    assert report(switch=ON).expires_in is None


def test_clients_are_told_to_wait_only_while_it_is_on() -> None:
    assert report(switch=ON).retry_after == 3600
    assert report(switch=ON, expires_in=60.0, at=20.0).retry_after == 40
    assert report(switch=OFF).retry_after is None
    assert report(switch=None).retry_after is None


def test_a_window_is_coming_until_it_begins() -> None:
    window = MaintenanceState(
        enabled=True, starts_at=NOW + timedelta(minutes=5), ends_at=NOW + timedelta(hours=1)
    )
    assert report(switch=window).upcoming == window
    assert report(switch=window).state == window.model_copy(update={"enabled": False})
    assert report(switch=window, at=300.0).upcoming is None
    assert report(switch=window.model_copy(update={"enabled": False})).upcoming is None
    assert report(switch=ON).upcoming is None
    assert report(switch=None).upcoming is None


def test_windows_are_told_with_whether_they_have_begun() -> None:
    window = MaintenanceState(
        enabled=True, starts_at=NOW + timedelta(minutes=5), ends_at=NOW + timedelta(hours=1)
    )
    assert [
        [told["begun"] for told in report(switch=window, at=at).windows_json()]
        for at in (0.0, 300.0, 3600.0)
    ] == [[False], [True], []]


def test_a_scope_without_a_switch_of_its_own_has_no_window() -> None:
    window = MaintenanceState(enabled=True, starts_at=NOW + timedelta(minutes=5))

    def of_billing(**components: ComponentSwitch) -> StatusReport:
        return StatusReport(
            "redis://host",
            "redis",
            Snapshot(window, now=NOW.timestamp(), components=components),
            NOW.timestamp(),
            "billing",
        )

    assert (of_billing().window, of_billing(search=ComponentSwitch(window)).window) == (None, None)
    assert of_billing(billing=ComponentSwitch(window)).window == window


def test_window_ends_with_the_time_to_live() -> None:
    window = MaintenanceState(enabled=True, starts_at=NOW + timedelta(minutes=5))
    seen = report(switch=window, expires_in=600.0)
    assert seen.upcoming == window.model_copy(update={"ends_at": NOW + timedelta(minutes=10)})
    assert report(switch=window, expires_in=600.0, at=60.0).upcoming == seen.upcoming
    never = report(switch=window, expires_in=200.0)
    assert (never.upcoming, never.window, never.to_json()["upcoming"]) == (None, None, None)


def test_json_has_all_its_keys_whatever_there_is_to_say() -> None:
    window = MaintenanceState(enabled=True, starts_at=NOW + timedelta(minutes=5))
    full = report(
        switch=window,
        holds=(on_hold(by="ana"), off_hold(lifts=("x",))),
        expires_in=900.0,
        error="!",
    ).to_json()
    empty = report(switch=None, holds=None).to_json()
    assert set(full) == set(empty)
    assert set(full["state"]) == STATE_KEYS
    assert set(full["switch"]) == STATE_KEYS | {"expires_in"}
    assert [set(hold) for hold in full["holds"]] == [
        STATE_KEYS | {"id", "lease", "lifts", "component"}
    ] * 2
    assert set(full["upcoming"]) == {"starts_at", "ends_at"}
    assert empty == {
        "component": None,
        "enabled": None,
        "decided_by": None,
        "state": None,
        "retry_after": None,
        "changes_at": None,
        "switch": None,
        "upcoming": None,
        "holds": None,
        "error": None,
        "now": "2026-11-22T03:00:00Z",
        "backend": {"kind": "redis", "url": "redis://host:6379/0?key=maintenance"},
    }


def test_json_says_what_is_on_since_when_and_until_when() -> None:
    switch = MaintenanceState(
        enabled=True, reason="OPS-417", since=NOW, ends_at=NOW + timedelta(hours=1)
    )
    document = json.loads(json.dumps(report(switch=switch, holds=(on_hold(by="ana"),)).to_json()))
    assert document["enabled"] is True
    assert (document["decided_by"], document["state"]["by"]) == ("hold", "ana")
    assert document["switch"]["since"] == "2026-11-22T03:00:00Z"
    assert document["switch"]["ends_at"] == "2026-11-22T04:00:00Z"
    assert document["holds"][0]["lease"] == 30.0
    assert document["changes_at"] == "2026-11-22T03:00:30Z"


@pytest.mark.parametrize(
    ("ends_at", "shown"),
    [
        ("0001-01-01T00:00:00+02:00", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:30:00-01:00", "9999-12-31T23:59:59Z"),
        ("2026-11-22T05:00:00+01:00", "2026-11-22T04:00:00Z"),
    ],
)
def test_json_has_times_in_utc_within_the_calendar(ends_at: str, shown: str) -> None:
    switch = MaintenanceState.parse(f'{{"enabled": true, "ends_at": "{ends_at}"}}')
    switch_json = report(switch=switch).to_json()["switch"]
    assert (switch_json["ends_at"], switch_json["ignored"]) == (shown, [])


def test_json_has_null_for_what_never_ends() -> None:
    endless = Hold("a", ON, 1.0)
    document = report(holds=(endless,)).to_json()
    assert document["holds"][0]["lease"] is None
    assert document["changes_at"] is None
    assert report(switch=ON, expires_in=1e15).to_json()["changes_at"] is None
