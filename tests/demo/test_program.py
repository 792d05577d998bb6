from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastapi_maintenance.demo import program
from fastapi_maintenance.demo.errors import DemoError
from fastapi_maintenance.demo.program import Program

from ..waiting import eventually

pytestmark = pytest.mark.may_block  # to start a program blocks for a moment


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that has ended but was not waited for by init does not count."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
    return listed != "" and not listed.startswith("Z")


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def test_a_program_runs_until_its_block_ends(tmp_path: Path) -> None:
    async with Program("sleeper", ["sleep", "60"], log=tmp_path / "log") as sleeper:
        pid = sleeper.pid
        sleeper.check()
        assert is_running(pid)
    assert not is_running(pid)


async def test_a_program_is_given_its_environment(tmp_path: Path) -> None:
    async with Program("env", ["/usr/bin/env"], log=tmp_path / "log", env={"WORD": "given"}):
        await eventually(lambda: (tmp_path / "log").read_text() == "WORD=given\n", within=10)


async def test_what_a_program_started_ends_with_it_even_if_both_ignore_being_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_PATIENCE", 0.1)
    stubborn = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.fork(), flush=True); time.sleep(60)"
    async with Program("stubborn", python(stubborn), log=tmp_path / "log") as parent:
        await eventually(lambda: len((tmp_path / "log").read_text().split()) == 2, within=10)  # the parent's line and the child's
        child = max(map(int, (tmp_path / "log").read_text().split()))
        assert is_running(child)
    assert not is_running(parent.pid)
    await eventually(lambda: not is_running(child), within=10)


async def test_a_program_that_ended_is_reported_with_its_last_words(tmp_path: Path) -> None:
    failing = "import sys; print('first'); print('no such luck'); print(); sys.exit(3)"
    async with Program("failing", python(failing), log=tmp_path / "log") as failed:
        failed._started.wait(10)
        with pytest.raises(DemoError, match=r"^failing ended with exit code 3. It last said: no such luck$"):
            failed.check()


async def test_a_program_that_ended_without_a_word_is_reported_too(tmp_path: Path) -> None:
    async with Program("silent", ["true"], log=tmp_path / "log") as silent:
        silent._started.wait(10)
        with pytest.raises(DemoError, match=r"^silent ended with exit code 0. It said nothing.$"):
            silent.check()


async def test_a_program_that_cannot_be_started_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"^missing cannot be started: .*No such file"):
        await Program("missing", [str(tmp_path / "missing")], log=tmp_path / "log").__aenter__()
