from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from rich.console import Console

from fastapi_maintenance import MaintenanceModeMiddleware
from fastapi_maintenance.backends import RedisBackend, backend_from_url
from fastapi_maintenance.cli import run as running
from fastapi_maintenance.coordination.context import MaintenanceContext
from fastapi_maintenance.model.holds import Hold

from ..conftest import RedisServerFactory
from ..support import registering
from ..support.commands import Ran
from ..support.servers import RedisServer
from ..support.serving import serving
from ..support.waiting import eventually_sync
from . import program
from .conftest import Cli
from .program import Program

HOLDS = "{maintenance}:holds"


@pytest.fixture
def held(cli: Cli, redis_url: str, redis_server: RedisServer) -> Cli:
    """Runs a command on the shared server, where a worker has drained: options, two dashes, the
    command.
    """
    registering.register(redis_server, "ready", epoch=2**52, closed=True, drained=True)
    return lambda *arguments: cli("run", "--backend", redis_url, *arguments)


@pytest.fixture(autouse=True)
def _nobody_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether these tests are started from a terminal makes no difference."""
    monkeypatch.setattr(running, "_in_foreground", lambda: False)


def said(ran: Ran, code: int, *texts: str) -> None:
    """It ended so, and complained of each of these once."""
    # A function, because coverage's tracer loses the rest of the caller when an exception has ended
    # an `await` in `__aexit__`.
    assert ran.code == code
    assert [ran.err.count(text) for text in texts] == [1] * len(texts), ran.err


def register(server: RedisServer, *, vanished: bool = False, **report: Any) -> None:
    """Write what a worker would write of itself, or what is left of one that vanished."""
    known: dict[str, Any] = (
        {"pid": 4711, "host": "web-1"} | ({"lifetime": 3.0} if vanished else {}) | report
    )
    registering.register(server, "a", reports=not vanished, **known)


def holds(server: RedisServer) -> str:
    return server.cli("HLEN", HOLDS)


def is_untouched(server: RedisServer) -> bool:
    """Whether nothing was ever closed."""
    return server.cli("EXISTS", "{maintenance}:epoch", "maintenance") == "0"


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread, and fail with it."""
    with ThreadPoolExecutor(1) as thread:
        acting = thread.submit(act)
        yield
        acting.result()


def after_hold(server: RedisServer, act: Callable[[], object]) -> Callable[[], None]:
    def wait_and_act() -> None:
        eventually_sync(lambda: holds(server) == "1", within=30, every=0.02)
        act()

    return wait_and_act


def after_file(path: Path, act: Callable[[], object]) -> Callable[[], None]:
    def wait_and_act() -> None:
        eventually_sync(path.exists, within=30, every=0.02)
        act()

    return wait_and_act


# -- the hold and the command ----------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--drain", "0"]])
def test_run_holds_the_service_closed_until_its_command_ends(
    held: Cli, redis_server: RedisServer, tmp_path: Path, options: list[str]
) -> None:
    look = f"redis-cli -p {redis_server.port} HVALS {HOLDS} > {tmp_path}/seen"
    ran = held(*options, "--reason", "OPS-417", "--message", "Back soon", "--", "sh", "-c", look)
    assert (ran.code, ran.out) == (0, "")
    seen = (tmp_path / "seen").read_text()
    state = json.loads(seen[seen.index("{") :])["state"]
    assert (state["enabled"], state["reason"], state["message"]) == (True, "OPS-417", "Back soon")
    assert (holds(redis_server), redis_server.cli("EXISTS", "maintenance")) == ("0", "0")


