"""The demo as its user starts it: real processes, and nothing left of them."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from ..cli.program import Program
from ..waiting import eventually_sync
from .test_program import is_running

pytestmark = pytest.mark.timeout(300)  # seconds; each of these starts several processes, on a machine that may be busy

_LONG = 120.0


@contextmanager
def playing(*options: str, home: Path, path: str | None = None, terminal: bool = False) -> Iterator[Program]:
    """The running demo, whose temporary files are in `home`; ended in order, so that a failing test leaves nothing running."""
    env = {"TMPDIR": str(home)} | ({} if path is None else {"PATH": path})
    with Program("demo", *options, env=env, terminal=terminal) as program:
        try:
            yield program
        finally:
            program.signal(signal.SIGTERM)
            program.ended(within=_LONG)


def descendants(pid: int) -> set[int]:
    """All processes that this one started, and that those started."""
    lines = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.split("\n")
    parents = {int(child): int(parent) for child, parent in (line.split() for line in lines if line)}
    found, more = set[int](), {pid}
    while more:
        more = {child for child, parent in parents.items() if parent in more}
        found |= more
    return found


def assert_nothing_left(processes: set[int], home: Path) -> None:
    assert {pid for pid in processes if is_running(pid)} == set()
    assert list(home.iterdir()) == []


def port_of(program: Program) -> str:
    found = re.search(r"redis-server \S+ on port (\d+):", program.output)
    assert found is not None
    return found[1]


def answers(url: str, text: str) -> bool:
    """Whether a worker's answer has this in it."""
    try:
        with urlopen(url, timeout=20) as response:
            body: bytes = response.read()
    except HTTPError as refusal:
        body = refusal.read()
    return text in body.decode()


def redis_cli(port: str, *words: str) -> None:
    subprocess.run(["redis-cli", "-p", port, *words], check=True, capture_output=True, timeout=20)


def test_the_check_holds_four_workers_to_their_word_on_a_real_redis(tmp_path: Path) -> None:
    with playing("--check", "--workers", "4", home=tmp_path) as program:
        ran = program.ended(within=_LONG)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("redis-server ")
    assert len(set(re.findall(r"^pid (\d+)  tracking ", ran.out, re.MULTILINE))) == 4
    for turn in ("SET maintenance 1, DEL maintenance", "SET maintenance on EX 600", "RENAME", "EVAL, a Lua script", "MULTI … EXEC"):
        assert re.search(rf"^{turn}.* ms  .* ms", ran.out, re.MULTILINE)
    assert ran.lines[-1].startswith("OK")
    assert list(tmp_path.iterdir()) == []


def test_without_a_redis_server_the_check_holds_them_to_messages_and_polling_and_says_so(tmp_path: Path) -> None:
    with playing("--check", "--workers", "2", home=tmp_path, path="/nowhere") as program:
        ran = program.ended(within=_LONG)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("fakeredis, an imitation of Redis,")
    assert len(set(re.findall(r"^pid (\d+)   message ", ran.out, re.MULTILINE))) == 2
    assert ran.lines[-1].endswith("by messages and polling alone.")
    assert list(tmp_path.iterdir()) == []


def test_in_a_pipe_every_flip_is_a_line_and_the_printed_commands_work_until_sigterm_ends_everything(tmp_path: Path) -> None:
    with playing("--workers", "2", home=tmp_path) as program:
        program.until("is open (200)", times=2, within=_LONG)
        redis_cli(port_of(program), "SET", "maintenance", "1")
        program.until("is closed (503), ", times=2)
        program.until("ms after SET maintenance 1", times=2)
        redis_cli(port_of(program), "DEL", "maintenance")
        program.until("ms after DEL maintenance", times=2)
        for word, answer in (("on", "Back soon"), ("off", "The service is open.")):
            (command,) = re.findall(rf"^  (.* -m fastapi_maintenance {word} .*)$", program.output, re.MULTILINE)
            subprocess.run(shlex.split(command), check=True, capture_output=True, timeout=60)
            (url,) = re.findall(r"curl -i (\S+)", program.output)
            eventually_sync(partial(answers, url, answer), within=10)

        processes = descendants(program._process.pid)
        assert len(processes) >= 4, "Redis, uvicorn and two workers"
        program.signal(signal.SIGTERM)
        ran = program.ended(within=_LONG)
        assert (ran.code, ran.err) == (0, "")
        assert_nothing_left(processes, tmp_path)


def test_on_a_terminal_there_is_a_table_until_ctrl_c_ends_everything(tmp_path: Path) -> None:
    with playing("--workers", "2", home=tmp_path, terminal=True) as program:
        program.until("200 open", times=2, within=_LONG)
        program.until("tracking")
        redis_cli(port_of(program), "SET", "maintenance", "1")
        program.until("503 closed")
        program.until("ms after SET maintenance 1")

        processes = descendants(program._process.pid)
        program.type("\x03")
        assert program.ended(within=_LONG).code == 0
        assert "Traceback" not in program.output
        assert_nothing_left(processes, tmp_path)


def test_a_signal_while_the_workers_start_leaves_nothing_either(tmp_path: Path) -> None:
    with playing("--check", home=tmp_path) as program:
        program.until("redis-server ")
        processes = eventually_sync(lambda: len(found := descendants(program._process.pid)) > 2 and found, within=_LONG)
        assert processes
        program.signal(signal.SIGINT)
        ran = program.ended(within=_LONG)
        assert (ran.code, ran.err) == (1, "")
        assert_nothing_left(processes, tmp_path)


def test_a_redis_server_that_fails_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    programs, home = tmp_path / "bin", tmp_path / "home"
    programs.mkdir()
    home.mkdir()
    broken = programs / "redis-server"
    broken.write_text("#!/bin/sh\necho 'Fatal: bad luck'\nexit 1\n")
    broken.chmod(0o755)
    with playing("--check", home=home, path=str(programs)) as program:
        ran = program.ended(within=_LONG)
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err == "redis-server ended with exit code 1. It last said: Fatal: bad luck\n"
    assert list(home.iterdir()) == []
