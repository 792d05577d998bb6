"""Holds in the file beside the switch."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import json
import os
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio import to_thread
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance.backends import LocalFileBackend
from fastapi_maintenance.backends.file import atomic as disk
from fastapi_maintenance.backends.file import store as files
from fastapi_maintenance.backends.file.store import StoredHolds
from fastapi_maintenance.exceptions import (
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    InvalidStateError,
    ReadOnlyBackendError,
    UnsupportedError,
)
from fastapi_maintenance.model.evaluate import evaluate
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from tests.model.test_state import states
from tests.support.waiting import eventually

from .recording import RecordingFeed, watched
from .test_file import SLACK, names, refuse_to_open

LEASE = 30.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "maintenance"


@pytest.fixture
def holds_path(path: Path) -> Path:
    return path.with_name("maintenance.holds")


@pytest.fixture
def backend(path: Path) -> LocalFileBackend:
    return LocalFileBackend(path, ttl=0.1)


@pytest.fixture
def other(path: Path) -> LocalFileBackend:
    """Another backend on the same files, as another process has."""
    return LocalFileBackend(path, ttl=0.1)


async def is_on(backend: LocalFileBackend) -> bool:
    reading = await backend.read()
    return evaluate(reading, reading.now).state.enabled


async def held(backend: LocalFileBackend) -> list[str] | None:
    holds = (await backend.read()).holds
    return None if holds is None else [hold.id for hold in holds]


# -- taking and ending -----------------------------------------------------------------------------


async def test_a_hold_stands_where_others_see_it_until_it_is_released(
    backend: LocalFileBackend, other: LocalFileBackend
) -> None:
    before = time.time()
    hold = await backend.acquire(
        Hold("a", MaintenanceState(enabled=True, message="migrating"), lifts=("b",)), LEASE
    )
    assert before <= hold.since <= time.time()
    assert before + LEASE <= hold.deadline <= time.time() + LEASE
    assert (await other.read()).holds == (hold,)
    assert await is_on(other)
    await backend.release(hold)
    assert not await is_on(other)


async def test_the_file_of_holds_is_gone_when_the_last_one_is(
    backend: LocalFileBackend, path: Path
) -> None:
    holds = [await backend.acquire(Hold(id, ON), LEASE) for id in "ab"]
    assert names(path.parent) == ["maintenance.holds"]
    for hold in holds:
        await backend.release(hold)
    assert names(path.parent) == []


async def test_ending_a_hold_twice_does_nothing(
    backend: LocalFileBackend, other: LocalFileBackend, holds_path: Path
) -> None:
    hold = await backend.acquire(Hold("a", ON), LEASE)
    await backend.release(hold)
    await backend.release(hold)
    assert not holds_path.exists()
    theirs = await other.acquire(Hold("b", ON), LEASE)
    await backend.release(hold)
    assert (await backend.read()).holds == (theirs,)


@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
async def test_overlapping_holds_compose_in_every_order_of_release(
    backend: LocalFileBackend, other: LocalFileBackend, order: tuple[str, ...]
) -> None:
    owners = {"a": backend, "b": other, "c": backend}
    holds = {id: await owners[id].acquire(Hold(id, ON), LEASE) for id in "abc"}
    for id in order:
        assert await is_on(backend)
        await owners[id].release(holds[id])
    assert not await is_on(backend)


async def test_a_hand_edit_of_the_switch_leaves_the_holds_alone(
    backend: LocalFileBackend, path: Path
) -> None:
    hold = await backend.acquire(Hold("a", OFF), LEASE)
    subprocess.run(["sh", "-c", "echo 1 > maintenance"], cwd=path.parent, check=True)
    reading = await backend.read()
    assert (reading.switch, reading.holds) == (ON, (hold,))


async def test_changes_of_holds_are_told_to_this_process_at_once(backend: LocalFileBackend) -> None:
    feed = RecordingFeed()
    backend.subscribe(feed)
    hold = await backend.acquire(Hold("a", ON), LEASE)
    await backend.renew(hold, 2 * LEASE)
    await backend.release(hold)
    (taken,), (renewed,), released = (reading.holds or () for reading in feed.readings)
    assert taken == hold
    assert renewed.deadline > hold.deadline
    assert released == ()


@pytest.mark.parametrize("lease", [0.0, -1.0, float("inf")])
async def test_a_lease_must_be_positive(backend: LocalFileBackend, lease: float) -> None:
    with pytest.raises(ConfigurationError, match=r"lease must be a positive number of seconds"):
        await backend.acquire(Hold("a", ON), lease)
    with pytest.raises(ConfigurationError, match=r"lease must be a positive number of seconds"):
        await backend.renew(Hold("a", ON), lease)


# -- keeping the switch on -------------------------------------------------------------------------


async def test_a_hold_can_end_in_a_switch_that_stays_on(
    backend: LocalFileBackend, other: LocalFileBackend
) -> None:
    hold = await backend.acquire(Hold("a", ON), LEASE)
    kept = MaintenanceState(enabled=True, reason="the migration failed")
    await backend.release(hold, keep=kept)
    reading = await other.read()
    assert (reading.switch, reading.holds) == (kept, ())


async def test_read_while_a_hold_becomes_a_switch_is_on(
    backend: LocalFileBackend, path: Path, holds_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer writes the switch first, the reader reads the holds first."""
    hold = await backend.acquire(Hold("a", ON), LEASE)
    steps = list[tuple[str, str]]()
    for name in ("replace_file", "remove_file", "read_file"):
        really = getattr(files, name)

        def step(target: str, *arguments: Any, name: str = name, really: Any = really) -> Any:
            steps.append((name, target))
            return really(target, *arguments)

        monkeypatch.setattr(files, name, step)
    await backend.release(hold, keep=ON)
    changes = [(name, target) for name, target in steps if name != "read_file"]
    assert changes == [("replace_file", str(path)), ("remove_file", str(holds_path))]
    steps.clear()
    await backend.read()
    assert steps == [("read_file", str(holds_path)), ("read_file", str(path))]