def test_what_is_allowed_passes_while_the_command_runs(
    held: Cli, redis_url: str, tmp_path: Path
) -> None:
    """Asked of a real server, by the command."""
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=redis_url)
    app.add_api_route("/login", lambda: None, methods=["POST", "GET"])
    app.add_api_route("/orders", lambda: None)
    asking = """
import sys, httpx2
for method, path in ("POST", "/login"), ("GET", "/login"), ("GET", "/orders"):
    status = httpx2.request(method, sys.argv[1] + path, trust_env=False).status_code
    print(status, file=open(sys.argv[2], "a"))
"""
    with serving(app) as address:
        allowing = ("--allow", "POST /login", "--allow", "10.1.0.0/16")
        ran = held(
            "--drain",
            "0",
            *allowing,
            "--",
            sys.executable,
            "-c",
            asking,
            f"http://{address}",
            str(tmp_path / "seen"),
        )
    assert ran.code == 0
    assert (tmp_path / "seen").read_text().split() == ["200", "503", "503"]


def test_nothing_is_held_where_nothing_would_be_allowed(
    held: Cli, redis_server: RedisServer
) -> None:
    ran = held("--allow", "login", "--", "true")
    assert ran.code == 2
    assert "'--allow': Invalid allow entry 'login'" in ran.err
    assert is_untouched(redis_server)


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_the_exit_code_is_the_commands_own(
    held: Cli, redis_server: RedisServer, script: str, code: int
) -> None:
    assert held("--", "sh", "-c", script).code == code
    assert holds(redis_server) == "0"


@pytest.mark.parametrize("dashes", [["--"], []])
def test_option_after_the_command_of_run_is_passed_to_it(
    held: Cli, tmp_path: Path, dashes: list[str]
) -> None:
    arguments = ["--reason", "theirs", "--drain=soon", "--help", "--", "-x"]
    ran = held(
        "--drain",
        "0",
        *dashes,
        "sh",
        "-c",
        f'printf "%s\\n" "$@" > {tmp_path}/got',
        "sh",
        *arguments,
    )
    assert ran.code == 0, ran.err
    assert (tmp_path / "got").read_text().splitlines() == arguments


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--drain", "soon", "--", "true"], "'--drain': must be a length like 90"),
        (["--drain", "-1", "--", "true"], "'--drain': must be a length like 90"),
        (
            ["--lease", "0", "--", "true"],
            "'--lease': must be between a second and a century, got '0'",
        ),
        (["--on-error", "ignore", "--", "true"], "--on-error"),
        (["--on-lost", "ignore", "--", "true"], "--on-lost"),
        (["--reason", "x" * 70000, "--", "true"], "bytes long"),
        (["--"], "COMMAND"),
    ],
)
def test_wrong_usage_closes_nothing(
    held: Cli, redis_server: RedisServer, arguments: list[str], complaint: str
) -> None:
    ran = held(*arguments)
    assert ran.code in (1, 2)
    assert complaint in ran.err
    assert is_untouched(redis_server)


