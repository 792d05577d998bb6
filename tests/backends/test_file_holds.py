"""Holds in the file beside the switch."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
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
from fastapi_maintenance.backends.file import files, lock, owner
from fastapi_maintenance.backends.file.lease import Lease, dump_leases, parse_leases
from fastapi_maintenance.backends.file.owner import Owner
from fastapi_maintenance.exceptions import (
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    InvalidStateError,
    ReadOnlyBackendError,
)
from fastapi_maintenance.snapshot import Hold, evaluate
from fastapi_maintenance.state import OFF, ON, MaintenanceState
from tests.test_state import states
from tests.waiting import eventually

from .recording import RecordingFeed, watched
from .test_file import SLACK, names, refuse_to_open

LEASE = 30.0

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process began and whether it is a zombie")


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


# -- taking and ending ---------------------------------------------------------------------------------------------------


async def test_a_hold_stands_where_others_see_it_until_it_is_released(backend: LocalFileBackend, other: LocalFileBackend) -> None:
    before = time.time()
    hold = await backend.acquire(Hold("a", MaintenanceState(enabled=True, message="migrating"), lifts=("b",)), LEASE)
    assert before <= hold.since <= time.time()
    assert before + LEASE <= hold.deadline <= time.time() + LEASE
    assert (await other.read()).holds == (hold,)
    assert await is_on(other)
    await backend.release(hold)
    assert not await is_on(other)


async def test_the_file_of_holds_is_gone_when_the_last_one_is(backend: LocalFileBackend, path: Path) -> None:
    holds = [await backend.acquire(Hold(id, ON), LEASE) for id in "ab"]
    assert names(path.parent) == ["maintenance.holds", "maintenance.lock"]
    for hold in holds:
        await backend.release(hold)
    assert names(path.parent) == ["maintenance.lock"]


async def test_ending_a_hold_twice_does_nothing(backend: LocalFileBackend, other: LocalFileBackend, holds_path: Path) -> None:
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


async def test_a_hand_edit_of_the_switch_leaves_the_holds_alone(backend: LocalFileBackend, path: Path) -> None:
    hold = await backend.acquire(Hold("a", OFF), LEASE)
    subprocess.run(["sh", "-c", "echo 1 > maintenance"], cwd=path.parent, check=True)
    reading = await backend.read()
    assert (reading.switch, reading.holds) == (ON, (hold,))


async def test_changes_of_holds_are_told_to_this_process_at_once(backend: LocalFileBackend) -> None:
    feed = RecordingFeed()
    backend.attach(feed)
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


# -- keeping the switch on -----------------------------------------------------------------------------------------------


async def test_a_hold_can_end_in_a_switch_that_stays_on(backend: LocalFileBackend, other: LocalFileBackend) -> None:
    hold = await backend.acquire(Hold("a", ON), LEASE)
    kept = MaintenanceState(enabled=True, reason="the migration failed")
    await backend.release(hold, keep=kept)
    reading = await other.read()
    assert (reading.switch, reading.holds) == (kept, ())


async def test_whoever_reads_while_a_hold_becomes_a_switch_sees_one_or_the_other(
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


# -- leases --------------------------------------------------------------------------------------------------------------


async def test_a_hold_that_is_not_renewed_ends_at_its_deadline_and_a_watch_tells_then(path: Path, other: LocalFileBackend) -> None:
    backend = LocalFileBackend(path, ttl=20.0)
    hold = await other.acquire(Hold("a", ON), 4.0)
    async with watched(backend) as feed:
        assert feed.is_on()
        await eventually(lambda: feed.last.holds == (), within=4 + SLACK)
        assert feed.last.now >= hold.deadline
    assert not await is_on(other)


async def test_a_renewed_hold_never_has_its_old_deadline_seen_by_a_slow_watch(path: Path, other: LocalFileBackend) -> None:
    backend = LocalFileBackend(path, ttl=20.0)
    hold = await other.acquire(Hold("a", ON), 4.0)
    async with watched(backend) as feed:
        await other.renew(hold, LEASE)
        await eventually(lambda: feed.last.holds and feed.last.holds[0].deadline > hold.deadline, within=4 + SLACK)
        assert feed.last.now < hold.deadline


async def test_a_hold_that_has_ended_is_dropped_from_the_file_by_the_next_change(backend: LocalFileBackend, holds_path: Path) -> None:
    await backend.acquire(Hold("short", ON), 0.001)
    await backend.acquire(Hold("long", ON), LEASE)
    assert list(parse_leases(holds_path.read_bytes())) == ["long"]


async def test_renewing_moves_the_deadline_and_keeps_the_rest(backend: LocalFileBackend, other: LocalFileBackend) -> None:
    hold = await backend.acquire(Hold("a", MaintenanceState(enabled=True, message="x"), lifts=("b",)), 1.0)
    assert await backend.renew(hold, LEASE)
    (renewed,) = (await other.read()).holds or ()
    assert replace(renewed, deadline=hold.deadline) == hold
    assert abs(renewed.deadline - time.time() - LEASE) < SLACK


async def test_renewing_puts_a_hold_back_that_vanished(backend: LocalFileBackend, other: LocalFileBackend, holds_path: Path) -> None:
    hold = await backend.acquire(Hold("a", ON), LEASE)
    holds_path.unlink()
    assert not await is_on(other)
    assert await backend.renew(hold, LEASE)
    assert await is_on(other)


# -- clear ---------------------------------------------------------------------------------------------------------------


async def test_clear_ends_every_hold_and_turns_the_switch_off(
    backend: LocalFileBackend, other: LocalFileBackend, path: Path, holds_path: Path
) -> None:
    await backend.write(ON)
    hold = await backend.acquire(Hold("a", ON), LEASE)
    await other.clear()
    assert path.read_text() == "0"
    assert not holds_path.exists()
    assert not await is_on(backend)
    assert await backend.renew(hold, LEASE) is False
    assert not await is_on(backend)


async def test_a_revoked_hold_stays_revoked_after_others_came_and_went(backend: LocalFileBackend, other: LocalFileBackend) -> None:
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


async def test_a_hold_taken_after_a_clear_counts_also_when_the_clock_was_set_back(
    backend: LocalFileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await backend.clear()
    set_clock_back(monkeypatch)
    hold = await backend.acquire(Hold("a", ON), LEASE)
    assert await backend.renew(hold, LEASE)


async def test_clear_revokes_also_what_can_no_longer_be_read(backend: LocalFileBackend, holds_path: Path) -> None:
    hold = await backend.acquire(Hold("a", ON), LEASE)
    holds_path.write_text("garbage")
    await backend.clear()
    assert not holds_path.exists()
    assert await backend.renew(hold, LEASE) is False


@pytest.mark.parametrize("note", ["", "soon", "nan", "inf", "\udcff"])
async def test_a_note_of_the_last_clear_that_cannot_be_read_revokes_nothing(backend: LocalFileBackend, path: Path, note: str) -> None:
    hold = await backend.acquire(Hold("a", ON), LEASE)
    path.with_name("maintenance.lock").write_bytes(note.encode(errors="surrogateescape"))
    assert await backend.renew(hold, LEASE)


def test_the_note_of_a_clear_takes_the_place_of_a_longer_one(backend: LocalFileBackend) -> None:
    with backend._files.lock.held() as locked_file:
        assert locked_file.cleared_at() == -math.inf
        locked_file.note_cleared(1795318200.1234567)
        locked_file.note_cleared(1795318201.5)
        assert locked_file.cleared_at() == 1795318201.5


def set_clock_back(monkeypatch: pytest.MonkeyPatch) -> None:
    really = time.time
    monkeypatch.setattr(time, "time", lambda: really() - 10.0)


# -- whose process is gone -----------------------------------------------------------------------------------------------


SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that can be killed."""
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as process:
        yield process
        process.kill()