# -- leases ----------------------------------------------------------------------------------------


async def test_hold_without_renewal_ends_at_its_deadline(
    path: Path, other: LocalFileBackend
) -> None:
    backend = LocalFileBackend(path, ttl=120.0)
    hold = await other.acquire(Hold("a", ON), 4.0)
    async with watched(backend) as feed:
        assert feed.is_on()
        await eventually(lambda: feed.last.holds == (), within=4 + SLACK)
        assert feed.last.now >= hold.deadline
    assert not await is_on(other)


async def test_renewed_hold_outlives_its_old_deadline_in_a_watch(
    path: Path, other: LocalFileBackend
) -> None:
    backend = LocalFileBackend(path, ttl=120.0)
    hold = await other.acquire(Hold("a", ON), 4.0)
    async with watched(backend) as feed:
        await other.renew(hold, LEASE)
        await eventually(
            lambda: feed.last.holds and feed.last.holds[0].deadline > hold.deadline,
            within=4 + SLACK,
        )
        assert feed.last.now < hold.deadline


async def test_release_keeps_no_switch_of_a_component(backend: LocalFileBackend) -> None:
    hold = await backend.acquire(Hold("a", ON, component="billing"), LEASE)
    with pytest.raises(UnsupportedError, match="no switches of components"):
        await backend.release(hold, keep=ON)
    snapshot = await backend.read()
    assert (snapshot.switch, snapshot.holds) == (OFF, ())


async def test_ended_hold_is_dropped_by_the_next_change(
    backend: LocalFileBackend, holds_path: Path
) -> None:
    await backend.acquire(Hold("short", ON), 0.001)
    await backend.acquire(Hold("long", ON), LEASE)
    assert list(StoredHolds.parse(holds_path.read_bytes()).by_id) == ["long"]