@pytest.mark.parametrize(
    ("name", "code"),
    [("no-such-command", 127), ("plain", 127), ("./missing", 127), ("./plain", 126), ("./", 126)],
)
def test_a_command_that_cannot_be_run_closes_nothing(
    held: Cli,
    redis_server: RedisServer,
    name: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain").write_text("echo\n")
    ran = held("--", name)
    assert ran.code == code
    assert (
        ran.err == f"Cannot run {name}: "
        f"{'it is not executable' if code == 126 else 'there is no such command'}.\n"
    )
    assert is_untouched(redis_server)


@pytest.mark.parametrize("text", ["#!/no/such/interpreter\n", "neither a script nor a program"])
def test_a_command_that_only_looks_runnable_lets_go(
    held: Cli, redis_server: RedisServer, tmp_path: Path, text: str
) -> None:
    script = tmp_path / "script"
    script.write_text(text)
    script.chmod(0o700)
    ran = held("--", str(script))
    assert ran.code == 126
    assert f"Cannot run {script}: " in ran.err
    assert holds(redis_server) == "0"


# -- the barrier -----------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["release", "keep"])
def test_run_with_an_undrained_worker_names_it_and_runs_nothing(
    held: Cli, redis_server: RedisServer, tmp_path: Path, on_error: str
) -> None:
    register(redis_server, epoch=2**52, closed=True, http=2)
    ran = held(
        "--drain",
        "3s",
        "--on-error",
        on_error,
        "--reason",
        "OPS-417",
        "--",
        "touch",
        f"{tmp_path}/ran",
    )
    assert (ran.code, ran.out) == (3, "")
    *progress, verdict = ran.err.splitlines()
    assert progress[0].endswith(
        "s: maintenance on; 1 drained, 1 applied; waiting for 4711@web-1 (2 requests)"
    )
    assert verdict.endswith("still waited for: 4711@web-1 (2 requests). The command was not run.")
    assert not (tmp_path / "ran").exists()
    assert holds(redis_server) == "0"
    assert ("OPS-417: DrainTimeout" in redis_server.cli("GET", "maintenance")) is (
        on_error == "keep"
    )


def test_with_drain_0_nobody_is_waited_for(held: Cli, redis_server: RedisServer) -> None:
    register(redis_server, http=2)
    ran = held("--drain", "0s", "--", "true")
    assert (ran.code, ran.err) == (0, "")


def test_run_with_an_unfenced_worker_fails_unless_allowed(
    held: Cli, redis_server: RedisServer, tmp_path: Path
) -> None:
    register(redis_server, vanished=True)
    command = ["--", "touch", f"{tmp_path}/ran"]
    ran = held(*command)
    assert ran.code == 4
    assert "vanished and may still be serving: 4711@web-1" in ran.err
    assert ran.err.endswith("The command was not run.\n")
    assert not (tmp_path / "ran").exists()
    assert holds(redis_server) == "0"
    assert held("--allow-unfenced", *command).code == 0
    assert (tmp_path / "ran").exists()


def test_run_on_a_file_is_refused_unless_it_waits_for_none(cli: Cli, tmp_path: Path) -> None:
    url = f"file:{tmp_path}/switch.json"
    ran = cli("run", "--backend", url, "--", "touch", f"{tmp_path}/ran")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert ran.err.startswith(f"{url} has no registry of workers to wait for")
    assert list(tmp_path.iterdir()) == []
    look = (
        f"{shlex.quote(sys.executable)} -m fastapi_maintenance status --backend {url} > "
        f"{tmp_path}/seen"
    )
    assert cli("run", "--drain", "0", "--backend", url, "--", "sh", "-c", look).code == 0
    assert (tmp_path / "seen").read_text().startswith("maintenance: on")


@pytest.mark.parametrize("drain", ["0", "30s"])
def test_run_on_an_environment_variable_is_refused(cli: Cli, drain: str, tmp_path: Path) -> None:
    ran = cli("run", "--drain", drain, "--", "touch", f"{tmp_path}/ran")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert ran.err.startswith("env:FASTAPI_MAINTENANCE_MODE is read by each process for itself, ")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_run_draws_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    is_terminal: bool,
) -> None:
    consoles: list[Console | None] = []

    def note(console: Console | None, tell: object) -> AbstractContextManager[None]:
        consoles.append(console)
        return nullcontext()

    monkeypatch.setattr(running, "wait_display", note)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    backend = backend_from_url(f"file:{tmp_path}/switch.json")

    options: dict[str, Any] = {"drain": 0.0, "allow": None, "on_lost": "warn"}
    code = running.run(backend, ["true"], allow_unfenced=False, **options)

    assert code == 0
    assert [console is not None for console in consoles] == [is_terminal]


# -- failing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "kept"), [("exit 3", True), ("kill -TERM $$", True), ("exit 0", False)]
)
def test_a_failed_command_leaves_the_service_closed_if_asked(
    held: Cli, redis_server: RedisServer, script: str, kept: bool
) -> None:
    ran = held("--on-error", "keep", "--reason", "OPS-417", "--", "sh", "-c", script)
    switch = redis_server.cli("GET", "maintenance")
    assert bool(switch) is kept
    assert (f"OPS-417: CommandFailed: sh exited with {ran.code}" in switch) is kept
    assert holds(redis_server) == "0"