@pytest.fixture
def living(process: subprocess.Popen[bytes]) -> Owner:
    """How that process is known."""
    return replace(Owner.current(), pid=process.pid, start=owner._state_and_start(process.pid)[1])


@pytest.fixture
def dead(process: subprocess.Popen[bytes], living: Owner) -> Owner:
    """How it is known, when it is no more."""
    process.kill()
    process.wait()
    return living


def put(holds_path: Path, owner: Owner) -> None:
    """Let a hold stand there that the process has."""
    hold = Hold("theirs", ON, time.time(), time.time() + LEASE)
    holds_path.write_bytes(dump_leases({hold.id: Lease(hold, owner)}))


@on_linux
async def test_a_hold_of_a_living_process_counts_and_of_a_killed_one_does_not(
    backend: LocalFileBackend, holds_path: Path, process: subprocess.Popen[bytes], living: Owner
) -> None:
    put(holds_path, living)
    assert await held(backend) == ["theirs"]
    process.kill()
    await eventually(lambda: is_gone_but_unburied(process.pid), within=20)
    assert await held(backend) == []
    process.wait()
    assert await held(backend) == []


def is_gone_but_unburied(pid: int) -> bool:
    os.kill(pid, 0)  # a zombie still takes signals
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


@on_linux
async def test_a_watch_notices_a_death_although_no_file_changes(
    backend: LocalFileBackend,
    holds_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    process: subprocess.Popen[bytes],
    living: Owner,
) -> None:
    monkeypatch.setattr(files, "_SETTLED_AFTER", -1.0)
    put(holds_path, living)
    async with watched(backend) as feed:
        await eventually(lambda: feed.confirmed_at, within=SLACK)
        assert feed.is_on()
        process.kill()
        await eventually(feed.is_off, within=SLACK)


