"""The harness that starts real worker processes, and ends them whatever they do."""

from __future__ import annotations

import signal

import pytest

from .holders import Program
from .ports import is_free
from .workers import Workers

APP = "tests.apps.bare:app"
STUBBORN = (
    "import signal; signal.signal(2, signal.SIG_IGN); print('up', flush=True); signal.pause()"
)


def test_killed_and_frozen_workers_are_replaced_and_ended() -> None:
    with Workers(APP, count=2) as workers:
        killed, other = workers.pids
        workers.kill(killed)
        workers.connect(within=20)
        assert {int(answer.text) for answer in workers.get_all("/pid").values()} == {*workers.pids}
        assert other in workers.pids
        assert killed not in workers.pids

        workers.pause(other)
        workers.stop()
        workers.stop()
    assert is_free(workers.port)  # every one of them listened on it


def test_import_error_is_reported_with_the_log() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)not running.*no_such_module"):
        Workers("no_such_module:app").__enter__()


def test_program_that_does_not_end_is_killed() -> None:
    with Program("-c", STUBBORN) as program:
        program.expect("^up$")
        with pytest.raises(AssertionError, match=r"No line matched 'more' .* there were \['up'\]"):
            program.expect("more", within=0.1)
        program.signal(signal.SIGINT)
    assert program.wait(10) == -signal.SIGKILL