def test_a_failed_command_opens_the_service_again_unless_asked(
    held: Cli, redis_server: RedisServer
) -> None:
    assert held("--", "false").code == 1
    assert redis_server.cli("EXISTS", "maintenance", HOLDS) == "0"


def test_with_redis_down_nothing_is_run(cli: Cli, free_port: int, tmp_path: Path) -> None:
    ran = cli(
        "run", "--backend", f"redis://127.0.0.1:{free_port}", "--", "touch", f"{tmp_path}/ran"
    )
    assert ran.code == 1
    assert "cannot be reached" in ran.err
    assert ran.err.endswith(". The command was not run.\n")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("on_error", "end"),
    [
        ("release", "; it expires within 40 s.\n"),
        (
            "keep",
            "; it expires within 40 s, and the switch was NOT kept on: turn it on by hand.\n",
        ),
    ],
)
def test_run_with_redis_away_at_its_end_keeps_the_exit_code(
    cli: Cli, own_redis_server: RedisServerFactory, on_error: str, end: str
) -> None:
    server = own_redis_server()
    script = f"kill -KILL {server.pid}; exit 7"
    options = ["--backend", server.url, "--lease", "40s", "--on-error", on_error, "--drain", "0"]
    said(cli("run", *options, "--", "sh", "-c", script), 7, "The hold could not be released", end)


# -- a hold that is lost ---------------------------------------------------------------------------


def force_open(url: str) -> Callable[[], None]:
    return lambda: asyncio.run(backend_from_url(url).clear())


def lose(held: Cli, url: str, started: Path, script: str, *options: str) -> Ran:
    """Run a script in which all holds are ended by force once it has begun and before
    it goes on.
    """
    opened = started.with_name("opened")

    def open_and_say_so() -> None:
        force_open(url)()
        opened.touch()

    with meanwhile(after_file(started, open_and_say_so)):
        return held(
            "--lease",
            "4",
            *options,
            "--",
            "sh",
            "-c",
            f"touch {started}; until [ -e {opened} ]; do sleep 0.05; done; {script}",
        )


@pytest.mark.parametrize(("status", "code"), [(0, 5), (3, 3)])
def test_lost_hold_is_printed_once_and_the_command_runs_on(
    held: Cli, redis_url: str, redis_server: RedisServer, tmp_path: Path, status: int, code: int
) -> None:
    script = f"sleep 3; touch {tmp_path}/ended; exit {status}"
    ran = lose(held, redis_url, tmp_path / "started", script, "--on-error", "keep", "--drain", "0")
    assert ran.code == code
    assert (tmp_path / "ended").exists()
    first, second = ran.err.splitlines()
    assert first.startswith("The hold ")
    assert first.endswith(" was lost: an operator ended it by force.")
    assert second == "The service may be OPEN while the command runs!"
    assert redis_server.cli("EXISTS", "maintenance", HOLDS) == "0", (
        "who opened by force is not overruled"
    )