@on_linux
async def test_a_process_that_got_a_dead_ones_number_does_not_have_its_holds(
    backend: LocalFileBackend, holds_path: Path, living: Owner
) -> None:
    put(holds_path, replace(living, start="1"))
    assert await held(backend) == []


async def test_another_hosts_hold_counts_until_its_deadline(backend: LocalFileBackend, holds_path: Path, dead: Owner) -> None:
    put(holds_path, replace(dead, host=f"not {dead.host}"))
    assert await held(backend) == ["theirs"]


async def test_a_dead_processs_hold_is_dropped_from_the_file_by_the_next_change(
    backend: LocalFileBackend, holds_path: Path, dead: Owner
) -> None:
    put(holds_path, dead)
    await backend.acquire(Hold("mine", ON), LEASE)
    assert list(parse_leases(holds_path.read_bytes())) == ["mine"]


@on_linux
def test_the_same_number_in_another_container_or_after_a_reboot_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    me = Owner.current()
    assert me.host.startswith(socket.gethostname())
    monkeypatch.setattr(os, "readlink", lambda _: "pid:[1]")
    assert Owner.current().host != me.host
    monkeypatch.undo()
    monkeypatch.setattr(owner, "_read", lambda _: "")
    assert Owner.current().host != me.host


def test_where_the_system_says_nothing_of_processes_only_their_numbers_count(monkeypatch: pytest.MonkeyPatch, dead: Owner) -> None:
    def no_namespaces(_: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "readlink", no_namespaces)
    monkeypatch.setattr(owner, "_read", lambda _: "")
    me = Owner.current()
    assert me == Owner(socket.gethostname(), os.getpid(), None)
    assert not me.is_gone()
    assert replace(me, pid=dead.pid).is_gone()


def test_of_a_process_that_is_not_there_nothing_is_said() -> None:
    assert owner._state_and_start(2**31 - 1) == (None, None)


def test_another_users_process_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_permitted(pid: int, number: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "kill", not_permitted)
    assert not Owner.current().is_gone()


