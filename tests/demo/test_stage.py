from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fastapi_maintenance import demo
from fastapi_maintenance.demo import report, stage
from fastapi_maintenance.demo.crew import Crew
from fastapi_maintenance.demo.errors import DemoError
from fastapi_maintenance.demo.real import RealRedis

from ..waiting import eventually

pytestmark = pytest.mark.may_block


@pytest.fixture
def _on_stage(redis: RealRedis, crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own server and worker instead of processes."""

    @asynccontextmanager
    async def start_redis(home: Path) -> AsyncIterator[RealRedis]:
        assert home.is_dir()
        yield redis

    @asynccontextmanager
    async def start_crew(size: int, *, backend: str, home: Path) -> AsyncIterator[Crew]:
        assert (size, backend) == (1, redis.url)
        yield crew

    monkeypatch.setattr(stage, "_start_redis", start_redis)
    monkeypatch.setattr(stage, "start_crew", start_crew)


@pytest.mark.usefixtures("_on_stage")
async def test_a_check_that_is_passed_is_exit_code_0_and_its_tables_are_printed(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_GOOD", 1.0)
    out = io.StringIO()
    assert await stage.perform(1, check=True, out=out) == 0
    text = out.getvalue()
    assert f"The workers answer on {crew.url}; their process ids are {os.getpid()}." in text
    assert f"pid {os.getpid()}  tracking" in text
    assert "RENAME" in text
    assert text.splitlines()[-1].startswith("OK: ")


@pytest.mark.usefixtures("_on_stage")
async def test_a_check_that_was_slow_is_tried_again_before_it_is_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_GOOD", 0.0)
    monkeypatch.setattr(report, "_BAD", 0.0)
    monkeypatch.setattr(stage, "_ATTEMPTS", 2)
    monkeypatch.setattr(stage, "all_turns", lambda rounds: [])
    out = io.StringIO()
    assert await stage.perform(1, check=True, out=out) == 1
    assert out.getvalue().count("Once more.") == 1
    assert out.getvalue().splitlines()[-1].startswith("FAILED: ")


@pytest.mark.usefixtures("_on_stage")
async def test_without_check_it_says_how_to_flip_and_shows_the_workers_until_it_is_cancelled() -> None:
    out = io.StringIO()
    task = asyncio.create_task(stage.perform(1, check=False, out=out))
    await eventually(lambda: f"worker {os.getpid()} is open (200)" in out.getvalue(), within=20)
    assert "redis-cli -p" in out.getvalue()
    assert f"{sys.executable} -m fastapi_maintenance on --backend redis://" in out.getvalue()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_at_least_one_worker_is_needed() -> None:
    with pytest.raises(DemoError, match="at least one worker"):
        await stage.perform(0, check=True, out=io.StringIO())


async def test_without_a_redis_server_on_path_there_is_the_imitation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage._start_redis(tmp_path) as redis:
        assert redis.pushes
    monkeypatch.setenv("PATH", str(tmp_path))
    async with stage._start_redis(tmp_path) as redis:
        assert not redis.pushes


# -- run, which has the process for itself ---------------------------------------------------------------------------------


def test_what_goes_wrong_is_one_sentence_on_stderr_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.run(workers=0, check=True) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "The demo needs at least one worker: --workers 1.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(("check", "code"), [(False, 0), (True, 1)])
def test_a_signal_ends_it_in_order_and_a_second_one_does_not_interrupt_that(
    number: signal.Signals, check: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_down = []

    async def perform(workers: int, *, check: bool, out: io.TextIOBase) -> int:
        never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        os.kill(os.getpid(), number)
        try:
            return await never
        finally:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.05)
            taken_down.append(workers)

    monkeypatch.setattr(stage, "perform", perform)
    assert demo.run(workers=3, check=check) == code
    assert taken_down == [3]


def test_nohup_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    async def perform(workers: int, *, check: bool, out: io.TextIOBase) -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.05)
        return 7

    monkeypatch.setattr(stage, "perform", perform)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert demo.run(workers=1) == 7
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_reader_that_is_gone_ends_it_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def perform(workers: int, *, check: bool, out: io.TextIOBase) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(stage, "perform", perform)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert demo.run(workers=1) == 1
        out.write("nobody reads this")
    assert (tmp_path / "out").read_text() == ""
    assert capsys.readouterr().err == ""