def test_lost_hold_with_loggers_disabled_is_printed(
    held: Cli, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `logging.config.fileConfig` disables those that exist already, which Alembic calls."""
    monkeypatch.setattr(logging.getLogger("fastapi_maintenance"), "disabled", True)
    ran = lose(held, redis_url, tmp_path / "started", "sleep 3", "--drain", "0")
    said(ran, 5, "an operator ended it by force", "The service may be OPEN")


def test_failed_release_is_printed_with_the_commands_code(
    cli: Cli, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself is left out: after its exception, coverage sees nothing of the caller."""

    async def run_command(block: MaintenanceContext, *_: object, kill: bool) -> int:
        block.release_error = "The hold stands"
        return 7

    monkeypatch.setattr(running, "run_command", run_command)
    said(cli("run", "--backend", redis_url, "--", "true"), 7, "The hold stands.\n")


def test_failed_release_with_loggers_disabled_is_printed(
    cli: Cli, own_redis_server: RedisServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own_redis_server()
    monkeypatch.setattr(logging.getLogger("fastapi_maintenance"), "disabled", True)
    ran = cli(
        "run", "--backend", server.url, "--drain", "0", "--", "kill", "-KILL", str(server.pid)
    )
    said(ran, 0, "The hold could not be released")


def test_hold_lost_just_before_the_end_is_printed(held: Cli, redis_url: str) -> None:
    """So that no renewal comes between, and the block finds out when it lets go."""
    force = (
        "-c",
        (
            "import asyncio; from fastapi_maintenance.backends import RedisBackend as B; "
            f"asyncio.run(B({redis_url!r}).clear())"
        ),
    )
    said(held("--drain", "0", "--", sys.executable, *force), 5, "an operator ended it by force")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exec sleep 30", 143),
        ("trap '' TERM; exec sleep 30", 137),
        ("trap 'kill $!; exit 0' TERM; sleep 30 & wait", 5),
        ("trap 'kill $!; exit 9' TERM; sleep 30 & wait", 9),
    ],
)
def test_a_hold_that_is_lost_ends_the_command_if_asked(
    held: Cli,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    code: int,
) -> None:
    """By SIGTERM, and by SIGKILL if that is ignored."""
    monkeypatch.setattr(running, "_KILL_TIMEOUT", 4.0)
    began = time.monotonic()
    ran = lose(held, redis_url, tmp_path / "started", script, "--on-lost", "kill", "--drain", "0")
    assert ran.code == code
    assert ran.err.endswith("Ending the command, because of --on-lost kill.\n")
    assert time.monotonic() - began < 25


def test_a_redis_that_is_cut_off_while_the_command_runs_is_told(
    cli: Cli, own_redis_server: RedisServerFactory, tmp_path: Path
) -> None:
    server = own_redis_server()
    options = ["--backend", f"{server.url}?timeout=1.5", "--lease", "3", "--drain", "0"]
    script = f"touch {tmp_path}/started; sleep 5"
    with meanwhile(after_file(tmp_path / "started", server.pause)):
        said(
            cli("run", *options, "--", "sh", "-c", script),
            5,
            "was lost: it could not be renewed in time",
            "The service may be OPEN",
        )


