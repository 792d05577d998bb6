"""The switch in an environment variable."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import timeit
from datetime import UTC, datetime, timedelta

import pytest

from fastapi_maintenance.backends import EnvVarBackend
from fastapi_maintenance.exceptions import ConfigurationError, ReadOnlyBackendError
from fastapi_maintenance.model.evaluate import evaluate
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState

from .recording import RecordingFeed

NAME = "FASTAPI_MAINTENANCE_MODE"


@pytest.fixture
def backend() -> EnvVarBackend:
    return EnvVarBackend()


@pytest.fixture
def feed(backend: EnvVarBackend) -> RecordingFeed:
    feed = RecordingFeed()
    backend.subscribe(feed)
    return feed


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "state"),
    [(None, OFF), ("", OFF), ("  ", OFF), ("0", OFF), ("No", OFF), ("1", ON), ("TRUE", ON)],
)
async def test_the_variable_is_the_switch(
    backend: EnvVarBackend,
    monkeypatch: pytest.MonkeyPatch,
    raw: str | None,
    state: MaintenanceState,
) -> None:
    if raw is not None:
        monkeypatch.setenv(NAME, raw)
    assert backend.read_nowait().switch == state
    assert (await backend.read()).switch == state
    assert await backend.get_value() is state.enabled


async def test_a_change_is_seen_at_once(
    backend: EnvVarBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for raw, value in (("1", True), ("0", False), ("on", True)):
        monkeypatch.setenv(NAME, raw)
        assert await backend.get_value() is value
    monkeypatch.delenv(NAME)
    assert await backend.get_value() is False


def test_json_is_read_with_its_details(
    backend: EnvVarBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAME, '{"enabled": true, "message": "soon"}')
    assert backend.read_nowait().switch == MaintenanceState(enabled=True, message="soon")


async def test_a_window_opens_by_itself(
    backend: EnvVarBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = MaintenanceState(enabled=True, starts_at=datetime.now(UTC) + timedelta(seconds=0.2))
    monkeypatch.setenv(NAME, state.dump())
    first = backend.read_nowait()
    assert not evaluate(first, first.now).state.enabled
    assert await backend.get_value() is False
    time.sleep(0.25)
    second = backend.read_nowait()
    assert evaluate(second, second.now).state.enabled
    assert await backend.get_value() is True


@pytest.mark.parametrize("raw", ["maybe", '{"enabled": "red"}', "\udcff"])
def test_a_value_that_cannot_be_read_is_off_and_logged_once(
    backend: EnvVarBackend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    raw: str,
) -> None:
    monkeypatch.setenv(NAME, raw)
    with caplog.at_level(logging.INFO, "fastapi_maintenance"):
        assert [backend.read_nowait().switch for _ in range(3)] == [OFF] * 3
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"The environment variable {NAME} counts as off. ")


async def test_invalid_value_is_logged_once_while_holds_change(
    backend: EnvVarBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(NAME, "maybe")
    for _ in range(3):
        await backend.release(await backend.acquire(Hold("a", ON), 30.0))
    assert len(caplog.records) == 1


def test_each_new_bad_value_is_logged(
    backend: EnvVarBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for raw in ("maybe", "perhaps"):
        monkeypatch.setenv(NAME, raw)
        backend.read_nowait()
    assert ["maybe" in caplog.messages[0], "perhaps" in caplog.messages[1]] == [True, True]


def test_unchanged_variable_gives_the_same_snapshot(
    backend: EnvVarBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAME, "1")
    assert backend.read_nowait() is backend.read_nowait()


@pytest.mark.parametrize("raw", [None, "1"])
def test_peeking_costs_next_to_nothing(
    backend: EnvVarBackend, monkeypatch: pytest.MonkeyPatch, raw: str | None
) -> None:
    if raw is not None:
        monkeypatch.setenv(NAME, raw)
    # About 1 µs; the bound leaves room for a busy machine and for coverage, and none for parsing or
    # a system call.
    assert min(timeit.repeat(backend.read_nowait, number=1000, repeat=20)) / 1000 < 20e-6


# -- as a fallback ---------------------------------------------------------------------------------


async def test_as_a_fallback_an_unset_variable_knows_nothing(backend: EnvVarBackend) -> None:
    assert await backend.last_known() is None


@pytest.mark.parametrize(("raw", "state"), [("1", ON), ("0", OFF), ("", OFF), ("maybe", OFF)])
async def test_as_a_fallback_a_set_variable_knows(
    backend: EnvVarBackend, monkeypatch: pytest.MonkeyPatch, raw: str, state: MaintenanceState
) -> None:
    monkeypatch.setenv(NAME, raw)
    reading = await backend.last_known()
    assert reading is not None
    assert reading.switch == state


# -- writing ---------------------------------------------------------------------------------------


async def test_writing_is_refused_and_says_what_to_do_instead(backend: EnvVarBackend) -> None:
    advice = (
        rf"^The environment variable {NAME} cannot be changed from within: set it where the "
        r"process is started, or keep the switch in Redis"
    )
    with pytest.raises(ReadOnlyBackendError, match=advice):
        await backend.set_value(True)
    with pytest.raises(ReadOnlyBackendError, match=advice):
        await backend.write(ON)
    with pytest.raises(ReadOnlyBackendError, match=advice):
        await backend.write(MaintenanceState(enabled=True, message="soon"), expires_in=60.0)


# -- holds -----------------------------------------------------------------------------------------


async def test_a_hold_closes_this_process_and_is_told_at_once(
    backend: EnvVarBackend, feed: RecordingFeed
) -> None:
    backend.read_nowait()
    hold = await backend.acquire(Hold("a", ON), 30.0)
    assert [backend.read_nowait().holds, feed.last.holds] == [(hold,), (hold,)]
    assert backend.read_nowait() is backend.read_nowait()
    await backend.release(hold)
    assert [backend.read_nowait().holds, feed.last.holds] == [(), ()]


async def test_holds_are_known_to_this_process_only(backend: EnvVarBackend) -> None:
    await backend.acquire(Hold("a", ON), 30.0)
    assert EnvVarBackend().read_nowait().holds == ()


async def test_an_off_hold_opens_a_variable_that_says_on(
    backend: EnvVarBackend, feed: RecordingFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAME, "1")
    hold = await backend.acquire(Hold("a", OFF), 30.0)
    assert feed.is_off()
    await backend.release(hold)
    assert feed.is_on()


async def test_failed_block_that_cannot_keep_releases_its_hold(
    backend: EnvVarBackend, feed: RecordingFeed
) -> None:
    hold = await backend.acquire(Hold("a", ON), 30.0)
    with pytest.raises(ReadOnlyBackendError):
        await backend.release(hold, keep=MaintenanceState(enabled=True, reason="failed"))
    assert not feed.is_on(), "it has no lease to run out, so it would stand for ever"
    assert not evaluate(backend.read_nowait(), time.time()).state.enabled


async def test_clear_ends_holds(backend: EnvVarBackend, feed: RecordingFeed) -> None:
    hold = await backend.acquire(Hold("a", ON), 30.0)
    await backend.clear()
    assert feed.is_off()
    assert backend.read_nowait().holds == ()
    assert not await backend.renew(hold, 30.0)


async def test_clear_ends_holds_and_names_the_variable_still_on(
    backend: EnvVarBackend, feed: RecordingFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAME, "1")
    await backend.acquire(Hold("a", ON), 30.0)
    with pytest.raises(ReadOnlyBackendError):
        await backend.clear()
    assert feed.last.holds == ()
    assert feed.is_on()


def test_hold_taken_during_a_look_is_seen_by_the_next(
    backend: EnvVarBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at_holds = backend._local_reading
    threads = [threading.Thread(target=lambda: asyncio.run(backend.acquire(Hold("a", ON), 30.0)))]

    def look_and_be_interrupted(
        state: MaintenanceState | None, error: str | None = None
    ) -> Snapshot:
        reading = look_at_holds(state, error)
        if threads:
            thread = threads.pop()
            thread.start()
            thread.join()
        return reading

    monkeypatch.setattr(backend, "_local_reading", look_and_be_interrupted)
    assert backend.read_nowait().holds == ()
    assert [hold.id for hold in backend.read_nowait().holds or ()] == ["a"]


# -- construction ----------------------------------------------------------------------------------


async def test_the_variable_can_have_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = EnvVarBackend(var_name="SHOP_CLOSED")
    assert backend.describe() == "env:SHOP_CLOSED"
    assert backend.kind == "env"
    monkeypatch.setenv(NAME, "1")
    assert await backend.get_value() is False
    monkeypatch.setenv("SHOP_CLOSED", "1")
    assert await backend.get_value() is True


def test_the_default_name(backend: EnvVarBackend) -> None:
    assert backend.describe() == f"env:{NAME}"


@pytest.mark.parametrize("name", ["", "A=B", "A\0B"])
def test_a_name_that_no_variable_can_have_is_refused(name: str) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"var_name must be the name of a variable like FASTAPI_MAINTENANCE_MODE, got",
    ):
        EnvVarBackend(name)