async def test_renewing_moves_the_deadline_and_keeps_the_rest(
    backend: LocalFileBackend, other: LocalFileBackend
) -> None:
    hold = await backend.acquire(
        Hold("a", MaintenanceState(enabled=True, message="x"), lifts=("b",)), 1.0
    )
    assert await backend.renew(hold, LEASE)
    (renewed,) = (await other.read()).holds or ()
    assert replace(renewed, deadline=hold.deadline) == hold
    assert abs(renewed.deadline - time.time() - LEASE) < SLACK


async def test_renewing_puts_a_hold_back_that_vanished(
    backend: LocalFileBackend, other: LocalFileBackend, holds_path: Path
) -> None:
    hold = await backend.acquire(Hold("a", ON), LEASE)
    holds_path.unlink()
    assert not await is_on(other)
    assert await backend.renew(hold, LEASE)
    assert await is_on(other)


# -- clear -----------------------------------------------------------------------------------------


async def test_clear_ends_every_hold_and_turns_the_switch_off(
    backend: LocalFileBackend, other: LocalFileBackend, path: Path, holds_path: Path
) -> None:
    await backend.write(ON)
    hold = await backend.acquire(Hold("a", ON), LEASE)
    await other.clear()
    assert path.read_text() == "0"
    assert not await is_on(backend)
    assert await backend.renew(hold, LEASE) is False
    assert not await is_on(backend)


async def test_a_revoked_hold_stays_revoked_after_others_came_and_went(
    backend: LocalFileBackend, other: LocalFileBackend
) -> None:
    hold = await backend.acquire(Hold("a", ON), LEASE)
    await other.clear()
    await other.release(await other.acquire(Hold("b", ON), LEASE))
    assert await backend.renew(hold, LEASE) is False
    assert await held(backend) == []


async def test_a_hold_taken_after_a_clear_is_not_revoked(backend: LocalFileBackend) -> None:
    await backend.clear()
    hold = await backend.acquire(Hold("a", ON), LEASE)
    assert await backend.renew(hold, LEASE)