def test_hold_lost_while_waiting_runs_no_command(
    held: Cli,
    redis_url: str,
    redis_server: RedisServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    register(redis_server)

    def lose_and_drain() -> None:
        force_open(redis_url)()
        eventually_sync(lambda: "lost the hold" in caplog.text, within=30)
        register(redis_server, epoch=2**52, closed=True, drained=True)

    with meanwhile(after_hold(redis_server, lose_and_drain)):
        ran = held("--lease", "4", "--", "touch", f"{tmp_path}/ran")
    assert ran.code == 1
    assert ran.err.endswith(": an operator ended it by force. The command was not run.\n")
    assert not (tmp_path / "ran").exists()


# -- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"])
def test_signals_are_passed_on(held: Cli, redis_server: RedisServer, name: str) -> None:
    script = f"trap 'kill $!; exit 42' {name}; sleep 20 & kill -{name} $PPID; wait"
    assert held("--drain", "0", "--", "sh", "-c", script).code == 42
    assert holds(redis_server) == "0"


def test_signal_typed_on_a_terminal_is_not_forwarded(
    held: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_in_foreground", lambda: True)
    script = "trap 'exit 42' INT QUIT; kill -INT $PPID; kill -QUIT $PPID; sleep 0.5; exit 9"
    assert held("--drain", "0", "--", "sh", "-c", script).code == 9
    assert held("--drain", "0", "--", "sh", "-c", "kill -TERM $PPID; exec sleep 20").code == 143


@pytest.mark.parametrize(("name", "code"), [("INT", 9), ("TERM", 42)])
def test_signal_while_the_command_starts_reaches_it_once(
    held: Cli, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    """What is typed on a terminal has reached it already."""
    start = asyncio.create_subprocess_exec

    async def start_slowly(*command: str) -> asyncio.subprocess.Process:
        process = await start(*command)
        await asyncio.sleep(0.5)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_slowly)
    monkeypatch.setattr(running, "_in_foreground", lambda: True)
    script = f"trap 'exit 42' {name}; kill -{name} $PPID; sleep 1.5; exit 9"
    assert held("--drain", "0", "--", "sh", "-c", script).code == code


def test_a_command_that_ignores_a_signal_is_waited_for(
    held: Cli, redis_server: RedisServer, tmp_path: Path
) -> None:
    look = f"redis-cli -p {redis_server.port} HLEN {HOLDS} > {tmp_path}/seen"
    assert (
        held(
            "--drain", "0", "--", "sh", "-c", f"trap '' TERM; kill -TERM $PPID; sleep 0.3; {look}"
        ).code
        == 0
    )
    assert (tmp_path / "seen").read_text() == "1\n"


def test_signal_ignored_from_the_start_stays_ignored(held: Cli) -> None:
    """As under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert (
            held(
                "--drain", "0", "--", "sh", "-c", "kill -HUP $PPID; kill -HUP $$; sleep 0.2; exit 9"
            ).code
            == 9
        )
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("on_error", ["release", "keep"])
def test_a_signal_during_the_wait_cancels_the_command(
    held: Cli, redis_server: RedisServer, tmp_path: Path, number: signal.Signals, on_error: str
) -> None:
    register(redis_server)
    with meanwhile(after_hold(redis_server, lambda: os.kill(os.getpid(), number))):
        ran = held("--on-error", on_error, "--", "touch", f"{tmp_path}/ran")
    assert ran.code == 130
    assert ran.err.splitlines()[-1] == f"The command was not run: interrupted by {number.name}."
    assert not (tmp_path / "ran").exists()
    assert holds(redis_server) == "0"
    assert bool(redis_server.cli("GET", "maintenance")) is (on_error == "keep")


@pytest.mark.parametrize("drain", ["0", "30s"])
def test_signal_while_a_hold_is_taken_leaves_no_hold(
    held: Cli,
    redis_server: RedisServer,
    tmp_path: Path,
    drain: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    acquire = RedisBackend.acquire

    async def interrupted(self: RedisBackend, hold: Hold, lease: float) -> Hold:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2)
        return await acquire(self, hold, lease)

    monkeypatch.setattr(RedisBackend, "acquire", interrupted)
    register(redis_server)
    began = time.monotonic()
    assert held("--drain", drain, "--", "touch", f"{tmp_path}/ran").code == 130
    assert time.monotonic() - began < 15, "there is nothing to wait for any more"
    assert not (tmp_path / "ran").exists()
    assert holds(redis_server) == "0"


def test_a_signal_while_the_command_is_started_is_passed_on(
    held: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = asyncio.create_subprocess_exec

    async def interrupted(*command: str) -> asyncio.subprocess.Process:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)
        return await start(*command)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", interrupted)
    assert held("--drain", "0", "--", "sleep", "20").code == 143


def test_signal_for_an_ended_command_changes_nothing(
    held: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = asyncio.create_subprocess_exec

    async def interrupted(*command: str) -> asyncio.subprocess.Process:
        os.kill(os.getpid(), signal.SIGTERM)
        process = await start(*command)
        await process.wait()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", interrupted)
    said(held("--drain", "0", "--", "true"), 0)


# -- as a process ----------------------------------------------------------------------------------

COUNT_INTERRUPTIONS = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda number, frame: print("interrupted", flush=True))
print("ready", flush=True)
deadline = time.monotonic() + 4
while time.monotonic() < deadline:
    time.sleep(0.05)
sys.exit(7)
"""

# Else a second signal would come while the first is pending, and not be seen.
REACT_SLOWLY = """
import time
from fastapi_maintenance.__main__ import main
from fastapi_maintenance.cli import run
look = run._in_foreground
run._in_foreground = lambda: time.sleep(0.3) or look()
main()
"""


def test_the_commands_input_and_output_are_those_of_the_program(redis_url: str) -> None:
    script = "cat; echo oops >&2; exit 3"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "fastapi_maintenance",
            "run",
            "--expect",
            "0",
            "--backend",
            redis_url,
            "--",
            "sh",
            "-c",
            script,
        ],
        cwd=Path(__file__).parents[2],
        input="given\n",
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "given\n")
    *_, progress, complaint = done.stderr.splitlines()
    assert progress.endswith("s: maintenance on; no workers")
    assert complaint == "oops"


