"""The programs that other tests kill and freeze."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .holders import Holder, Program


def test_a_line_that_never_comes_fails_and_says_which_came() -> None:
    with Program("-c", "print('one'); print('two')") as program:
        program.expect("^two$")
        assert program.wait(5) == 0
        with pytest.raises(
            AssertionError,
            match=r"No line matched 'three' within 0.1 s; there were \['one', 'two'\]",
        ):
            program.expect("three", within=0.1)


def test_one_that_does_not_end_is_ended() -> None:
    with Program(
        "-c",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); signal.pause()",
    ) as program:
        program.expect("up")
        program.signal(signal.SIGINT)
    assert program.wait(1) == -signal.SIGKILL


def test_a_holder_holds_and_says_so(tmp_path: Path) -> None:
    with Holder(f"file:{tmp_path / 'm.json'}") as holder:
        assert not holder.lost
        holder.leave()
        holder.enter()
        assert "held" not in (tmp_path / "m.json.holds").read_text()
    assert holder.wait(1) == 0
    assert not (tmp_path / "m.json.holds").exists()