async def test_clear_revokes_also_when_the_clock_was_set_back(
    backend: LocalFileBackend, other: LocalFileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = await backend.acquire(Hold("a", ON), LEASE)
    set_clock_back(monkeypatch)
    await other.clear()
    assert await backend.renew(hold, LEASE) is False


async def test_hold_after_a_clear_counts_with_the_clock_set_back(
    backend: LocalFileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await backend.clear()
    set_clock_back(monkeypatch)
    hold = await backend.acquire(Hold("a", ON), LEASE)
    assert await backend.renew(hold, LEASE)


async def test_clear_revokes_also_what_can_no_longer_be_read(
    backend: LocalFileBackend, holds_path: Path
) -> None:
    hold = await backend.acquire(Hold("a", ON), LEASE)
    holds_path.write_text("garbage")
    await backend.clear()
    assert await backend.renew(hold, LEASE) is False


def set_clock_back(monkeypatch: pytest.MonkeyPatch) -> None:
    really = time.time
    monkeypatch.setattr(time, "time", lambda: really() - 10.0)


# -- a file of holds that cannot be read -----------------------------------------------------------

GARBAGE: Final = [
    "",
    "garbage",
    "[]",
    '{"holds": []}',
    '{"holds": {"a": {}}}',
    '{"holds": {"a": 1}}',
    "{}",
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_holds_that_cannot_be_read_stay_as_they_were_known(
    backend: LocalFileBackend, path: Path, holds_path: Path, garbage: str
) -> None:
    path.write_text("1")
    holds_path.write_text(garbage)
    reading = await backend.read()
    assert (reading.switch, reading.holds) == (ON, None)
    assert (
        reading.error == f"{holds_path} cannot be read: It is not JSON as this package writes it."
    )


async def test_both_problems_are_told(
    backend: LocalFileBackend, path: Path, holds_path: Path
) -> None:
    path.write_text("maybe")
    holds_path.write_text("garbage")
    reading = await backend.read()
    assert reading.error is not None
    assert [
        reading.error.count(f"{name} cannot be read: ") for name in ("The file", holds_path)
    ] == [1, 1]


async def test_garbage_is_replaced_by_the_next_acquire(
    backend: LocalFileBackend, holds_path: Path
) -> None:
    await backend.acquire(Hold("known", ON), LEASE)
    holds_path.write_text("garbage")
    await backend.acquire(Hold("new", ON), LEASE)
    assert await held(backend) == ["known", "new"]


async def test_garbage_stops_neither_renewing_nor_releasing(
    backend: LocalFileBackend, holds_path: Path
) -> None:
    hold = await backend.acquire(Hold("a", ON), LEASE)
    holds_path.write_text("garbage")
    assert await backend.renew(hold, LEASE)
    assert await held(backend) == ["a"]
    holds_path.write_text("garbage")
    await backend.release(hold)
    assert await held(backend) == []


async def test_holds_that_may_not_be_read_are_not_replaced(
    backend: LocalFileBackend, holds_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await backend.acquire(Hold("theirs", ON), LEASE)
    before = holds_path.read_bytes()
    refuse_to_open(monkeypatch, str(holds_path), errno.EACCES)
    assert await held(backend) is None
    with pytest.raises(
        ReadOnlyBackendError, match=r"maintenance\.holds cannot be written \(Permission denied\)"
    ):
        await backend.acquire(Hold("mine", ON), LEASE)
    monkeypatch.undo()
    assert holds_path.read_bytes() == before


async def test_holds_are_read_and_written_within_bounds(
    backend: LocalFileBackend, holds_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MAX_HOLDS_BYTES", 1000)
    hold = await backend.acquire(Hold("a", ON), LEASE)
    with pytest.raises(
        BackendError, match=r"would be over 1000 bytes long: shorten the texts of the holds"
    ):
        await backend.acquire(Hold("b", MaintenanceState(enabled=True, message="x" * 1000)), LEASE)
    assert (await backend.read()).holds == (hold,)
    holds_path.write_bytes(holds_path.read_bytes() + b" " * 1000)
    reading = await backend.read()
    assert (reading.holds, reading.error) == (
        None,
        f"{holds_path} cannot be read: It is over 1000 bytes long.",
    )


@given(st.binary() | st.text().map(str.encode))
def test_garbage_raises_nothing_but_an_invalid_state_error(garbage: bytes) -> None:
    with pytest.raises(InvalidStateError):
        StoredHolds.parse(garbage)


ENTRY: Final[dict[str, Any]] = {"state": {"enabled": True}, "since": 1.0, "deadline": 2.0}


@pytest.mark.parametrize(
    "spoiled",
    [
        {"deadline": float("nan")},
        {"deadline": 10**400},
        {"state": None},
        {"since": "soon"},
    ],
    ids=repr,
)
def test_an_entry_that_cannot_be_meant_is_garbage(spoiled: dict[str, Any]) -> None:
    StoredHolds.parse(json.dumps({"holds": {"a": ENTRY}}).encode())
    with pytest.raises(InvalidStateError):
        StoredHolds.parse(json.dumps({"holds": {"a": ENTRY | spoiled}}).encode())


@pytest.mark.parametrize("time", ["soon", float("nan"), float("inf"), None])
def test_a_time_of_the_last_clear_that_is_none_is_garbage(time: object) -> None:
    with pytest.raises(InvalidStateError):
        StoredHolds.parse(json.dumps({"holds": {}, "cleared_at": time}).encode())


holds = st.builds(
    Hold,
    st.just(""),
    states(),
    st.floats(0, 1e11),
    st.floats(0, 1e11),
    st.lists(st.text(), max_size=2).map(tuple),
)


@given(st.dictionaries(st.text(), holds, max_size=3), st.floats(0, 1e11))
def test_holds_are_read_as_they_were_written(written: dict[str, Hold], cleared_at: float) -> None:
    stored = StoredHolds({id: replace(hold, id=id) for id, hold in written.items()}, cleared_at)
    assert StoredHolds.parse(stored.dump()) == stored


# -- the lock --------------------------------------------------------------------------------------


@pytest.fixture
def lock_path(path: Path) -> Path:
    return path.with_name("maintenance.lock")


@contextmanager
def locked(lock_path: Path) -> Iterator[int]:
    """Hold the lock as another process would."""
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


async def test_lock_held_elsewhere_is_waited_for_until_its_timeout(
    backend: LocalFileBackend, lock_path: Path
) -> None:
    backend._files.lock_timeout = 0.1
    with locked(lock_path):
        started = time.monotonic()
        with pytest.raises(
            BackendUnavailableError,
            match=r"maintenance\.lock has been locked for over 0\.1 s by another process",
        ):
            await backend.acquire(Hold("a", ON), LEASE)
        assert 0.1 <= time.monotonic() - started < 0.1 + SLACK
    await backend.acquire(Hold("a", ON), LEASE)


async def test_a_lock_that_becomes_free_in_time_is_taken(
    backend: LocalFileBackend, lock_path: Path
) -> None:
    with locked(lock_path) as descriptor:
        timer = threading.Timer(0.1, fcntl.flock, (descriptor, fcntl.LOCK_UN))
        timer.start()
        hold = await backend.acquire(Hold("a", ON), LEASE)
        timer.join()
    assert (await backend.read()).holds == (hold,)


async def test_a_lock_held_elsewhere_stops_no_reading(
    backend: LocalFileBackend, lock_path: Path
) -> None:
    await backend.write(ON)
    with locked(lock_path):
        started = time.monotonic()
        assert await backend.get_value() is True
        assert time.monotonic() - started < SLACK


async def test_write_during_compare_and_set_is_not_overwritten(
    backend: LocalFileBackend, other: LocalFileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was: a change that had read the switch wrote over an operator's off that came before its
    own write.
    """
    await backend.write(ON)
    expected, really, writes = await backend.read(), disk.replace_file, list[Future[None]]()
    with ThreadPoolExecutor(1) as pool:

        def replace_file(path: str, content: bytes) -> None:
            if not writes:
                writes.append(pool.submit(lambda: asyncio.run(other.write(OFF))))
                wait(writes, timeout=0.5)
            really(path, content)

        monkeypatch.setattr(files, "replace_file", replace_file)
        assert await backend.compare_and_set(
            expected, MaintenanceState(enabled=True, reason="changed")
        )
    assert (await backend.read()).switch == OFF


async def test_threads_exclude_each_other_as_processes_do(backend: LocalFileBackend) -> None:
    inside = list[int]()

    def enter() -> None:
        for _ in range(20):
            with backend._files.locked():
                inside.append(1)
                time.sleep(0.0001)
                assert len(inside) == 1
                inside.pop()

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(to_thread.run_sync, enter)


async def test_any_user_may_take_the_lock(backend: LocalFileBackend, lock_path: Path) -> None:
    await backend.write(ON)
    assert stat.S_IMODE(lock_path.stat().st_mode) == 0o666


async def test_where_no_lock_can_be_made_the_error_says_what_to_do(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_open(monkeypatch, str(path.parent), errno.EACCES, flags=os.O_RDWR)
    with pytest.raises(
        ReadOnlyBackendError,
        match=rf"give this user permission to write it and its directory {path.parent}\.",
    ):
        await backend.acquire(Hold("a", ON), LEASE)


async def test_no_file_is_left_open_by_a_lock_that_fails(
    backend: LocalFileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    await backend.read()
    before = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(fcntl, "flock", fail)
    for _ in range(5):
        with pytest.raises(BackendUnavailableError, match=r"No locks available"):
            await backend.acquire(Hold("a", ON), LEASE)
    assert len(os.listdir("/dev/fd")) <= before + 1


async def test_a_failed_change_frees_the_lock(
    backend: LocalFileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "replace", fail)
        with pytest.raises(BackendUnavailableError, match=r"No space left"):
            await backend.acquire(Hold("a", ON), LEASE)
    backend._files.lock_timeout = 0.0
    await backend.acquire(Hold("a", ON), LEASE)
    assert files._LOCK_TIMEOUT >= 1.0