@pytest.mark.parametrize("stdin", ["the terminal", "a file"])
def test_ctrl_c_on_a_terminal_reaches_the_command_once(
    redis_url: str, redis_server: RedisServer, stdin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirection = "" if stdin == "the terminal" else "< /dev/null"
    slowly = (
        "sh",
        "-c",
        f'exec {shlex.quote(sys.executable)} -c "$0" "$@" {redirection}',
        REACT_SLOWLY,
    )
    monkeypatch.setattr(program, "_COMMAND", slowly)
    with Program(
        "run",
        "--expect",
        "0",
        "--backend",
        redis_url,
        "--",
        sys.executable,
        "-c",
        COUNT_INTERRUPTIONS,
        terminal=True,
    ) as held:
        held.until("ready")
        held.type("\x03")
        ended = held.ended()
    assert ended.code == 7
    assert ended.out.count("interrupted") == 1
    assert holds(redis_server) == "0"


def test_run_on_a_terminal_shows_a_table_that_ctrl_c_ends(
    redis_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    register(redis_server)
    with Program(
        "run", "--backend", redis_url, "--", "touch", f"{tmp_path}/ran", terminal=True
    ) as held:
        held.until("waiting for 4711@web-1")
        held.type("\x03")
        ended = held.ended()
    assert ended.code == 130
    assert "│ a " in ended.out
    assert "The command was not run: interrupted by SIGINT." in ended.out
    assert "Traceback" not in ended.out
    assert ended.out.rindex("\x1b[?25h") > ended.out.rindex("\x1b[?25l"), (
        "the cursor must come back"
    )
    assert not (tmp_path / "ran").exists()
    assert holds(redis_server) == "0"


def test_killed_run_leaves_its_hold_until_the_lease_ends(redis_url: str, tmp_path: Path) -> None:
    script = f"echo started; sleep 9; touch {tmp_path}/ended"
    with Program(
        "run", "--backend", redis_url, "--lease", "5", "--drain", "0", "--", "sh", "-c", script
    ) as held:
        held.until("started")
        held.signal(signal.SIGKILL)
        backend = RedisBackend(redis_url)
        assert asyncio.run(backend.read()).holds
        eventually_sync(lambda: not asyncio.run(backend.read()).holds, within=30, every=0.05)
        eventually_sync((tmp_path / "ended").exists, within=30, every=0.05)


# -- is a terminal typed on ------------------------------------------------------------------------

_in_foreground = running._in_foreground


def test_without_a_terminal_nothing_is_typed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(running, "_TERMINAL", str(tmp_path / "missing"))
    assert not _in_foreground()
    (tmp_path / "missing").write_text("no terminal")
    assert not _in_foreground()


def test_only_the_process_group_in_the_foreground_is_typed_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "_TERMINAL", os.devnull)
    monkeypatch.setattr(os, "tcgetpgrp", lambda descriptor: os.getpgrp())
    assert _in_foreground()
    monkeypatch.setattr(os, "tcgetpgrp", lambda descriptor: os.getpgrp() + 1)
    assert not _in_foreground()
