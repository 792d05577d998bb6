"""The switch in a file."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio import to_thread

from fastapi_maintenance.backends import LocalFileBackend
from fastapi_maintenance.backends.base import SupportsLeases
from fastapi_maintenance.backends.file import store as files
from fastapi_maintenance.exceptions import (
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    InvalidStateError,
    ReadOnlyBackendError,
)
from fastapi_maintenance.model.state import MAX_BYTES, OFF, ON, MaintenanceState
from tests.support.waiting import eventually

from .recording import RecordingFeed, watched

SLACK = 20.0  # seconds that a busy machine may take longer than it should


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "maintenance"


@pytest.fixture
def backend(path: Path) -> LocalFileBackend:
    return LocalFileBackend(path, ttl=0.1)


def names(directory: Path) -> list[str]:
    """The files there, without the locks, which stay."""
    return sorted(entry.name for entry in directory.iterdir() if entry.suffix != ".lock")


def edit(path: Path, command: str) -> None:
    """As an operator does: by the shell, in place."""
    subprocess.run(["sh", "-c", command], cwd=path.parent, check=True)


# -- reading ---------------------------------------------------------------------------------------


async def test_a_missing_file_is_off_and_is_not_made_by_reading(
    backend: LocalFileBackend, path: Path
) -> None:
    assert (await backend.read()).switch == OFF
    assert await backend.get_value() is False
    assert await backend.last_known() is None
    async with watched(backend) as feed:
        await eventually(lambda: len(feed.readings) > 1, within=SLACK)
        assert feed.is_off()
        assert names(path.parent) == []


async def test_a_missing_directory_is_off_too(tmp_path: Path) -> None:
    reading = await LocalFileBackend(tmp_path / "missing" / "maintenance").read()
    assert (reading.switch, reading.error) == (OFF, None)


@pytest.mark.parametrize(
    ("content", "state"), [("1", ON), ("on\n", ON), ("0\n", OFF), ('{"enabled": true}', ON)]
)
async def test_a_word_or_json_in_the_file_is_the_switch(
    backend: LocalFileBackend, path: Path, content: str, state: MaintenanceState
) -> None:
    path.write_text(content)
    reading = await backend.read()
    assert (reading.switch, reading.holds, reading.error) == (state, (), None)
    assert await backend.get_value() is state.enabled
    recalled = await backend.last_known()
    assert recalled is not None
    assert recalled.switch == state


async def test_get_value_considers_the_window(backend: LocalFileBackend, path: Path) -> None:
    path.write_text(
        MaintenanceState(enabled=True, starts_at=datetime.now(UTC) + timedelta(hours=1)).dump()
    )
    assert await backend.get_value() is False


def make_directory(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


UNREADABLE: Final[list[tuple[Callable[[Path], Any], str]]] = [
    (lambda path: path.write_text(""), "cannot be read: '' is not a boolean word"),
    (lambda path: path.write_text("maybe"), "cannot be read: 'maybe' is not a boolean word"),
    (
        lambda path: path.write_text('{"enabled": "red"}'),
        "cannot be read: The JSON cannot be read as a state: enabled: Input should be",
    ),
    (
        lambda path: path.write_text('{"enabled": tr'),
        "cannot be read: The JSON cannot be read as a state: Invalid JSON",
    ),
    (lambda path: path.write_bytes(b"\xff"), r"cannot be read: b'\xff' is not UTF-8 text."),
    (
        lambda path: path.write_bytes(b"1" + b" " * MAX_BYTES),
        "cannot be read: The value must have at most 65536 bytes, got 65537",
    ),
    (make_directory, "cannot be read: not a regular file."),
    (make_fifo, "cannot be read: not a regular file."),
    (make_link_to_itself, "cannot be read: Too many levels of symbolic links."),
]


@pytest.mark.parametrize(
    ("spoil", "error"),
    UNREADABLE,
    ids=["empty", "word", "key", "torn", "bytes", "long", "directory", "fifo", "loop"],
)
async def test_what_cannot_be_read_changes_nothing_and_says_why(
    backend: LocalFileBackend, path: Path, spoil: Callable[[Path], Any], error: str
) -> None:
    spoil(path)
    reading = await backend.read()
    assert (reading.switch, reading.holds) == (None, ())
    assert reading.error is not None
    assert reading.error.startswith("The file cannot be read: ")
    assert error in reading.error
    recalled = await backend.last_known()
    assert recalled is not None
    assert recalled.switch is None
    with pytest.raises(BackendError, match=r"^file:.*: The file cannot be read: "):
        await backend.get_value()


async def test_a_file_without_permission_cannot_be_read(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("1")
    refuse_to_open(monkeypatch, str(path), errno.EACCES)
    reading = await backend.read()
    assert (reading.switch, reading.error) == (None, "The file cannot be read: Permission denied.")


async def test_huge_file_is_read_to_its_limit_only(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch()
    os.truncate(path, 2**26)
    taken = count_bytes_read(monkeypatch)
    assert (await backend.read()).switch is None
    assert sum(taken) == MAX_BYTES + 1


async def test_a_file_that_comes_in_pieces_is_read_whole(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("false")
    count_bytes_read(monkeypatch, at_most=1)
    assert (await backend.read()).switch == OFF


def refuse_to_open(monkeypatch: pytest.MonkeyPatch, path: str, number: int, flags: int = 0) -> None:
    """Let opening a path, or what is in it, fail with these flags; permissions do not stop root."""
    really_open = os.open

    def open_(name: str, given: int, mode: int = 0o777) -> int:
        if (name == path or name.startswith(f"{path}/")) and given & flags == flags:
            raise OSError(number, os.strerror(number), name)
        return really_open(name, given, mode)

    monkeypatch.setattr(os, "open", open_)


def count_bytes_read(monkeypatch: pytest.MonkeyPatch, at_most: int = 2**30) -> list[int]:
    really_read, taken = os.read, list[int]()

    def read(descriptor: int, count: int) -> bytes:
        part = really_read(descriptor, min(count, at_most))
        taken.append(len(part))
        return part

    monkeypatch.setattr(os, "read", read)
    return taken


# -- writing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "content"), [(True, "1"), (False, "0")])
async def test_setting_the_value_writes_one_character(
    backend: LocalFileBackend, path: Path, value: bool, content: str
) -> None:
    await backend.set_value(value)
    assert path.read_text() == content
    assert await backend.get_value() is value
    assert names(path.parent) == [path.name]


async def test_details_are_written_as_json(backend: LocalFileBackend, path: Path) -> None:
    state = MaintenanceState(enabled=True, message="soon")
    await backend.write(state)
    assert MaintenanceState.parse(path.read_text()) == state


async def test_a_time_to_live_is_written_as_the_end(backend: LocalFileBackend) -> None:
    before = datetime.now(UTC)
    await backend.write(MaintenanceState(enabled=True, message="soon"), expires_in=60.0)
    switch = (await backend.read()).switch
    assert switch is not None
    assert switch.message == "soon"
    assert switch.ends_at is not None
    assert (
        before + timedelta(seconds=60)
        <= switch.ends_at
        <= datetime.now(UTC) + timedelta(seconds=60)
    )


async def test_an_end_before_the_time_to_live_stays(backend: LocalFileBackend) -> None:
    state = MaintenanceState(enabled=True, ends_at=datetime.now(UTC) + timedelta(seconds=30))
    await backend.write(state, expires_in=60.0)
    assert (await backend.read()).switch == state


async def test_off_needs_no_end(backend: LocalFileBackend, path: Path) -> None:
    await backend.write(OFF, expires_in=60.0)
    assert path.read_text() == "0"


async def test_a_time_to_live_that_ends_before_the_start_is_refused(
    backend: LocalFileBackend, path: Path
) -> None:
    state = MaintenanceState(enabled=True, starts_at=datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(InvalidStateError, match=r"over after 60 s, before it starts at "):
        await backend.write(state, expires_in=60.0)
    assert not path.exists()


@pytest.mark.parametrize("seconds", [1e12, 1e18, 1e300])
async def test_a_time_to_live_beyond_the_calendar_is_refused(
    backend: LocalFileBackend, seconds: float
) -> None:
    with pytest.raises(InvalidStateError, match=r"beyond the calendar"):
        await backend.write(ON, expires_in=seconds)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf")])
async def test_a_time_to_live_must_be_positive(backend: LocalFileBackend, seconds: float) -> None:
    with pytest.raises(
        ConfigurationError, match=r"expires_in must be a positive number of seconds"
    ):
        await backend.write(ON, expires_in=seconds)


@pytest.mark.parametrize("content", ["1", "on", '{"enabled": true}'])
async def test_a_file_that_says_the_same_is_left_alone(
    backend: LocalFileBackend, path: Path, content: str
) -> None:
    path.write_text(content)
    before = path.stat()
    await backend.write(ON)
    assert (path.read_text(), path.stat().st_ino, path.stat().st_mtime_ns) == (
        content,
        before.st_ino,
        before.st_mtime_ns,
    )


async def test_off_without_a_file_is_written(backend: LocalFileBackend, path: Path) -> None:
    await backend.write(OFF)
    assert path.read_text() == "0"


async def test_garbage_is_overwritten(backend: LocalFileBackend, path: Path) -> None:
    path.write_text("garbage")
    await backend.write(OFF)
    assert path.read_text() == "0"


async def test_new_file_is_synced_before_it_replaces_the_old(
    backend: LocalFileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = list[str]()
    really_sync, really_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        steps.append(
            "sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file"
        )
        really_sync(descriptor)

    def replace(old: str, new: str) -> None:
        steps.append("replace")
        assert Path(old).parent == Path(new).parent
        really_replace(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    await backend.write(ON)
    assert steps == ["sync file", "replace", "sync directory"]


async def test_a_directory_that_cannot_be_synced_is_no_failure(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_open(monkeypatch, str(path.parent), errno.EACCES, flags=os.O_DIRECTORY)
    await backend.write(ON)
    assert path.read_text() == "1"


async def test_an_existing_file_keeps_its_permissions(
    backend: LocalFileBackend, path: Path
) -> None:
    path.write_text("0")
    path.chmod(0o660)
    await backend.write(ON)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


async def test_an_existing_file_keeps_its_owner_where_that_is_allowed(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("0")
    asked = list[tuple[int, int]]()

    def fchown(descriptor: int, user: int, group: int) -> None:
        asked.append((user, group))
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchown", fchown)
    await backend.write(ON)
    assert asked == [(-1, path.stat().st_gid), (path.stat().st_uid, -1)]
    assert path.read_text() == "1"


async def test_a_new_file_gets_the_permissions_that_the_umask_leaves(
    backend: LocalFileBackend, path: Path
) -> None:
    before = os.umask(0o027)
    try:
        await backend.write(ON)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


async def test_a_symbolic_link_stays_and_its_target_is_written(
    backend: LocalFileBackend, path: Path, tmp_path: Path
) -> None:
    target = tmp_path / "elsewhere" / "switch"
    target.parent.mkdir()
    path.symlink_to(target)
    await backend.write(ON)
    assert path.is_symlink()
    assert target.read_text() == "1"
    assert names(target.parent) == ["switch"]


async def test_a_missing_directory_is_named_with_what_to_do(tmp_path: Path) -> None:
    backend = LocalFileBackend(tmp_path / "missing" / "maintenance")
    advice = (
        r"missing/maintenance\.lock cannot be written \(No such file or directory\): make "
        rf"the directory {tmp_path}/missing first\.$"
    )
    with pytest.raises(BackendUnavailableError, match=advice):
        await backend.write(ON)
    assert names(tmp_path) == []


async def test_a_path_that_is_a_directory_is_named_with_what_to_do(
    backend: LocalFileBackend, path: Path
) -> None:
    path.mkdir()
    with pytest.raises(
        BackendUnavailableError, match=r"\(Is a directory\): name a file, not a directory\.$"
    ):
        await backend.write(ON)
    assert names(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (
            errno.EACCES,
            ReadOnlyBackendError,
            "give this user permission to write it and its directory",
        ),
        (errno.EROFS, ReadOnlyBackendError, "keep it on a file system that is not read-only"),
        (errno.EBUSY, BackendUnavailableError, "so mount its directory"),
        (errno.ENOSPC, BackendUnavailableError, r"\(No space left on device\)\.$"),
    ],
    ids=["EACCES", "EROFS", "EBUSY", "ENOSPC"],
)
@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
async def test_a_write_that_fails_leaves_everything_as_it_was(
    backend: LocalFileBackend,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    number: int,
    kind: type[BackendError],
    advice: str,
) -> None:
    path.write_text("0")

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    if step == "open":
        refuse_to_open(monkeypatch, str(path.parent), number, flags=os.O_WRONLY)
    else:
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(kind, match=advice) as caught:
        await backend.write(ON)
    assert str(caught.value).startswith(f"{path} cannot be written (")
    assert names(path.parent) == [path.name]
    assert path.read_text() == "0"


async def test_an_error_without_words_is_still_told(
    backend: LocalFileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("out of order")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(BackendUnavailableError, match=r"\(out of order\)\.$"):
        await backend.write(ON)


# -- watching --------------------------------------------------------------------------------------


async def test_a_hand_edit_is_seen_within_ttl(backend: LocalFileBackend, path: Path) -> None:
    async with watched(backend) as feed:
        by_rename = "echo on > new; mv new maintenance"
        for command, seen in (
            ("echo 1 > maintenance", feed.is_on),
            ("echo off > maintenance", feed.is_off),
            (by_rename, feed.is_on),
        ):
            edit(path, command)
            asked = time.monotonic()
            await eventually(seen, within=backend.ttl + SLACK)
            assert feed.asked_at[-1] - asked < backend.ttl + SLACK
        path.unlink()
        await eventually(feed.is_off, within=backend.ttl + SLACK)


async def test_an_unreadable_file_is_told_and_so_is_its_recovery(
    backend: LocalFileBackend, path: Path
) -> None:
    path.write_text("1")
    async with watched(backend) as feed:
        edit(path, "> maintenance")
        await eventually(lambda: feed.last.error, within=SLACK)
        edit(path, "echo 1 > maintenance")
        await eventually(lambda: feed.last.switch == ON and feed.last.error is None, within=SLACK)
        assert feed.errors == []


async def test_watch_of_unchanged_files_confirms_them(
    backend: LocalFileBackend, path: Path
) -> None:
    path.write_text("1")
    async with watched(backend) as feed:
        await eventually(lambda: len(feed.asked_at) >= 3, within=SLACK)
        assert feed.asked_at == sorted(feed.asked_at)
        assert feed.asked_at[-1] > time.monotonic() - SLACK


async def test_watch_retries_a_file_that_failed_to_open(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("1")
    with monkeypatch.context() as broken:
        refuse_to_open(broken, str(path), errno.EMFILE)
        async with watched(backend) as feed:
            assert feed.last.error == "The file cannot be read: Too many open files."
            broken.undo()
            await eventually(feed.is_on, within=SLACK)


async def test_window_is_noticed_at_its_start(path: Path) -> None:
    backend = LocalFileBackend(path, ttl=120.0)
    starts = datetime.now(UTC) + timedelta(seconds=4)
    await backend.write(MaintenanceState(enabled=True, starts_at=starts))
    async with watched(backend) as feed:
        await eventually(lambda: feed.last.now >= starts.timestamp(), within=4 + SLACK)
        assert feed.is_on()


async def test_its_own_writes_are_told_at_once_and_without_a_watch(path: Path) -> None:
    backend, feed = LocalFileBackend(path, ttl=120.0), RecordingFeed()
    backend.subscribe(feed)
    await backend.write(ON)
    assert feed.is_on()
    await backend.clear()
    assert feed.is_off()


async def test_a_watch_confirms_only_what_the_feed_was_told_last(path: Path) -> None:
    """Off, on by a write of our own, off again by somebody else between two looks: the second off
    is news to the feed.
    """
    backend = LocalFileBackend(path, ttl=0.4)
    path.write_text("0")
    async with watched(backend) as feed:
        await eventually(lambda: len(feed.readings) > 1, within=SLACK)
        await backend.write(ON)
        assert feed.is_on()
        path.write_text("0")
        await eventually(feed.is_off, within=backend.ttl + SLACK)


class Disk:
    """Does not answer until it is told to."""

    def __init__(self) -> None:
        self.answers, self.asked = threading.Event(), threading.Event()

    def read_file(self, path: str, most: int) -> None:
        self.asked.set()
        self.answers.wait(20)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(files, "read_file", disk.read_file)
    yield disk
    disk.answers.set()


async def test_a_watch_ends_at_once_although_the_disk_does_not_answer(
    backend: LocalFileBackend, disk: Disk
) -> None:
    watch = asyncio.create_task(backend.watch(RecordingFeed()))
    await eventually(disk.asked.is_set, within=SLACK)
    watch.cancel()
    done, _ = await asyncio.wait([watch], timeout=SLACK)
    assert done == {watch}


async def test_a_watch_in_a_task_group_of_anyio_ends_at_once_too(
    backend: LocalFileBackend, disk: Disk
) -> None:
    """Which asks threads, other than asyncio does, whether they may be left behind."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(backend.watch, RecordingFeed())
        await eventually(disk.asked.is_set, within=SLACK)
        began = time.monotonic()
        tasks.cancel_scope.cancel()
    assert time.monotonic() - began < SLACK


