"""What a worker goes by: judged from what is known, without I/O, and kept right by a watch."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from fastapi_maintenance import MaintenanceModeMiddleware
from fastapi_maintenance.backends import (
    BaseStateBackend,
    EnvVarBackend,
    LocalFileBackend,
    RedisBackend,
)
from fastapi_maintenance.exceptions import BackendError, BackendUnavailableError, ConfigurationError
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.precedence import DecidedBy
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from fastapi_maintenance.runtime.gate import OutagePolicy
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..conftest import RedisServerFactory
from ..support.asgi import UNUSED, http_scope
from ..support.clock import T0, Clock, at
from ..support.doubles import DeadWatch, Ignorant, StateBoard, Switchboard
from ..support.holders import Program
from ..support.registering import reports
from ..support.servers import RedisServer
from ..support.waiting import eventually, eventually_sync

LOGGER: Final = "fastapi_maintenance"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged from information upwards."""
    with caplog.at_level(logging.INFO, logger=LOGGER):
        yield caplog


def lines(log: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [
        record.getMessage()
        for record in log.records
        if record.name == LOGGER and record.levelno >= level
    ]


def is_closed(mode: MaintenanceMode) -> bool:
    return mode.evaluate_gate().closure is not None


async def is_closed_now(mode: MaintenanceMode) -> bool:
    return (await mode.refresh()).closure is not None


# -- judged from what is known ---------------------------------------------------------------------


def test_gate_before_any_snapshot_is_open_and_expired(clock: Clock) -> None:
    mode = MaintenanceMode(Switchboard())

    assert mode.gate.closure is None
    assert mode.gate.source == "default"
    assert mode.gate.until < clock.monotonic()


def test_snapshot_closes_the_gate_and_the_next_opens_it(clock: Clock) -> None:
    mode = MaintenanceMode(Switchboard())

    mode.update(Snapshot(MaintenanceState(enabled=True, message="Soon"), now=T0), clock.monotonic())
    closing = mode.gate.closure
    assert closing is not None
    assert (closing.rule, closing.state.message) == (DecidedBy.SWITCH, "Soon")
    assert (mode.gate.state.message, mode.gate.source) == ("Soon", "board")

    mode.update(Snapshot(OFF, now=T0), clock.monotonic())
    assert mode.gate.closure is None
    assert mode.gate.state == OFF


@pytest.mark.parametrize(
    ("hold", "override", "switch", "closed_by"),
    [
        (None, None, OFF, None),
        (None, None, ON, DecidedBy.SWITCH),
        (None, True, OFF, DecidedBy.OVERRIDE),
        (None, False, ON, None),
        (ON, False, OFF, DecidedBy.HOLD),
        (OFF, True, ON, None),
    ],
)
def test_hold_before_override_before_switch(
    hold: MaintenanceState | None,
    override: bool | None,
    switch: MaintenanceState,
    closed_by: DecidedBy | None,
) -> None:
    mode = MaintenanceMode(Switchboard(), enable_maintenance=override)

    mode.update(
        Snapshot(switch, () if hold is None else (Hold("a", hold),), now=T0), time.monotonic()
    )

    assert (mode.gate.closure.rule if mode.gate.closure else None) == closed_by


WILL_OPEN: Final = Snapshot(MaintenanceState(enabled=True, ends_at=at(10)), now=T0)
WILL_CLOSE: Final = Snapshot(
    MaintenanceState(enabled=True, starts_at=at(10), ends_at=at(3600)), now=T0
)


@pytest.mark.parametrize(
    ("reading", "closed_before"),
    [
        pytest.param(WILL_CLOSE, False, id="window begins"),
        pytest.param(WILL_OPEN, True, id="window ends"),
        pytest.param(Snapshot(ON, now=T0, expires_in=10.0), True, id="switch expires"),
        pytest.param(Snapshot(OFF, (Hold("a", ON, T0, T0 + 10),), T0), True, id="hold runs out"),
        pytest.param(
            Snapshot(ON, (Hold("a", OFF, T0, T0 + 10),), T0), False, id="off hold runs out"
        ),
    ],
)
def test_worker_flips_by_its_own_clock(
    clock: Clock, reading: Snapshot, closed_before: bool
) -> None:
    """At that instant of the backend's clock, however far that is from ours."""
    backend = Switchboard(ttl=60.0)
    mode = MaintenanceMode(backend)

    mode.update(reading, clock.monotonic())
    assert mode.gate.until == clock.monotonic() + 10
    clock.passed += 9.999
    assert is_closed(mode) is closed_before
    clock.passed += 0.001
    assert is_closed(mode) is not closed_before
    assert backend.reads == 0


def test_gate_without_a_watch_is_valid_for_ttl(clock: Clock) -> None:
    mode = MaintenanceMode(Switchboard(ttl=2.0), stale_after=5.0)

    mode.update(Snapshot(ON, now=T0), clock.monotonic() - 0.5)

    assert mode.gate.until == clock.monotonic() - 0.5 + 2.0


async def test_gate_with_a_watch_is_valid_until_stale() -> None:
    async with MaintenanceMode(Switchboard(ttl=60.0), stale_after=500.0) as mode:
        asked_at = time.monotonic()
        mode.update(Snapshot(ON, now=T0), asked_at)

        assert mode.gate.until == asked_at + 500.0


def test_snapshot_is_as_fresh_as_its_request(clock: Clock) -> None:
    """Not as the one when it arrived: the answer may have been on its way for long."""
    mode = MaintenanceMode(Switchboard(ttl=1.0), stale_after=2.0, on_unreachable="closed")

    mode.update(Snapshot(OFF, now=T0), clock.monotonic() - 1.5)
    clock.passed += 0.5
    assert not is_closed(mode)
    clock.passed += 0.01
    assert is_closed(mode)


@pytest.mark.parametrize(
    ("asked_later", "read_later", "replaces"),
    [
        (-0.7, -0.1, False),
        (-0.2, -0.1, False),
        (-0.7, +0.1, True),
        (-0.2, +0.1, True),
        (+0.1, -0.1, True),
        (+0.1, +0.1, True),
    ],
)
def test_stale_snapshot_never_replaces_a_newer_one(
    clock: Clock, asked_later: float, read_later: float, replaces: bool
) -> None:
    """Stale is what was on its way when the newer one was learned, and was read earlier.

    What was asked for after that is newer, whatever the backend's clock says: it may have been set
    back.
    """
    mode = MaintenanceMode(Switchboard(ttl=1.0))
    mode.update(Snapshot(ON, now=T0), clock.monotonic() - 0.5)

    mode.update(Snapshot(OFF, now=T0 + read_later), clock.monotonic() + asked_later)

    assert is_closed(mode) is not replaces


def test_gate_keeps_its_objects_while_nothing_changes(clock: Clock) -> None:
    """So that the answer to requests stays encoded; also where the time to live is measured a
    little differently.
    """
    mode = MaintenanceMode(Switchboard(ttl=1.0))
    mode.update(Snapshot(ON, now=T0, expires_in=60.0), clock.monotonic())
    closing = mode.gate.closure

    clock.passed += 0.7
    mode.update(Snapshot(replace_nothing(ON), now=T0 + 0.7, expires_in=59.309), clock.monotonic())
    clock.passed += 0.7
    mode.evaluate_gate()
    assert mode.gate.closure is closing

    mode.update(Snapshot(ON, now=T0 + 1.4, expires_in=90.0), clock.monotonic())
    assert mode.gate.closure is not closing


def replace_nothing(state: MaintenanceState) -> MaintenanceState:
    """An equal state that is another object, as every reading makes it."""
    return state.model_copy()


def test_change_is_one_line_in_the_log(clock: Clock, log: pytest.LogCaptureFixture) -> None:
    mode = MaintenanceMode(Switchboard(ttl=1.0))
    state = MaintenanceState(
        enabled=True, reason="OPS-1", by="ana@ops", mode="read-only", message="Soon"
    )

    for reading in (
        Snapshot(OFF, now=T0),
        Snapshot(state, now=T0 + 1),
        Snapshot(state, now=T0 + 2),
        Snapshot(OFF, now=T0 + 3),
    ):
        mode.update(reading, clock.monotonic())
        mode.evaluate_gate()

    assert lines(log) == [
        "maintenance on (read-only, board, by: ana@ops, reason: OPS-1)",
        "maintenance off (board)",
    ]


def test_time_is_that_of_the_backend_once_known(clock: Clock) -> None:
    mode = MaintenanceMode(Switchboard(ttl=1.0))
    assert abs(mode.now() - datetime.now(UTC)) < timedelta(seconds=5)

    mode.update(Snapshot(ON, now=T0 - 3600), clock.monotonic())
    clock.passed += 2
    assert mode.now() == at(-3598)


def test_worker_reports_what_it_has_applied(clock: Clock) -> None:
    mode = MaintenanceMode(Switchboard(ttl=1.0), on_unreachable="closed", stale_after=2.0)
    assert mode.report()["epoch"] == 0
    assert mode.report()["applied"] == ""
    assert mode.report()["closed"] is False
    assert mode.report()["drained"] is False

    mode.update(Snapshot(ON, now=T0, epoch=7, fingerprint="f"), clock.monotonic())

    report = mode.report()
    assert (report["epoch"], report["applied"], report["closed"], report["drained"]) == (
        7,
        "f",
        True,
        True,
    )
    assert (report["pid"], report["fence"]) == (os.getpid(), 2.0)


# -- what cannot be read ---------------------------------------------------------------------------


def test_unreadable_value_keeps_the_state_and_is_logged_once(
    clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    mode = MaintenanceMode(Switchboard(ttl=1.0))
    mode.update(Snapshot(MaintenanceState(enabled=True, message="Soon"), now=T0), clock.monotonic())
    closing = mode.gate.closure

    for problem in ("'maybe' is no word.", "'maybe' is no word.", "'perhaps' is no word."):
        clock.passed += 1
        mode.update(Snapshot(None, None, T0, error=problem), clock.monotonic())
        assert mode.gate.closure is closing

    assert lines(log, logging.ERROR) == [
        "Switchboard: 'maybe' is no word. The last known state stays.",
        "Switchboard: 'perhaps' is no word. The last known state stays.",
    ]
    mode.update(Snapshot(OFF, now=T0), clock.monotonic())
    mode.update(Snapshot(None, now=T0, error="'perhaps' is no word."), clock.monotonic())
    assert len(lines(log, logging.ERROR)) == 3
    assert not is_closed(mode)


def test_holds_count_while_the_switch_is_unreadable(clock: Clock) -> None:
    mode = MaintenanceMode(Switchboard(ttl=1.0))

    mode.update(Snapshot(None, (Hold("a", ON),), clock.time(), error="garbage"), clock.monotonic())
    assert is_closed(mode)
    mode.update(Snapshot(None, (), clock.time(), error="garbage"), clock.monotonic())
    assert not is_closed(mode)


# -- while the backend does not answer -------------------------------------------------------------

TTL: Final = 0.1
STALE_AFTER: Final = 0.3


@pytest.mark.parametrize(
    ("on_unreachable", "known", "stale", "closed", "source"),
    [
        # The switch is on, and nobody answers. What fallbacks there are is never asked, as the
        # state is known.
        ("last-known", True, False, True, "board"),
        ("open", True, False, True, "board"),
        ("closed", True, False, True, "board"),
        ("last-known", True, True, True, "last-known"),
        ("open", True, True, False, "unreachable-open"),
        ("closed", True, True, True, "unreachable-closed"),
        # The switch is off.
        ("last-known", False, False, False, "board"),
        ("open", False, False, False, "board"),
        ("closed", False, False, False, "board"),
        ("last-known", False, True, False, "last-known"),
        ("open", False, True, False, "unreachable-open"),
        ("closed", False, True, True, "unreachable-closed"),
    ],
)
async def test_outage_keeps_the_state_then_follows_the_policy(
    clock: Clock, on_unreachable: OutagePolicy, known: bool, stale: bool, closed: bool, source: str
) -> None:
    backend, fallback = Switchboard(ttl=TTL), Switchboard(not known)
    mode = MaintenanceMode(
        backend, fallback=fallback, on_unreachable=on_unreachable, stale_after=STALE_AFTER
    )
    mode.update(Snapshot(ON if known else OFF, now=T0), clock.monotonic())
    mode.fail(BackendUnavailableError("gone"))

    clock.passed += STALE_AFTER + (0.001 if stale else -0.001)

    assert is_closed(mode) is closed
    assert mode.gate.source == source
    assert fallback.reads == 0


def test_outage_keeps_the_gate_closed_under_a_hold(clock: Clock) -> None:
    """Its holder renews it all the time, and relies on the service being closed."""
    mode = MaintenanceMode(Switchboard(ttl=1.0))
    mode.update(Snapshot(OFF, (Hold("a", ON, T0, T0 + 30),), T0), clock.monotonic())

    clock.passed += 3600
    assert is_closed(mode)
    assert mode.gate.source == "last-known"

    mode.update(Snapshot(OFF, (), T0 + 3600), clock.monotonic())
    assert not is_closed(mode)


def test_outage_still_ends_windows_and_expiries(clock: Clock) -> None:
    """An off hold too: to close is safe, and its holder is told."""
    for reading, closed in (
        (Snapshot(MaintenanceState(enabled=True, ends_at=at(30)), now=T0), False),
        (Snapshot(ON, now=T0, expires_in=30), False),
        (Snapshot(ON, (Hold("a", OFF, T0, T0 + 30),), T0), True),
        # That was over while it was still confirmed.
        (Snapshot(OFF, (Hold("a", ON, T0, T0 + 1),), T0), False),
    ):
        mode = MaintenanceMode(Switchboard(ttl=1.0))
        mode.update(reading, clock.monotonic())
        clock.passed += 1
        mode.cache.touch(clock.monotonic())
        mode.evaluate_gate()
        assert mode.gate.source == "board"
        clock.passed += 30

        assert is_closed(mode) is closed
        assert mode.gate.source == "last-known"


def broken(value: bool) -> Switchboard:
    fallback = Switchboard(value)
    fallback.error = RuntimeError("broken too")
    return fallback


@pytest.mark.parametrize(
    ("on_unreachable", "fallback", "stale", "closed", "source"),
    [
        ("last-known", Switchboard(True), False, True, "board"),
        ("last-known", Switchboard(False), False, False, "board"),
        ("last-known", Ignorant(True), False, False, "default"),
        ("last-known", broken(True), False, False, "default"),
        ("last-known", Switchboard(True), True, True, "board"),
        ("last-known", Switchboard(False), True, False, "board"),
        ("last-known", Ignorant(True), True, False, "default"),
        ("last-known", broken(True), True, False, "default"),
        ("open", Switchboard(True), False, True, "board"),
        ("open", Switchboard(False), False, False, "board"),
        ("open", Ignorant(True), False, False, "default"),
        ("open", broken(True), False, False, "default"),
        ("open", Switchboard(True), True, False, "unreachable-open"),
        ("open", Switchboard(False), True, False, "unreachable-open"),
        ("open", Ignorant(True), True, False, "unreachable-open"),
        ("open", broken(True), True, False, "unreachable-open"),
        # A fence must hold from the start, whatever a fallback says: the barrier may count on it.
        ("closed", Switchboard(False), False, True, "unreachable-closed"),
        ("closed", Ignorant(False), False, True, "unreachable-closed"),
        ("closed", broken(False), True, True, "unreachable-closed"),
        ("closed", Switchboard(False), True, True, "unreachable-closed"),
    ],
)
async def test_worker_without_snapshot_asks_fallbacks_then_policy(
    clock: Clock,
    on_unreachable: OutagePolicy,
    fallback: Switchboard,
    stale: bool,
    closed: bool,
    source: str,
) -> None:
    backend = Switchboard(ttl=TTL)
    backend.error = OSError("nobody there")

    async with MaintenanceMode(
        backend, fallback=fallback, on_unreachable=on_unreachable, stale_after=STALE_AFTER
    ) as mode:
        clock.passed += STALE_AFTER + (0.001 if stale else -0.001)

        assert is_closed(mode) is closed
        assert mode.gate.source == source


def test_staleness_counts_from_the_first_use(clock: Clock) -> None:
    """A server that forks its workers from a preloaded application may do so an hour later."""
    mode = MaintenanceMode(
        Switchboard(ttl=TTL), on_unreachable="open", fallback=(fallback := Switchboard(True))
    )
    mode.backend.error = OSError("nobody there")  # type: ignore[attr-defined]
    clock.passed += 3600
    assert not is_closed(mode)
    assert mode.gate.source == "default"

    asyncio.run(mode.start())

    assert fallback.reads > 0
    assert mode.gate.source == "board"
    assert is_closed(mode)
    clock.passed += 0.3
    assert not is_closed(mode)


@pytest.mark.parametrize("override", [True, False])
def test_override_stands_in_an_outage_unless_closed(clock: Clock, override: bool) -> None:
    for policy, closed in (("open", override), ("closed", True)):
        mode = MaintenanceMode(
            Switchboard(ttl=TTL),
            enable_maintenance=override,
            on_unreachable=policy,  # type: ignore[arg-type]
        )
        mode.update(Snapshot(OFF, now=T0), clock.monotonic())
        clock.passed += 60

        assert is_closed(mode) is closed


async def test_fenced_worker_opens_when_the_backend_answers(
    clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    mode = MaintenanceMode(Switchboard(ttl=TTL), on_unreachable="closed")
    mode.update(Snapshot(OFF, now=T0), clock.monotonic())
    mode.fail(BackendUnavailableError("board: gone."))
    mode.fail(BackendUnavailableError("board: gone, still"))
    clock.passed += 60
    assert is_closed(mode)

    mode.update(Snapshot(OFF, now=T0 + 60), clock.monotonic())
    mode.update(Snapshot(OFF, now=T0 + 60), clock.monotonic())

    assert not is_closed(mode)
    assert lines(log) == [
        "board: gone; the last known state stays, on_unreachable=closed",
        (
            "maintenance on (full, unreachable-closed, reason: The backend cannot be reached, and "
            "on_unreachable is 'closed'.)"
        ),
        "Switchboard answers again",
        "maintenance off (board)",
    ]
    levels = [record.levelname for record in log.records]
    assert levels == ["WARNING", "INFO", "WARNING", "INFO"], "a log of warnings shows the end"


async def test_mode_without_snapshot_follows_its_fallback() -> None:
    backend, fallback = Switchboard(ttl=0.05), Switchboard(False)
    backend.error = OSError("nobody there")

    async with MaintenanceMode(backend, fallback=fallback) as mode:
        assert not is_closed(mode)
        fallback.value = True
        await eventually(lambda: is_closed(mode), within=30)
        assert mode.gate.source == "board"
        backend.error = None
        await eventually(lambda: not is_closed(mode), within=30)


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"on_unreachable": "shut"},
            "on_unreachable must be one of last-known, open, closed, got 'shut'",
        ),
        (
            {"enable_maintenance": "yes"},
            "enable_maintenance must be True, False or None, got 'yes'",
        ),
        ({"stale_after": 0}, "stale_after must be a positive number of seconds, got 0"),
        ({"stale_after": 0.1}, "stale_after must be at least 1.5 ttl, here 0.15 s, got 0.1"),
        ({"close_websockets": -1}, "close_websockets must be a positive number of seconds, got -1"),
        ({"fallback": "ftp://x"}, "A backend URL cannot start with 'ftp'"),
        ({"fallback": [object()]}, "fallback must be backends or their URLs, got <object"),
        ({"fallback": None}, "fallback must be backends or their URLs, got None"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        MaintenanceMode(Switchboard(ttl=TTL), **options)


# -- the watch -------------------------------------------------------------------------------------


async def test_started_mode_knows_and_follows_the_state() -> None:
    backend = Switchboard(True, ttl=0.1)

    async with MaintenanceMode(backend) as mode:
        assert mode.gate.closure is not None
        backend.value = False
        await eventually(lambda: mode.gate.closure is None, within=30)
        backend.value = True
        await eventually(lambda: mode.gate.closure is not None, within=30)


async def test_request_with_a_watch_costs_no_read() -> None:
    backend = Switchboard(True, ttl=30.0)

    async with MaintenanceMode(backend) as mode:
        for _ in range(100):
            assert await is_closed_now(mode)
        assert backend.reads == 1


async def test_stopped_mode_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    mode = MaintenanceMode(Switchboard(ttl=0.05))

    await mode.start()
    await mode.start()
    assert len(asyncio.all_tasks() - before) > 0
    await mode.stop()
    await mode.stop()

    assert asyncio.all_tasks() == before


async def test_stopped_mode_caches_a_read_for_ttl() -> None:
    backend = Switchboard(ttl=0.2)
    mode = MaintenanceMode(backend)
    async with mode:
        pass
    backend.value = True

    assert mode.gate.until <= time.monotonic() + 0.2
    await eventually(lambda: time.monotonic() >= mode.gate.until, within=30)
    assert await is_closed_now(mode)
    await mode.stop()


@pytest.mark.parametrize(
    "end", [None, RuntimeError("the driver gave up"), BackendError("away")], ids=repr
)
async def test_watch_that_ends_is_started_again(
    end: Exception | None, log: pytest.LogCaptureFixture
) -> None:
    backend = DeadWatch(end)

    async with MaintenanceMode(backend) as mode:
        backend.value = True
        await eventually(lambda: mode.gate.closure is not None, within=30)
        assert backend.watched >= 2

    told = set(lines(log, logging.WARNING)) - {"DeadWatch answers again"}
    assert bool(told) is (end is not None)
    assert all(str(end) in line for line in told)


async def test_hanging_backend_delays_the_start_by_ttl_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P1's exception, and P4: the application boots."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    backend = Switchboard(ttl=0.3)
    backend.hang()
    started = time.monotonic()

    mode = MaintenanceMode(backend)
    await asyncio.wait_for(mode.start(), 20)

    assert 0.25 < time.monotonic() - started < 20
    assert is_closed(mode)
    assert mode.gate.source == "env"
    await mode.stop()


async def test_hanging_fallback_does_not_prevent_the_start(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    backend, fallback = Switchboard(ttl=0.1), Switchboard()
    backend.hang()
    fallback.hang()
    started = time.monotonic()

    mode = MaintenanceMode(backend, fallback=fallback)
    await asyncio.wait_for(mode.start(), 20)

    assert time.monotonic() - started < 20
    assert mode.gate.source == "env"
    await mode.stop()
    assert lines(log, logging.WARNING) == ["The fallback Switchboard cannot be asked: timed out"]


async def test_requests_without_snapshot_wait_together_for_ttl() -> None:
    backend = Switchboard(True, ttl=2.0)
    backend.hang()
    mode = MaintenanceMode(backend)
    started = time.monotonic()

    gates = await asyncio.gather(*(mode.refresh() for _ in range(20)))
    assert 1.9 < time.monotonic() - started < 20
    assert backend.reads == 1
    assert all(gate.closure is None for gate in gates)

    with pytest.raises(StopIteration):  # without a wait
        mode.refresh().send(None)
    assert backend.gate is not None
    backend.gate.set()
    await eventually(lambda: mode.gate.closure is not None, within=30)
    await mode.stop()


async def test_snapshot_of_another_thread_is_known_at_once() -> None:
    backend = Switchboard(ttl=30.0)

    async with MaintenanceMode(backend) as mode:
        thread = threading.Thread(target=lambda: asyncio.run(backend.write(ON)))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert mode.gate.closure is not None


async def test_two_modes_on_two_backends_do_not_see_each_other() -> None:
    one, other = Switchboard(ttl=0.1), Switchboard(ttl=0.1)

    async with MaintenanceMode(one) as first, MaintenanceMode(other) as second:
        await one.write(ON)
        await one.acquire(Hold("a", ON), 30)
        await asyncio.sleep(0.15)

        assert first.gate.closure is not None
        assert second.gate.closure is None


async def test_two_modes_on_one_backend_both_see_a_change() -> None:
    backend = Switchboard(ttl=30.0)

    async with MaintenanceMode(backend) as first, MaintenanceMode(backend) as second:
        await backend.write(ON)

        assert first.gate.closure is not None
        assert second.gate.closure is not None


# -- backends that are asked at every request ------------------------------------------------------


async def test_environment_is_read_for_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    mode = MaintenanceMode(EnvVarBackend())

    for value in ("1", "0", "on", "", "1"):
        monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", value)
        assert mode.gate.until < time.monotonic()
        assert await is_closed_now(mode) is (value in ("1", "on"))


async def test_environment_unchanged_is_not_judged_again() -> None:
    mode = MaintenanceMode(EnvVarBackend())

    gate = await mode.refresh()

    assert await mode.refresh() is gate


class Peeking(Switchboard):
    """Can be asked without I/O, and says always the same."""

    reading: Snapshot | None = WILL_OPEN
    trouble: Exception | None = None

    def read_nowait(self) -> Snapshot | None:
        if self.trouble is not None:
            raise self.trouble
        return self.reading


async def test_environment_is_never_stale(clock: Clock) -> None:
    """Also where it says the same for long, and then its window ends."""
    mode = MaintenanceMode(Peeking(ttl=1.0), on_unreachable="closed", stale_after=2.0)

    assert await is_closed_now(mode)
    clock.passed += 9
    assert await is_closed_now(mode)
    clock.passed += 2
    assert not await is_closed_now(mode)


async def test_environment_failing_at_first_is_asked_later(log: pytest.LogCaptureFixture) -> None:
    backend = Peeking(ttl=1.0)
    backend.reading, backend.trouble = Snapshot(ON, now=T0), RuntimeError("no peeking")
    mode = MaintenanceMode(backend)
    assert not await is_closed_now(mode)
    assert "Peeking failed: RuntimeError: no peeking; no state was ever known" in lines(log)[0]

    backend.trouble = None
    assert await is_closed_now(mode)


async def test_environment_failing_later_fails_no_request(
    clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    backend = Peeking(ttl=1.0)
    mode = MaintenanceMode(backend)
    assert await is_closed_now(mode)
    log.clear()

    backend.trouble = RuntimeError("no peeking")
    clock.passed += 2
    assert await is_closed_now(mode)
    clock.passed += 9
    assert not await is_closed_now(mode)
    assert lines(log, logging.WARNING) == [
        (
            "Peeking failed: RuntimeError: no peeking; the last known state stays, "
            "on_unreachable=last-known"
        )
    ]


# -- without a lifespan ----------------------------------------------------------------------------


def app_with(backend: BaseStateBackend, **options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend, **options)

    @app.get("/")
    async def index() -> str:
        return "open"

    return app


def test_mode_without_lifespan_caches_a_read_for_ttl() -> None:
    backend = Switchboard(ttl=30.0)
    client = TestClient(app_with(backend))

    for _ in range(5):
        assert client.get("/").status_code == 200

    assert backend.reads == 1


def test_event_loops_in_turn_each_have_a_watch() -> None:
    backend = Switchboard(ttl=0.1)
    mode = MaintenanceMode(backend)

    async def follow(value: bool) -> None:
        backend.value = value
        async with mode:
            await eventually(lambda: is_closed(mode) is value, within=30)
            backend.value = not value
            await eventually(lambda: is_closed(mode) is not value, within=30)

    asyncio.run(follow(True))
    asyncio.run(follow(False))


def test_event_loops_closed_with_running_tasks_are_forgotten() -> None:
    backend = Switchboard(ttl=0.05)
    mode = MaintenanceMode(backend)

    for value in (True, False, True):
        backend.value = value
        loop = asyncio.new_event_loop()
        time.sleep(2 * backend.ttl)
        gate = loop.run_until_complete(mode.refresh())
        assert (gate.closure is not None) is value
        tasks = asyncio.all_tasks(loop)
        loop.close()
        assert len(mode._watches) == 1
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
    mode.update(Snapshot(OFF, now=time.time()), time.monotonic())
    assert not is_closed(mode)


def test_event_loops_at_once_follow_the_same_backend() -> None:
    backend = Switchboard(ttl=0.1)
    mode = MaintenanceMode(backend)
    flipped = threading.Event()

    async def follow() -> None:
        async with mode:
            await asyncio.to_thread(flipped.wait)
            await eventually(lambda: mode.gate.closure is not None, within=30)

    threads = [threading.Thread(target=asyncio.run, args=(follow(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    eventually_sync(lambda: len(mode._watches) == 2, within=30)
    backend.value = True
    flipped.set()
    for thread in threads:
        thread.join(60)
    assert not mode._watches
    assert mode.gate.closure is not None


# -- on a real Redis -------------------------------------------------------------------------------


def connections(server: RedisServer) -> int:
    """How many there are, other than the one that asks."""
    return sum(
        " cmd=client|list " not in line for line in server.cli("CLIENT", "LIST").splitlines()
    )


async def test_redis_flip_by_hand_is_followed(redis_server: RedisServer) -> None:
    await eventually(lambda: connections(redis_server) == 0, within=30)
    threads, tasks = set(threading.enumerate()), asyncio.all_tasks()

    async with MaintenanceMode(RedisBackend(redis_server.url)) as mode:
        await redis_server.acli("SET", "maintenance", "1")
        await eventually(lambda: mode.gate.closure is not None, within=30)
        assert mode.gate.source == "redis"
        assert connections(redis_server) == 1
        await redis_server.acli("DEL", "maintenance")
        await eventually(lambda: mode.gate.closure is None, within=30)

    assert asyncio.all_tasks() == tasks
    await eventually(lambda: connections(redis_server) == 0, within=30)
    await eventually(
        lambda: {t for t in threading.enumerate() if "AnyIO" not in t.name} <= threads, within=30
    )


async def test_redis_write_of_this_process_is_known_at_once(redis_url: str) -> None:
    backend = RedisBackend(redis_url, ttl=120.0)

    async with MaintenanceMode(backend) as mode:
        await backend.write(ON)
        assert mode.gate.closure is not None
        await backend.write(OFF)
        assert mode.gate.closure is None


async def test_redis_down_during_a_migration_opens_no_worker(
    own_redis_server: RedisServerFactory,
) -> None:
    """Neither the worker that was told to close, nor the one that a block has closed, whose lease
    runs out meanwhile.
    """
    server = own_redis_server()
    backend = RedisBackend(server.url, ttl=0.2)
    await backend.acquire(Hold("migration", ON), 4.0)
    over = time.monotonic() + 4.0

    async with MaintenanceMode(backend) as mode:
        await eventually(lambda: is_closed(mode), within=30)
        server.kill()
        while time.monotonic() < over + 0.5:
            assert is_closed(mode)
            await asyncio.sleep(0.01)
        assert mode.gate.source == "last-known"
        server.start()
        await eventually(lambda: not is_closed(mode), within=30)


async def test_redis_down_at_start_is_connected_later(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server()
    server.stop()
    started = time.monotonic()

    async with MaintenanceMode(RedisBackend(server.url, ttl=0.5)) as mode:
        assert time.monotonic() - started < 25
        assert mode.gate.closure is None
        server.start()
        await server.acli("SET", "maintenance", "1")
        await eventually(lambda: mode.gate.closure is not None, within=30)


async def test_redis_frozen_is_noticed_within_two_ttl(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server()
    await server.acli("SET", "maintenance", "1")

    async with MaintenanceMode(RedisBackend(server.url, ttl=0.5), on_unreachable="open") as mode:
        await eventually(lambda: is_closed(mode), within=30)
        server.pause()
        frozen = time.monotonic()
        await eventually(lambda: not is_closed(mode), within=30)
        assert time.monotonic() - frozen < 2 * 0.5 + 25.0
        server.resume()
        await eventually(lambda: is_closed(mode), within=30)


FORKING: Final = """
import asyncio, os, sys
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance import MaintenanceMode
from tests.support.waiting import eventually

# In the parent, as a server does that preloads the application.
mode = MaintenanceMode(RedisBackend(sys.argv[1]))

async def serve():
    async with mode:
        await eventually(lambda: mode.gate.closure is not None, within=10)
        await eventually(lambda: mode.gate.closure is None, within=10)

children = []
for _ in range(2):
    if (child := os.fork()) == 0:
        asyncio.run(serve())
        os._exit(0)
    children.append(child)
print(*children, flush=True)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


async def test_forked_workers_have_one_link_each(redis_server: RedisServer) -> None:
    await eventually(lambda: connections(redis_server) == 0, within=30)

    with Program("-c", FORKING, redis_server.url) as parent:
        parent.expect(r"\d+ \d+")
        await eventually(lambda: len(reports(redis_server)) == 2, within=30)
        assert connections(redis_server) == 2
        await redis_server.acli("SET", "maintenance", "1")
        await eventually(lambda: str(reports(redis_server)).count('"closed": true') == 2, within=30)
        await redis_server.acli("DEL", "maintenance")
        assert parent.wait(60) == 0


# -- the file that remembers -----------------------------------------------------------------------


async def kept_in(path: Path) -> MaintenanceState:
    switch = (await LocalFileBackend(path).read()).switch
    assert switch is not None
    return switch


async def test_fallback_file_mirrors_every_confirmed_state(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    path, backend = tmp_path / "known.json", RedisBackend(redis_server.url)
    starts_at = datetime.now(UTC) + timedelta(hours=1)
    states = [
        MaintenanceState(enabled=True, message="Soon", reason="OPS-1", mode="read-only"),
        MaintenanceState(enabled=True, starts_at=starts_at, ends_at=starts_at + timedelta(hours=1)),
        ON,
        OFF,
    ]

    async with MaintenanceMode(backend, fallback=f"file:{path}"):
        for state in states:
            await backend.write(state)
            await eventually(lambda state=state: mirrors(path, state), within=30)  # type: ignore[misc]

        hold = await backend.acquire(
            Hold("a", MaintenanceState(enabled=True, reason="a block", retry_after=9)), 30
        )
        await eventually(lambda: mirrors(path, hold.state), within=30)
        await backend.release(hold)
        await eventually(lambda: mirrors(path, OFF), within=30)


async def mirrors(path: Path, state: MaintenanceState) -> bool:
    return path.exists() and await kept_in(path) == state


async def test_fallback_file_mirrors_a_time_to_live_as_an_end(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    path = tmp_path / "known.json"

    async with MaintenanceMode(
        RedisBackend(redis_server.url, ttl=0.2), fallback=f"file:{path}"
    ) as mode:
        await redis_server.acli("SET", "maintenance", "1", "EX", 600)
        await eventually(
            lambda: (
                mode.gate.closure is not None and path.exists() and b"ends_at" in path.read_bytes()
            ),
            within=30,
        )
        ends_at = (await kept_in(path)).ends_at
        assert ends_at is not None
        assert abs((ends_at - datetime.now(UTC)).total_seconds() - 600) < 5
        written = path.stat().st_mtime_ns
        await asyncio.sleep(0.6)  # several syncs, each measuring it anew
        assert path.stat().st_mtime_ns == written

        await redis_server.acli("SET", "maintenance", "1", "PX", 100)
        await eventually(lambda: mirrors(path, OFF), within=30)


async def test_fallback_file_mirrors_an_upcoming_window(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    path, backend = tmp_path / "known.json", RedisBackend(redis_server.url)
    starts_at = datetime.now(UTC) + timedelta(hours=1)

    async with MaintenanceMode(backend, fallback=f"file:{path}"):
        await backend.write(MaintenanceState(enabled=True, starts_at=starts_at), expires_in=7200)
        await eventually(lambda: path.exists() and b"starts_at" in path.read_bytes(), within=30)

    state = await kept_in(path)
    assert state.enabled
    assert state.starts_at == starts_at
    assert state.ends_at is not None
    assert abs((state.ends_at - starts_at).total_seconds() - 3600) < 5


async def test_worker_restarted_in_an_outage_still_knows(
    own_redis_server: RedisServerFactory, tmp_path: Path
) -> None:
    server, path = own_redis_server(), tmp_path / "known.json"
    state = MaintenanceState(enabled=True, message="Back at four")
    async with MaintenanceMode(RedisBackend(server.url), fallback=f"file:{path}"):
        await server.acli("SET", "maintenance", state.dump())
        await eventually(lambda: mirrors(path, state), within=30)
    server.kill()

    async with MaintenanceMode(RedisBackend(server.url), fallback=f"file:{path}") as restarted:
        assert restarted.gate.state == state
        assert restarted.gate.source == "file"
        server.start()
        # It came back without data, and knows of no other.
        await eventually(lambda: not is_closed(restarted), within=30)
        await eventually(lambda: mirrors(path, OFF), within=30)


async def test_request_after_a_standstill_waits_for_a_read() -> None:
    """It is answered before, and holds the loop until the worker has read its backend."""
    board, sent = StateBoard(OFF), list[Message]()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def take(message: Message) -> None:
        sent.append(message)

    middleware = MaintenanceModeMiddleware(answer, backend=board)
    async with middleware.mode as mode:
        (watch,) = mode._watches.values()
        watch.alive_at = -math.inf
        mode.gate = replace(mode.gate, until=-math.inf)
        asked = asyncio.create_task(middleware(http_scope(), UNUSED, take))
        await eventually(lambda: sent, within=20)
        assert not asked.done()
        assert not mode.requests
        await board.flip(OFF)
        await asyncio.wait_for(asked, 20)
