"""The demo: what its check promises, what it shows, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import httpx2
import pytest
from rich.console import Console
from starlette.testclient import TestClient

from fastapi_maintenance.cli import demo
from fastapi_maintenance.model.workers import Worker

from ..support.waiting import eventually_sync
from .conftest import Cli
from .program import Program

# Each starts several processes, on a machine that may be busy.
pytestmark = [pytest.mark.may_block, pytest.mark.timeout(300)]

_LONG = 120.0


@contextmanager
def playing(
    *options: str, home: Path, path: str | None = None, terminal: bool = False
) -> Iterator[Program]:
    """The running demo, whose temporary files are in `home`; ended in order, so that a failing test
    leaves nothing running.
    """
    env = {"TMPDIR": str(home)} | ({} if path is None else {"PATH": path})
    with Program("demo", *options, env=env, terminal=terminal) as program:
        try:
            yield program
        finally:
            program.signal(signal.SIGTERM)
            program.ended(within=_LONG)


def descendants(pid: int) -> set[int]:
    """All processes that this one started, and that those started."""
    lines = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    parents = {
        int(child): int(parent) for child, parent in (line.split() for line in lines if line)
    }
    found, more = set[int](), {pid}
    while more:
        more = {child for child, parent in parents.items() if parent in more}
        found |= more
    return found


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie, for which init has not waited."""
    ps = ["ps", "-o", "stat=", "-p", str(pid)]
    listed = subprocess.run(ps, capture_output=True, text=True, check=False).stdout.strip()
    return listed != "" and not listed.startswith("Z")


def assert_nothing_left(processes: set[int], home: Path) -> None:
    assert {pid for pid in processes if is_running(pid)} == set()
    assert list(home.iterdir()) == []


def port_of(program: Program) -> str:
    found = re.search(r"redis-server on port (\d+):", program.output)
    assert found is not None
    return found[1]


def redis_cli(port: str, *words: str) -> None:
    subprocess.run(["redis-cli", "-p", port, *words], check=True, capture_output=True, timeout=20)


# -- as its user starts it -------------------------------------------------------------------------


def test_in_a_pipe_each_flip_is_a_line_until_sigterm(tmp_path: Path) -> None:
    with playing("--workers", "2", home=tmp_path) as program:
        program.until("maintenance is off", within=_LONG)
        redis_cli(port_of(program), "SET", "maintenance", "1")
        program.until("is closed (503), ", times=2)
        program.until("ms after SET maintenance 1", times=2)
        redis_cli(port_of(program), "DEL", "maintenance")
        program.until("ms after DEL maintenance", times=2)
        for word, answer in (("on", "Back soon"), ("off", "The service is open.")):
            (command,) = re.findall(
                rf"^  (.* -m fastapi_maintenance {word} .*)$", program.output, re.MULTILINE
            )
            subprocess.run(shlex.split(command), check=True, capture_output=True, timeout=60)
            (url,) = re.findall(r"curl -i (\S+)", program.output)
            ask = partial(httpx2.get, url, timeout=20, trust_env=False)
            eventually_sync(lambda answer=answer, ask=ask: answer in ask().text, within=30)  # type: ignore[misc]

        processes = descendants(program._process.pid)
        assert len(processes) >= 4, "Redis, uvicorn and two workers"
        program.signal(signal.SIGTERM)
        ran = program.ended(within=_LONG)
        assert (ran.code, ran.err) == (0, "")
        assert_nothing_left(processes, tmp_path)


def test_on_a_terminal_there_is_a_table_until_ctrl_c(tmp_path: Path) -> None:
    with playing("--workers", "2", home=tmp_path, terminal=True) as program:
        program.until("tracking", times=2, within=_LONG)
        redis_cli(port_of(program), "SET", "maintenance", "1")
        program.until("drained", times=2)
        program.until("ms after SET maintenance 1", times=2)

        processes = descendants(program._process.pid)
        program.type("\x03")
        assert program.ended(within=_LONG).code == 0
        assert "Traceback" not in program.output
        assert_nothing_left(processes, tmp_path)


