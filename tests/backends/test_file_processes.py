"""The file backend among real processes."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from fastapi_maintenance.backends import LocalFileBackend
from fastapi_maintenance.backends.file.store import StoredHolds
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import ON
from tests.support.waiting import eventually, eventually_sync

from .recording import watched

SLACK = 20.0  # seconds that a busy machine may take longer than it should


class Process:
    """A `file_worker` at the other end of two pipes."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.backends.file_worker", str(path)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Let it end in order if it can."""
        try:
            self._process.communicate(timeout=10)
        finally:
            self._process.kill()

    def tell(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, *words: object) -> Any:
        self.tell(*words)
        return self.hear()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """As by `kill -9`, and without anybody noticing: it stays a zombie."""
        self._process.kill()


@pytest.fixture(scope="module")
def _pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Process]]]:
    path = tmp_path_factory.mktemp("pool") / "maintenance"
    with ExitStack() as stack:
        processes = [stack.enter_context(Process(path)) for _ in range(3)]
        assert [process.hear() for process in processes] == ["ready"] * 3
        yield path, processes


@pytest.fixture
def path(_pool: tuple[Path, list[Process]]) -> Path:
    """The file that the processes work on."""
    return _pool[0]


@pytest.fixture
def three(_pool: tuple[Path, list[Process]]) -> Iterator[list[Process]]:
    """Three processes, to be left alive."""
    _, processes = _pool
    yield processes
    processes[0].ask("clear")


@pytest.fixture
def victim(path: Path) -> Iterator[Process]:
    """A process to be killed."""
    with Process(path) as process:
        assert process.hear() == "ready"
        yield process


@pytest.mark.may_block
def test_the_worker_itself_does_what_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "maintenance"
    commands = [
        "read",
        f"write_until {path}",
        "read",
        "acquire a off 60",
        "read",
        "renew a 60",
        "release a",
        "acquire_many b 2",
    ]
    commands += ["lock_for 0", "flip_seen_at 5", "write on", "misread 2", "clear"]
    monkeypatch.setattr(sys, "argv", ["file_worker", str(path)])
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(commands)))
    runpy.run_module("tests.backends.file_worker", run_name="__main__")
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    seen_at = said.pop(12)
    assert said == [
        "ready",
        False,
        1,
        True,
        None,
        False,
        True,
        None,
        None,
        "locked",
        None,
        "watching",
        None,
        0,
        None,
    ]
    assert seen_at <= time.monotonic()


# -- the switch ------------------------------------------------------------------------------------


def test_state_that_is_always_on_is_never_read_as_off(three: list[Process], path: Path) -> None:
    """The modelled package truncates before it writes, and takes an empty file for off: two reads
    of three were wrong.
    """
    path.write_text("1")
    stop = path.with_name("stop")
    *writers, reader = three
    for writer in writers:
        writer.tell("write_until", stop)
    reader.tell("misread", 300)
    backend = LocalFileBackend(path)
    readings = [asyncio.run(backend.read()) for _ in range(100)]
    assert reader.hear() == 0
    assert all(reading.switch is not None and reading.switch.enabled for reading in readings)
    stop.touch()
    assert all(writer.hear() >= 1 for writer in writers)
    stop.unlink()
    assert [entry.name for entry in path.parent.iterdir() if entry.suffix == ".tmp"] == []


def test_a_flip_in_one_process_is_seen_in_another_within_ttl(three: list[Process]) -> None:
    writer, reader, _ = three
    reader.tell("flip_seen_at", 10)
    assert reader.hear() == "watching"
    time.sleep(0.1)
    flipped_at = time.monotonic()
    writer.ask("write", "on")
    assert reader.hear() - flipped_at < 0.4 + SLACK


# -- holds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
def test_overlapping_holds_of_two_processes_compose(
    order: tuple[str, ...], three: list[Process]
) -> None:
    first, second, observer = three
    owners = {"a": first, "b": second, "c": first}
    for id, owner in owners.items():
        owner.ask("acquire", id, "on", 60)
    for id in order:
        assert [process.ask("read") for process in (second, observer)] == [True, True]
        owners[id].ask("release", id)
    assert [process.ask("read") for process in (second, observer)] == [False, False]


def test_off_hold_does_not_open_under_another_process(
    three: list[Process],
) -> None:
    first, second, _ = three
    first.ask("acquire", "migration", "on", 60)
    second.ask("acquire", "impatient", "off", 60)
    assert [process.ask("read") for process in three] == [True] * 3
    first.ask("release", "migration")
    first.ask("write", "on")
    assert [process.ask("read") for process in three] == [False] * 3
    second.ask("release", "impatient")
    assert [process.ask("read") for process in three] == [True] * 3


def test_holds_of_processes_at_the_same_time_are_kept(three: list[Process], path: Path) -> None:
    for number, process in enumerate(three):
        process.tell("acquire_many", f"{number}-", 10)
    for process in three:
        process.hear()
    assert len(StoredHolds.parse(path.with_name("maintenance.holds").read_bytes()).by_id) == 30


def test_stopped_holder_loses_its_hold_and_may_renew_it(
    three: list[Process],
) -> None:
    holder, observer, _ = three
    holder.ask("acquire", "a", "on", 1.0)
    holder.send(signal.SIGSTOP)
    try:
        eventually_sync(lambda: not observer.ask("read"), within=1.0 + SLACK)
    finally:
        holder.send(signal.SIGCONT)
    assert holder.ask("renew", "a", 60) is True
    assert observer.ask("read") is True


def test_killing_a_holder_ends_its_hold_with_the_lease(
    three: list[Process], victim: Process
) -> None:
    survivor, observer, _ = three
    victim.ask("acquire", "a", "on", 3)
    survivor.ask("acquire", "b", "on", 600)
    victim.kill()
    assert observer.ask("read") is True
    survivor.ask("release", "b")
    eventually_sync(lambda: not observer.ask("read"), within=3 + SLACK)


async def test_killing_whoever_has_the_lock_frees_it(victim: Process, path: Path) -> None:
    backend = LocalFileBackend(path)
    victim.tell("lock_for", 60)
    assert victim.hear() == "locked"
    victim.kill()
    hold = await backend.acquire(Hold("a", ON), 30.0)
    assert (await backend.read()).holds == (hold,)
    await backend.release(hold)


async def test_hold_of_another_process_reaches_a_watch(victim: Process, path: Path) -> None:
    async with watched(LocalFileBackend(path, ttl=0.2)) as feed:
        assert feed.is_off()
        victim.ask("acquire", "a", "on", 600)
        await eventually(feed.is_on, within=0.2 + SLACK)
        victim.ask("release", "a")
        await eventually(feed.is_off, within=0.2 + SLACK)
