"""What a backend of a user's own gets for its two methods."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from fastapi_maintenance.backends import BaseStateBackend
from fastapi_maintenance.backends.base import SupportsHistory, SupportsLeases, as_backend_error
from fastapi_maintenance.exceptions import BackendError, InvalidStateError, UnsupportedError
from fastapi_maintenance.model.evaluate import evaluate
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from tests.support.doubles import Switchboard
from tests.support.waiting import eventually

from .recording import RecordingFeed, watched


class DictBackend(BaseStateBackend):
    """Written for another package: two methods, and an __init__ that calls nobody."""

    ttl = 0.04

    def __init__(self) -> None:
        self.values: dict[str, object] = {"on": False}

    async def get_value(self) -> bool:
        value = self.values["on"]
        if isinstance(value, Exception):
            raise value
        return bool(value)

    async def set_value(self, value: bool) -> None:
        self.values["on"] = value


@pytest.fixture
def backend() -> DictBackend:
    return DictBackend()


@pytest.fixture
def feed(backend: DictBackend) -> RecordingFeed:
    feed = RecordingFeed()
    backend.subscribe(feed)
    return feed


# -- the switch ------------------------------------------------------------------------------------


async def test_a_reading_says_what_get_value_says(backend: DictBackend) -> None:
    assert (await backend.read()).switch == OFF
    backend.values["on"] = True
    reading = await backend.read()
    assert (reading.switch, reading.holds, reading.error) == (ON, (), None)
    assert abs(reading.now - time.time()) < 5


async def test_what_it_reads_it_also_recalls_as_a_fallback(backend: DictBackend) -> None:
    backend.values["on"] = True
    reading = await backend.last_known()
    assert reading is not None
    assert reading.switch == ON


async def test_write_sets_the_value_and_informs_this_process(
    backend: DictBackend, feed: RecordingFeed
) -> None:
    await backend.write(ON)
    assert backend.values["on"] is True
    assert feed.last.switch == ON


@pytest.mark.parametrize(
    ("state", "expires_in"), [(MaintenanceState(enabled=True, message="soon"), None), (ON, 60.0)]
)
async def test_details_are_refused_and_nothing_is_written(
    backend: DictBackend, state: MaintenanceState, expires_in: float | None
) -> None:
    with pytest.raises(UnsupportedError, match=r"^DictBackend keeps only on or off"):
        await backend.write(state, expires_in=expires_in)
    assert backend.values["on"] is False


def test_custom_backend_cannot_peek_and_has_no_leases(backend: DictBackend) -> None:
    assert backend.read_nowait() is None
    assert (backend.kind, isinstance(backend, SupportsLeases)) == ("custom", False)
    backend.request_sync()


# -- holds -----------------------------------------------------------------------------------------


async def test_a_hold_stands_until_it_is_released_and_is_told_at_once(
    backend: DictBackend, feed: RecordingFeed
) -> None:
    before = time.time()
    standing = await backend.acquire(Hold("a", ON), 30.0)
    assert before <= standing.since <= time.time()
    assert feed.last.holds
    assert feed.last.holds[0] is standing
    assert feed.is_on()
    assert await backend.renew(standing, 30.0)
    await backend.release(standing)
    assert not feed.last.holds
    assert not await backend.renew(standing, 30.0)


async def test_ending_a_hold_twice_does_nothing(backend: DictBackend) -> None:
    hold = await backend.acquire(Hold("a", ON), 30.0)
    await backend.release(hold)
    await backend.release(hold)
    assert (await backend.read()).holds == ()


@pytest.mark.parametrize("first", ["a", "b"])
async def test_overlapping_holds_compose_in_either_order_of_release(
    backend: DictBackend, feed: RecordingFeed, first: str
) -> None:
    holds = {id: await backend.acquire(Hold(id, ON), 30.0) for id in "ab"}
    await backend.release(holds.pop(first))
    assert feed.is_on()
    await backend.release(holds.popitem()[1])
    assert feed.is_off()


async def test_a_hold_can_end_in_a_switch_that_stays_on(
    backend: DictBackend, feed: RecordingFeed
) -> None:
    hold = await backend.acquire(Hold("a", ON), 30.0)
    await backend.release(hold, keep=MaintenanceState(enabled=True, reason="the migration failed"))
    assert backend.values["on"] is True
    assert feed.last.holds == ()
    assert all(evaluate(reading, reading.now).state.enabled for reading in feed.readings)


async def test_hold_whose_state_cannot_be_kept_ends(
    feed: RecordingFeed,
) -> None:
    """It has no lease to run out: it would keep the service closed until the process ends."""
    backend = Switchboard()
    backend.subscribe(feed)
    hold = await backend.acquire(Hold("a", ON), 30.0)
    backend.error = RuntimeError("down")
    with pytest.raises(RuntimeError, match="down"):
        await backend.release(hold, keep=ON)
    assert feed.last.holds == ()
    assert not await backend.renew(hold, 30.0)


async def test_clear_ends_every_hold_and_turns_the_switch_off(
    backend: DictBackend, feed: RecordingFeed
) -> None:
    backend.values["on"] = True
    hold = await backend.acquire(Hold("a", ON), 30.0)
    await backend.clear()
    assert feed.is_off()
    assert not await backend.renew(hold, 30.0)


async def test_hold_change_with_unreadable_switch_is_reported(
    backend: DictBackend, feed: RecordingFeed
) -> None:
    backend.values["on"] = RuntimeError("down")
    hold = await backend.acquire(Hold("a", ON), 30.0)
    assert (feed.last.switch, feed.last.holds) == (None, (hold,))
    assert feed.last.error == "DictBackend failed: RuntimeError: down"


async def test_two_backends_do_not_know_each_others_holds(backend: DictBackend) -> None:
    await backend.acquire(Hold("a", ON), 30.0)
    assert (await DictBackend().read()).holds == ()


async def test_holds_are_safe_to_take_from_many_threads(backend: DictBackend) -> None:
    def take(name: str) -> None:
        for number in range(50):
            asyncio.run(backend.acquire(Hold(f"{name}{number}", ON), 30.0))

    threads = [threading.Thread(target=take, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len((await backend.read()).holds or ()) == 150


# -- watching --------------------------------------------------------------------------------------


async def test_a_watch_delivers_changes_within_ttl(backend: DictBackend) -> None:
    async with watched(backend, attach=False) as feed:
        assert feed.is_off()
        backend.values["on"] = True
        await eventually(feed.is_on, within=30)
        assert feed.asked_at == sorted(feed.asked_at)


async def test_a_watch_delivers_errors_once_a_look_and_goes_on(backend: DictBackend) -> None:
    backend.values["on"] = ValueError("down")
    async with watched(backend, attach=False) as feed:
        await eventually(lambda: len(feed.errors) >= 2, within=30)
        assert str(feed.errors[0]) == "DictBackend failed: ValueError: down"
        assert isinstance(feed.errors[0].__cause__, ValueError)
        backend.values["on"] = True
        await eventually(feed.is_on, within=30)


async def test_a_feed_that_is_gone_is_told_nothing_more(backend: DictBackend) -> None:
    feed = RecordingFeed()
    backend.subscribe(feed)
    readings = feed.readings
    del feed
    gc.collect()
    await backend.write(ON)
    assert readings == []


# -- for subclasses --------------------------------------------------------------------------------


async def test_history_is_refused_and_as_operator_changes_nothing(
    backend: DictBackend,
) -> None:
    assert not isinstance(backend, SupportsHistory)
    assert backend.as_operator("ana") is backend
    with pytest.raises(UnsupportedError, match="DictBackend keeps no history; only Redis does"):
        await backend.history()
    with pytest.raises(UnsupportedError, match="DictBackend keeps no history"):
        backend.follow_history()


def test_the_helpers_of_the_modelled_package_are_there() -> None:
    assert [BaseStateBackend._bool_to_str(value) for value in (True, False)] == ["1", "0"]
    assert [BaseStateBackend._str_to_bool(text) for text in ("yes", "off", "", "  ")] == [
        True,
        False,
        False,
        False,
    ]
    with pytest.raises(InvalidStateError):
        BaseStateBackend._str_to_bool("maybe")


def test_an_error_of_ours_is_not_wrapped_again(backend: DictBackend) -> None:
    error = UnsupportedError("no")
    assert as_backend_error(error, backend) is error
    assert type(as_backend_error(ValueError("x"), backend)) is BackendError


async def test_release_that_keeps_a_component_says_it_cannot(backend: DictBackend) -> None:
    hold = await backend.acquire(Hold("a", ON, component="shop"), 30.0)

    with pytest.raises(UnsupportedError, match="keeps no switches of components"):
        await backend.release(hold, keep=ON)
    assert (await backend.read()).holds == ()
