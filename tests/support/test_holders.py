"""The programs that other tests kill and freeze."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .holders import Holder, Program


def test_missing_line_fails_and_lists_the_output() -> None:
    with Program("-c", "print('one'); print('two')") as program:
        program.expect("^two$")
        assert program.wait(5) == 0
        with pytest.raises(
            AssertionError,
            match=r"No line matched 'three' within 0.1 s; there were \['one', 'two'\]",
        ):
            program.expect("three", within=0.1)


def test_program_that_does_not_end_is_killed() -> None:
    with Program(
        "-c",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); "
        "signal.pause()",
    ) as program:
        program.expect("up")
        program.signal(signal.SIGINT)
    assert program.wait(10) == -signal.SIGKILL


def test_holder_takes_a_hold_and_prints_it(tmp_path: Path) -> None:
    with Holder(f"file:{tmp_path / 'm.json'}") as holder:
        assert not holder.lost
        holder.leave()
        holder.enter()
        assert "held" not in (tmp_path / "m.json.holds").read_text()
    assert holder.wait(10) == 0
    assert not (tmp_path / "m.json.holds").exists()