@on_linux
def test_a_process_may_have_any_name() -> None:
    rename = "open('/proc/self/comm', 'w').write('a) Z (b c'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert "a) Z (b c" in Path(f"/proc/{process.pid}/stat").read_text()
        state, start = owner._state_and_start(process.pid)
        assert state in ("R", "S", "D")
        assert start is not None
        assert start.isdigit()
        process.kill()


# -- a file of holds that cannot be read -----------------------------------------------------------------------------------

GARBAGE: Final = ["", "garbage", "[]", '{"holds": []}', '{"holds": {"a": {}}}', '{"holds": {"a": 1}}', "{}"]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_holds_that_cannot_be_read_stay_as_they_were_known(
    backend: LocalFileBackend, path: Path, holds_path: Path, garbage: str
) -> None:
    path.write_text("1")
    holds_path.write_text(garbage)
    reading = await backend.read()
    assert (reading.switch, reading.holds) == (ON, None)
    assert reading.error == f"{holds_path} cannot be read: It is not JSON as this package writes it."


async def test_both_problems_are_told(backend: LocalFileBackend, path: Path, holds_path: Path) -> None:
    path.write_text("maybe")
    holds_path.write_text("garbage")
    reading = await backend.read()
    assert reading.error is not None
    assert [reading.error.count(f"{name} cannot be read: ") for name in ("The file", holds_path)] == [1, 1]


async def test_garbage_is_replaced_at_the_next_acquire_by_what_was_known_here(backend: LocalFileBackend, holds_path: Path) -> None:
    await backend.acquire(Hold("known", ON), LEASE)
    holds_path.write_text("garbage")
    await backend.acquire(Hold("new", ON), LEASE)
    assert await held(backend) == ["known", "new"]


async def test_garbage_stops_neither_renewing_nor_releasing(backend: LocalFileBackend, holds_path: Path) -> None:
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
    with pytest.raises(ReadOnlyBackendError, match=r"maintenance\.holds cannot be written \(Permission denied\)"):
        await backend.acquire(Hold("mine", ON), LEASE)
    monkeypatch.undo()
    assert holds_path.read_bytes() == before


async def test_holds_are_read_and_written_within_bounds(
    backend: LocalFileBackend, holds_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MAX_HOLDS_BYTES", 1000)
    hold = await backend.acquire(Hold("a", ON), LEASE)
    with pytest.raises(BackendError, match=r"would be over 1000 bytes long: shorten the texts of the holds"):
        await backend.acquire(Hold("b", MaintenanceState(enabled=True, message="x" * 1000)), LEASE)
    assert (await backend.read()).holds == (hold,)
    holds_path.write_bytes(holds_path.read_bytes() + b" " * 1000)
    reading = await backend.read()
    assert (reading.holds, reading.error) == (None, f"{holds_path} cannot be read: It is over 1000 bytes long.")


@given(st.binary() | st.text().map(str.encode))
def test_garbage_raises_nothing_but_an_invalid_state_error(garbage: bytes) -> None:
    with pytest.raises(InvalidStateError):
        parse_leases(garbage)


ENTRY: Final[dict[str, Any]] = {"state": {"enabled": True}, "since": 1.0, "deadline": 2.0, "host": "h", "pid": 5, "start": "6"}


@pytest.mark.parametrize(
    "spoiled",
    [
        {"pid": 0},
        {"pid": -1},
        {"pid": 2**31},
        {"pid": None},
        {"pid": float("inf")},
        {"deadline": float("nan")},
        {"deadline": 10**400},
        {"state": None},
        {"since": "soon"},
    ],
    ids=repr,
)
def test_an_entry_that_cannot_be_meant_is_garbage(spoiled: dict[str, Any]) -> None:
    parse_leases(json.dumps({"holds": {"a": ENTRY}}).encode())
    with pytest.raises(InvalidStateError):
        parse_leases(json.dumps({"holds": {"a": ENTRY | spoiled}}).encode())


leases = st.builds(
    Lease,
    st.builds(Hold, st.just(""), states(), st.floats(0, 1e11), st.floats(0, 1e11), st.lists(st.text(), max_size=2).map(tuple)),
    st.builds(Owner, st.text(), st.integers(1, 2**31 - 1), st.none() | st.text()),
)


@given(st.dictionaries(st.text(), leases, max_size=3))
def test_holds_are_read_as_they_were_written(written: dict[str, Lease]) -> None:
    named = {id: replace(lease, hold=replace(lease.hold, id=id)) for id, lease in written.items()}
    assert parse_leases(dump_leases(named)) == named


# -- the lock ------------------------------------------------------------------------------------------------------------


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


async def test_a_lock_held_elsewhere_is_waited_for_so_long_and_no_longer(backend: LocalFileBackend, lock_path: Path) -> None:
    backend._files.lock.patience = 0.1
    with locked(lock_path):
        started = time.monotonic()
        with pytest.raises(BackendUnavailableError, match=r"maintenance\.lock has been locked for over 0\.1 s by another process"):
            await backend.acquire(Hold("a", ON), LEASE)
        assert 0.1 <= time.monotonic() - started < 0.1 + SLACK
    await backend.acquire(Hold("a", ON), LEASE)


async def test_a_lock_that_becomes_free_in_time_is_taken(backend: LocalFileBackend, lock_path: Path) -> None:
    with locked(lock_path) as descriptor:
        timer = threading.Timer(0.1, fcntl.flock, (descriptor, fcntl.LOCK_UN))
        timer.start()
        hold = await backend.acquire(Hold("a", ON), LEASE)
        timer.join()
    assert (await backend.read()).holds == (hold,)


async def test_a_lock_held_elsewhere_stops_neither_reading_nor_the_switch(backend: LocalFileBackend, lock_path: Path) -> None:
    with locked(lock_path):
        started = time.monotonic()
        await backend.write(ON)
        assert await backend.get_value() is True
        assert time.monotonic() - started < SLACK


async def test_threads_exclude_each_other_as_processes_do(backend: LocalFileBackend) -> None:
    inside = list[int]()

    def enter() -> None:
        for _ in range(20):
            with backend._files.lock.held():
                inside.append(1)
                time.sleep(0.0001)
                assert len(inside) == 1
                inside.pop()

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(to_thread.run_sync, enter)


async def test_a_copy_of_the_open_lock_in_a_forked_child_does_not_keep_it_locked(
    backend: LocalFileBackend,
) -> None:
    copies = list[int]()
    with backend._files.lock.held() as held_lock:
        copies.append(os.dup(held_lock._descriptor))
    try:
        backend._files.lock.patience = 0.0
        await backend.acquire(Hold("a", ON), LEASE)
    finally:
        os.close(copies[0])


async def test_a_lock_file_that_was_removed_meanwhile_locks_nothing(
    backend: LocalFileBackend, lock_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, inodes = fcntl.flock, list[int]()

    def flock(descriptor: int, operation: int) -> None:
        if not inodes:
            lock_path.unlink()
        if operation != fcntl.LOCK_UN:
            inodes.append(os.fstat(descriptor).st_ino)
        really(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    await backend.acquire(Hold("a", ON), LEASE)
    assert len(inodes) == 2
    assert inodes[-1] == lock_path.stat().st_ino


async def test_another_users_lock_can_be_held_and_only_clear_needs_to_write_it(
    backend: LocalFileBackend, lock_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_path.touch()
    refuse_to_open(monkeypatch, str(lock_path), errno.EACCES, flags=os.O_RDWR)
    hold = await backend.acquire(Hold("a", ON), LEASE)
    assert await backend.renew(hold, LEASE)
    with pytest.raises(ReadOnlyBackendError, match=r"maintenance\.lock cannot be written \(.*\): give this user permission to write it"):
        await backend.clear()
    assert await held(backend) == ["a"]


async def test_where_no_lock_can_be_made_the_error_says_what_to_do(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_open(monkeypatch, str(path.parent), errno.EACCES, flags=os.O_RDWR)
    with pytest.raises(ReadOnlyBackendError, match=rf"give this user permission to write it and its directory {path.parent}\."):
        await backend.acquire(Hold("a", ON), LEASE)


async def test_no_file_is_left_open_by_a_lock_that_fails(backend: LocalFileBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    await backend.read()
    before = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(fcntl, "flock", fail)
    for _ in range(5):
        with pytest.raises(BackendUnavailableError, match=r"No locks available"):
            await backend.acquire(Hold("a", ON), LEASE)
    assert len(os.listdir("/dev/fd")) <= before + 1


async def test_a_failed_change_frees_the_lock(backend: LocalFileBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "replace", fail)
        with pytest.raises(BackendUnavailableError, match=r"No space left"):
            await backend.acquire(Hold("a", ON), LEASE)
    backend._files.lock.patience = 0.0
    await backend.acquire(Hold("a", ON), LEASE)
    assert lock._PATIENCE >= 1.0