def test_a_signal_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    with playing("--check", home=tmp_path) as program:
        program.until("redis-server ")
        processes = eventually_sync(
            lambda: len(found := descendants(program._process.pid)) > 2 and found, within=_LONG
        )
        assert processes
        program.signal(signal.SIGINT)
        ran = program.ended(within=_LONG)
        assert (ran.code, ran.err) == (1, "")
        assert_nothing_left(processes, tmp_path)


# -- in this process, where its lines are counted --------------------------------------------------


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Undo what the demo does to the handlers of signals."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_check_on_redis_measures_every_way_of_flipping(capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.run(3, check=True) == 0
    out = capfd.readouterr().out
    assert out.startswith("redis-server on port ")
    assert len(set(re.findall(r"^worker (\d+), tracking ", out, re.MULTILINE))) == 3
    for turn in demo._TURNS:
        assert re.search(rf"^{re.escape(turn)}(  +[\d.]+){{5}}$", out, re.MULTILINE)
    assert out.splitlines()[-1].startswith("OK")
    assert list(Path(tempfile.gettempdir()).glob("fastapi-maintenance-demo-*")) == []


def test_check_without_redis_runs_on_the_imitation(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert demo.run(1, check=True) == 0
    out = capfd.readouterr().out
    assert out.startswith("fakeredis on port ")
    assert re.search(r"^worker \d+, message ", out, re.MULTILINE)
    assert out.endswith("by messages and polling alone.\n")


def test_valkey_is_taken_where_redis_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    valkey = tmp_path / "valkey-server"
    valkey.symlink_to(shutil.which("redis-server") or "")
    monkeypatch.setattr(shutil, "which", lambda name: str(valkey) if name == valkey.name else None)
    with demo._redis(tmp_path) as redis:
        assert redis.client.ping()
        assert (tmp_path / "valkey-server.log").exists()
        assert redis.cli == "valkey-cli"


@pytest.mark.parametrize(
    ("limit", "code", "verdict"), [(1.0, 0, "OK, but slow: "), (0.0, 1, "FAILED: every worker")]
)
def test_check_on_a_slow_machine_is_repeated(
    limit: float,
    code: int,
    verdict: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = demo._Sample(1, "SET 1, DEL", 0.5, 0.6, "")
    monkeypatch.setattr(demo, "_BAD_MEDIAN", limit)
    monkeypatch.setattr(demo, "_flips", lambda redis, workers: [sample])
    monkeypatch.setattr(demo, "registered_workers", none_registered)
    assert demo._check(PUSHING, nobody()) == code
    out = capfd.readouterr().out
    assert out.count("this machine is busy") == 3
    assert out.splitlines()[-1].startswith(verdict)


@pytest.mark.parametrize("found", [True, False])
async def test_view_on_a_terminal_draws_the_workers(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], found: bool
) -> None:
    async def look(backend: object) -> tuple[str, list[Worker]]:
        return "maintenance is off", [Worker("a", pid=4711)]

    console = Console(force_terminal=True, width=100)
    monkeypatch.setattr(demo, "stdout_closed", Mock(side_effect=[False, True]))
    monkeypatch.setattr(demo, "terminal", lambda: console)
    if found:
        monkeypatch.setattr(demo, "_look", look)
    assert await demo._show(PUSHING._replace(pushes=False), nobody()) == 0
    out = capfd.readouterr().out
    assert ("maintenance is off" if found else "the workers keep their state") in out
    assert ("4711" if found else "delivery") in out


def test_a_change_long_after_a_write_is_not_its_effect() -> None:
    change = demo._Change(7, closed=False, at=time.monotonic())
    assert demo._line(change, (time.time() - 60, "SET maintenance 1")).endswith(
        "worker 7 is open (200)"
    )


async def none_registered(url: str) -> tuple[()]:
    return ()


PUSHING: Any = demo._Redis(0, "redis://127.0.0.1:1", None, pushes=True)  # type: ignore[arg-type]


def nobody() -> Any:
    return demo._Workers(1, 1, Mock())


def test_a_worker_that_answers_wrong_fails_the_check(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_TIMEOUT", 0.3)
    monkeypatch.setattr(demo, "_flip", lambda redis, commands: time.monotonic())
    monkeypatch.setattr(demo, "registered_workers", none_registered)
    monkeypatch.setattr(
        demo, "_get", lambda connection, path: (SimpleNamespace(status=404, headers=Message()), "?")
    )
    workers = nobody()
    workers.connections[7] = object()
    assert demo._check(PUSHING, workers) == 1
    last = capfd.readouterr().out.splitlines()[-1]
    assert "SET 1, DEL, on: worker 7 answers (404, '?', None, False) instead of (503, " in last
    assert (
        "did not call on_change; answers /health with 404 instead of 200; answers /reports" in last
    )


def test_the_view_shows_the_switch_and_each_change(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps = iter(
        [
            ("SET", "maintenance", "1"),
            ("SET", "maintenance", "nonsense"),
            ("SHUTDOWN", "NOSAVE"),
            None,
        ]
    )

    def is_over() -> bool:
        if (step := next(steps)) is not None:
            with suppress(RuntimeError, subprocess.SubprocessError):
                time.sleep(1.0)
                redis_cli(str(redis.port), *step)
        return step is None

    monkeypatch.setattr(demo, "stdout_closed", is_over)
    with demo._redis(tmp_path) as redis, demo._uvicorn(1, redis, tmp_path) as workers:
        assert asyncio.run(demo._show(redis, workers)) == 0
    out = capfd.readouterr().out
    assert re.search(
        r"worker \d+ is closed \(503\), [\d.]+ ms after SET maintenance 1$", out, re.MULTILINE
    )
    assert "maintenance is unknown: 'nonsense'" in out
    assert "the workers keep their state: " in out


@pytest.mark.parametrize("missing", ["fakeredis", "lupa", "uvicorn"])
def test_a_missing_requirement_is_an_error(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == missing else object())
    if missing != "uvicorn":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(demo.DemoError, match=r"pip install 'fastapi-maintenance-cluster\[demo\]'"):
        demo.run(1, check=True)


def test_a_server_that_ends_is_an_error_with_its_last_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cli: Cli
) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho 'Fatal: bad luck'\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(broken))
    ran = cli("demo", "--check")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "redis-server ended with exit code 1. It last said: Fatal: bad luck\n"


def test_a_program_that_never_is_ready_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "_START_TIMEOUT", 0.0)
    not_ready = pytest.raises(demo.DemoError, match="sleep is not ready after 0 s")
    with demo._program("sleep", "sleep", "60", home=tmp_path) as program, not_ready:
        program.wait_until(bool)


def test_a_program_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_redis", Mock(side_effect=ConnectionError("gone")))
    with pytest.raises(demo.DemoError, match="A program of the demo does not answer: gone"):
        demo.run(1, check=True)


@pytest.mark.parametrize("check", [False, True])
def test_a_signal_ends_the_demo_and_the_next_is_ignored(
    check: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def redis(home: Path) -> Iterator[None]:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            yield
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    monkeypatch.setattr(demo, "_redis", redis)
    with pytest.raises(SystemExit) as ended:
        demo.run(1, check=check)
    assert ended.value.code == int(check)


def test_the_application_has_all_three_kinds_of_routes(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(demo.make_app()) as client:
        paths = ("/", "/health", "/reports", "/nowhere")
        assert [client.get(path).status_code for path in paths] == [200, 200, 503, 404]
        monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
        assert [client.get(path).status_code for path in paths] == [503, 200, 503, 404]
        eventually_sync(lambda: f"[{os.getpid()}, true, " in capfd.readouterr().out, within=30)