# -- threads and event loops -----------------------------------------------------------------------


async def test_it_does_not_wait_for_the_applications_thread_pool(backend: LocalFileBackend) -> None:
    release = threading.Event()
    async with anyio.create_task_group() as tasks:
        limiter = to_thread.current_default_thread_limiter()
        for _ in range(int(limiter.total_tokens)):
            tasks.start_soon(to_thread.run_sync, release.wait, 20)
        try:
            await eventually(lambda: limiter.available_tokens == 0, within=30)
            with anyio.fail_after(10):
                await backend.write(ON)
                assert await backend.get_value() is True
        finally:
            release.set()


async def test_it_can_be_used_from_several_event_loops(backend: LocalFileBackend) -> None:
    feed = RecordingFeed()
    backend.subscribe(feed)
    await backend.write(OFF)
    await to_thread.run_sync(asyncio.run, backend.write(ON))
    assert feed.is_on()
    assert await backend.get_value() is True


# -- construction ----------------------------------------------------------------------------------


def test_it_is_called_by_its_path_as_given(path: Path) -> None:
    assert LocalFileBackend(path).describe() == f"file:{path}"
    assert LocalFileBackend(file_path="maintenance.json").describe() == "file:maintenance.json"
    assert (
        LocalFileBackend(path).kind,
        isinstance(LocalFileBackend(path), SupportsLeases),
        LocalFileBackend(path).ttl,
    ) == ("file", True, 1.0)


async def test_relative_path_survives_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backend = await to_thread.run_sync(LocalFileBackend, "maintenance")
    monkeypatch.chdir("/")
    await backend.write(ON)
    assert (tmp_path / "maintenance").read_text() == "1"


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_that_no_file_can_have_is_refused(path: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"file_path must be a path like maintenance\.json, got"
    ):
        LocalFileBackend(path)


@pytest.mark.parametrize("ttl", [0, -1.0, float("nan")])
def test_ttl_must_be_positive(path: Path, ttl: float) -> None:
    with pytest.raises(ConfigurationError, match=r"ttl must be a positive number of seconds"):
        LocalFileBackend(path, ttl=ttl)
