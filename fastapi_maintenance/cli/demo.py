"""The demo: several workers behind one switch, and how fast a flip reaches each of them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, Final, NamedTuple

from fastapi import FastAPI
from redis import Redis, RedisError
from rich.live import Live

from .._internal.logging import error_text, one_line
from ..backends import BaseStateBackend, backend_from_url
from ..backends.status import label, look
from ..coordination.barrier import registered_workers
from ..decorators import force_maintenance_mode_off, force_maintenance_mode_on
from ..exceptions import MaintenanceError
from ..middleware.middleware import MaintenanceModeMiddleware
from ..model.state import MaintenanceState
from ..model.workers import Worker
from ..responses.content import DETAIL
from ..runtime.current import set_maintenance_mode
from .console import echo, stdout_closed, terminal
from .worker_table import as_table

_HOST: Final = "127.0.0.1"
_START_TIMEOUT: Final = 60.0  # seconds
_TIMEOUT: Final = 5.0  # for an answer, for a flip to reach a worker, for a program to end
_INTERVAL: Final = 0.2  # between two looks
_MAX_DELAY: Final = 1.5  # within which a flip is taken for the effect of a write
_CLOCK_SKEW: Final = 0.01  # Redis counts milliseconds, so it may end a time to live early
_GOOD_MEDIAN: Final = 0.010
_BAD_MEDIAN: Final = 0.100  # a poll takes half a second; a push takes less on any machine
_MAX_ATTEMPTS: Final = 3
_WRITE: Final = r"(GET)?(SET|DEL|RENAME|HSET|HDEL|UNLINK)\b.* ?\{?maintenance\}?(:holds)?( |$)"
_INSTALL: Final = (
    "Install redis-server (Debian: apt-get install redis-server; macOS: brew install redis)"
)
_INSTRUCTIONS: Final = """
Flip the switch from another terminal:
  {cli} -p {port} SET maintenance 1
  {cli} -p {port} DEL maintenance
or with details, by the command line:
  {python} -m fastapi_maintenance on --backend {redis} --message 'Back soon' --for 10m
  {python} -m fastapi_maintenance off --backend {redis}
See an answer: curl -i {url}   (never closed: {url}health, always closed: {url}reports)
Ctrl-C ends everything.
"""


class DemoError(MaintenanceError):
    """The demo cannot start, or one of its programs has failed."""


def run(size: int, *, check: bool) -> int:
    """Run the demo until it ends or is interrupted; return the exit code. Raises `DemoError`."""

    def stop(number: int, frame: object) -> None:
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)  # a second one must not cut the clean-up short
        raise SystemExit(int(check))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, stop)
    try:
        with (
            TemporaryDirectory(prefix="fastapi-maintenance-demo-") as home,
            _redis(Path(home)) as redis,
            _uvicorn(size, redis, Path(home)) as workers,
        ):
            return _check(redis, workers) if check else asyncio.run(_show(redis, workers))
    except (OSError, HTTPException, RedisError) as error:
        raise DemoError(f"A program of the demo does not answer: {error_text(error)}.") from error


def make_app() -> FastAPI:
    """Return the application of the workers. FASTAPI_MAINTENANCE_BACKEND names its switch."""

    async def on_change(old: MaintenanceState, new: MaintenanceState, source: str) -> None:
        change = os.getpid(), new.enabled, time.monotonic()  # a clock that all processes share
        os.write(1, f"{json.dumps(change)}\n".encode())  # in one piece: workers share the pipe

    app = FastAPI(title="Maintenance demo")
    app.add_middleware(MaintenanceModeMiddleware, on_change=on_change)

    @app.get("/")
    async def index() -> str:
        return "The service is open."

    @app.get("/health")
    @force_maintenance_mode_off
    async def health() -> int:
        return os.getpid()

    @app.get("/reports")
    @force_maintenance_mode_on
    async def reports() -> None: ...

    return app


# -- the programs ----------------------------------------------------------------------------------


class _Program(NamedTuple):
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise `DemoError` if it has ended."""
        if (code := self.process.poll()) is not None:
            said = self.log.read_text(errors="replace").strip().split("\n")[-1].strip()
            raise DemoError(f"{self.name} ended with exit code {code}. It last said: {said}")

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Wait until it is ready. Raises `DemoError` if it ends before, or takes too long."""
        deadline = time.monotonic() + _START_TIMEOUT
        while not is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"{self.name} is not ready after {_START_TIMEOUT:g} s.")
            time.sleep(_INTERVAL)


@contextmanager
def _program(name: str, *command: str, home: Path, **options: Any) -> Iterator[_Program]:
    """Run a program in a session of its own; at the end, stop it and all that it started."""
    log = home / f"{name}.log"
    with log.open("ab") as file:
        options = {"stdout": file, "stderr": file, "stdin": subprocess.DEVNULL, **options}
        process = subprocess.Popen(command, start_new_session=True, **options)  # noqa: S603
    try:
        yield _Program(name, process, log)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_TIMEOUT)
        with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM for an empty group
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _free_port() -> int:
    """Return a free port, below those that kernels give to outgoing connections."""
    while True:
        with suppress(OSError), socket.socket() as probe:
            probe.bind((_HOST, port := random.randrange(20_000, 32_000)))
            return port


class _Redis(NamedTuple):
    """The Redis of the demo. The imitation pushes nothing."""

    port: int
    url: str
    client: Redis
    pushes: bool
    cli: str = "redis-cli"


@contextmanager
def _redis(home: Path) -> Iterator[_Redis]:
    """Start redis-server or valkey-server, or the imitation if both are missing."""
    port, found = _free_port(), shutil.which("redis-server") or shutil.which("valkey-server")
    if found is not None:
        name, pushes = Path(found).name, "it pushes every write to the workers."
        options = f"--bind {_HOST} --port {port} --dir {home} --save"
        command = [found, *options.split(), ""]
    elif find_spec("fakeredis") is None or find_spec("lupa") is None:
        extra = "pip install 'fastapi-maintenance-cluster[demo]'"
        raise DemoError(f"redis-server and fakeredis are missing. {_INSTALL}, or {extra}.")
    else:
        name, pushes = "fakeredis", (
            "it imitates Redis and pushes nothing, so a worker finds a bare SET by its next poll, "
            f"within about a second. {_INSTALL} to see milliseconds."
        )  # fmt: skip
        command = [sys.executable, "-m", f"{__package__}.embedded", str(port)]
    url = f"redis://{_HOST}:{port}/0"
    client = Redis.from_url(f"{url}?protocol=2&socket_timeout={_TIMEOUT}", decode_responses=True)

    def is_ready() -> bool:
        with suppress(RedisError):
            return bool(client.ping())
        return False

    with _program(name, *command, home=home) as program, client:
        program.wait_until(is_ready)
        program.check()  # otherwise another server answers on that port
        echo(f"{name} on port {port}: {pushes}")
        cli = "valkey-cli" if name == "valkey-server" else "redis-cli"
        yield _Redis(port, url, client, pushes=found is not None, cli=cli)


class _Change(NamedTuple):
    """The line of an `on_change` hook: a worker closed or opened at a monotonic time."""

    pid: int
    closed: bool
    at: float


_NEVER: Final = _Change(0, closed=False, at=0.0)


class _Workers:
    """A connection to each worker, and all changes that the workers printed."""

    def __init__(self, size: int, port: int, program: _Program) -> None:
        self.size = size
        self.address = f"{_HOST}:{port}"
        self.program = program
        self.connections: dict[int, HTTPConnection] = {}
        self.changes: list[_Change] = []

    def read_changes(self) -> None:
        """Take what the workers print, until uvicorn ends."""
        for line in self.program.process.stdout or ():
            self.changes.append(_Change(*json.loads(line)))

    def connect(self) -> bool:
        """Open several connections at once, so that more than one worker accepts one."""
        opened = [HTTPConnection(self.address, timeout=_TIMEOUT) for _ in range(8)]
        with suppress(OSError, HTTPException):
            for connection in opened:
                connection.connect()
            for connection in opened:
                self.connections.setdefault(_get(connection, "/health")[1], connection)
        for connection in {*opened} - {*self.connections.values()}:
            connection.close()
        return len(self.connections) == self.size


def _get(connection: HTTPConnection, path: str) -> tuple[HTTPResponse, Any]:
    connection.request("GET", path)
    response = connection.getresponse()
    return response, json.loads(response.read())


@contextmanager
def _uvicorn(size: int, redis: _Redis, home: Path) -> Iterator[_Workers]:
    """Start uvicorn with that many workers, and find a connection to each."""
    if find_spec("uvicorn") is None:
        raise DemoError("uvicorn is missing: pip install 'fastapi-maintenance-cluster[demo]'.")
    echo(f"Starting uvicorn with --workers {size} …")
    port = _free_port()
    options = (
        f"-m uvicorn --factory {__name__}:make_app --host {_HOST} --port {port} --workers {size} "
        "--no-access-log --timeout-keep-alive 60 --timeout-graceful-shutdown 2"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("UVICORN_")}
    env |= {"FASTAPI_MAINTENANCE_BACKEND": redis.url, "FASTAPI_MAINTENANCE_MODE": ""}
    command = (sys.executable, *options.split())
    with _program("uvicorn", *command, home=home, stdout=subprocess.PIPE, env=env) as program:
        workers = _Workers(size, port, program)
        Thread(target=workers.read_changes, daemon=True).start()
        program.wait_until(workers.connect)
        try:
            yield workers
        finally:
            for connection in workers.connections.values():  # uvicorn would wait for them
                connection.close()


# -- the live view ---------------------------------------------------------------------------------


async def _show(redis: _Redis, workers: _Workers) -> int:
    """Show the registry and each change, until Ctrl-C or until no reader is left."""
    url, python = f"http://{workers.address}/", shlex.quote(sys.executable)
    echo(_INSTRUCTIONS.format(**redis._asdict() | {"redis": redis.url, "url": url}, python=python))
    console, backend = terminal(), backend_from_url(redis.url)
    drawn = console is not None and not console.is_dumb_terminal
    live = Live(console=console, auto_refresh=False) if drawn else None
    shown, said = 0, ""
    with _writes(redis) as writes, live or nullcontext():
        while not stdout_closed():
            workers.program.check()
            now, present = await _look(backend)
            changes = workers.changes[shown:]
            shown += len(changes)
            lines = [_line(change, *writes) for change in changes]
            lines += [_stamp(time.time(), now)] * (now != said)
            said = now
            for line in lines:
                echo(line) if live is None else live.console.print(line, soft_wrap=True)
            if live is not None:
                live.update(as_table((each.status, each) for each in present), refresh=True)
            await asyncio.sleep(_INTERVAL)
    return 0


async def _look(backend: BaseStateBackend) -> tuple[str, Sequence[Worker]]:
    """Return the state in words, and the workers."""
    try:
        report, workers = await look(backend), await registered_workers(backend)
    except MaintenanceError as error:
        return f"the workers keep their state: {error}", ()
    problem = f": {report.reading.error}" if report.reading.error else ""
    return f"maintenance is {label(report.state)}{problem}", workers


@contextmanager
def _writes(redis: _Redis) -> Iterator[deque[tuple[float, str]]]:
    """Yield the latest write to the switch or the holds. The imitation has no MONITOR."""
    writes: deque[tuple[float, str]] = deque(maxlen=1)
    if not redis.pushes:
        yield writes
        return

    def listen() -> None:
        with suppress(RedisError, OSError, ValueError):  # Redis ended, or the demo
            for entry in monitor.listen():
                if re.match(_WRITE, entry["command"], re.IGNORECASE):
                    writes.append((entry["time"], entry["command"][:60]))

    with Redis.from_url(redis.url, decode_responses=True).monitor() as monitor:  # type: ignore[no-untyped-call]
        Thread(target=listen, daemon=True).start()
        yield writes


def _line(change: _Change, *writes: tuple[float, str]) -> str:
    """Print how a worker changed, and how long after the latest write."""
    event = f"worker {change.pid} is {'closed (503)' if change.closed else 'open (200)'}"
    at = time.time() - time.monotonic() + change.at
    for written, command in writes:
        if at - written < _MAX_DELAY:  # otherwise a time to live, a window or a lease ended
            event += f", {max(0.0, at - written) * 1000:.1f} ms after {command}"
    return _stamp(at, event)


def _stamp(at: float, event: str) -> str:
    return f"{datetime.fromtimestamp(at):%H:%M:%S.%f}"[:12] + f"  {one_line(event)}"


# -- the check -------------------------------------------------------------------------------------

_LUA: Final = "EVAL \"return redis.call(ARGV[1], 'maintenance', unpack(ARGV, 2))\" 0"
_MESSAGE: Final = "Back at 04:00 UTC"
_PLAIN: Final = "SET 1, DEL"
_TURNS: Final = {  # commands that turn the switch on and off; the last one flips it
    _PLAIN: ("SET maintenance 1", "DEL maintenance"),
    "SET on EX 600, SET off": ("SET maintenance on EX 600", "SET maintenance off"),
    "SET JSON, GETDEL": (
        f"""SET maintenance '{{"enabled": true, "message": "{_MESSAGE}"}}'""",
        "GETDEL maintenance",
    ),
    "RENAME to it, and away": ("SET new 1; RENAME new maintenance", "RENAME maintenance old"),
    "EVAL, a Lua script": (f"{_LUA} SET 1", f"{_LUA} DEL"),
    "MULTI … EXEC": ("MULTI; SET maintenance 1; EXEC", "MULTI; DEL maintenance; EXEC"),
    "set_maintenance_mode": ("set_maintenance_mode 1", "set_maintenance_mode 0"),
    "SET 1 EX 2, which expires": ("SET maintenance 1 EX 2", "PTTL maintenance"),
}


class _Sample(NamedTuple):
    """One flip at one worker: seconds until the worker followed, and until a client saw that."""

    pid: int
    turn: str
    reached: float
    seen: float
    error: str


def _check(redis: _Redis, workers: _Workers) -> int:
    """Flip the switch in every way, print the milliseconds and a verdict; return the exit code."""
    for _ in range(_MAX_ATTEMPTS):
        samples = [*_flips(redis, workers)]
        errors = [sample.error for sample in samples if sample.error]
        middle = median(sample.reached for sample in samples)
        busy = redis.pushes and middle >= _GOOD_MEDIAN
        if errors or not busy:
            break
        echo(f"The median was {middle * 1000:.1f} ms: this machine is busy.")
    links = {worker.pid: worker.delivery for worker in asyncio.run(registered_workers(redis.url))}
    echo("\n".join(["", *_table(samples, links), ""]))
    right = f"every worker answered right after each flip, {len(samples)} times in all"
    right += f"; median {middle * 1000:.1f} ms"
    if errors:
        echo("\n  ".join(["FAILED: a worker was wrong.", *errors]))
    elif busy and middle >= _BAD_MEDIAN:
        echo(f"FAILED: {right}. No push is so slow; end what keeps this machine busy.")
    else:
        how = "" if redis.pushes else ", by messages and polling alone"
        echo(f"OK{', but slow' if busy else ''}: {right}{how}.")
        return 0
    return 1


def _flips(redis: _Redis, workers: _Workers) -> Iterator[_Sample]:
    """Take every turn, until one goes wrong."""
    with ThreadPoolExecutor(workers.size) as pool:
        for turn in [_PLAIN] * (5 if redis.pushes else 0) + [*_TURNS]:
            for on, commands in zip((True, False), _TURNS[turn], strict=True):
                at = _flip(redis, commands)
                judge = partial(_judge, workers, turn, on, at)
                samples = [*pool.map(judge, workers.connections)]
                yield from samples
                if any(sample.error for sample in samples):
                    return
                time.sleep(random.uniform(0.02, 0.06))  # out of step with the polls


def _flip(redis: _Redis, commands: str) -> float:
    """Run the commands; return the monotonic time of the flip."""
    with redis.client.client() as connection:  # type: ignore[no-untyped-call]  # one, for MULTI
        for command in commands.split("; "):
            (name, *arguments), at = shlex.split(command), time.monotonic()
            if name == "set_maintenance_mode":
                asyncio.run(set_maintenance_mode(arguments == ["1"], redis.url))
            else:
                reply = connection.execute_command(name, *arguments)
            if name == "PTTL":
                at += reply / 1000
                time.sleep(reply / 1000)
    return at


def _judge(workers: _Workers, turn: str, on: bool, at: float, pid: int) -> _Sample:
    """Wait until a worker has followed a flip, or the time is up; judge its answers."""
    wanted: tuple[object, ...] = (200, "The service is open.", None, False)
    if on:
        wanted = (503, {"detail": _MESSAGE if "JSON" in turn else DETAIL}, "no-store", True)
    connection, pause, followed, seen = workers.connections[pid], 0.01, False, 0.0
    got: tuple[object, ...] = ()
    while not (followed and got[0] == wanted[0]) and seen < _TIMEOUT:
        time.sleep(pause)  # a worker that answers meanwhile is slower to follow
        response, body = _get(connection, "/")
        seen, pause = time.monotonic() - at, min(2 * pause, 0.04)
        headers = response.headers
        got = (response.status, body, headers["Cache-Control"], "Retry-After" in headers)
        changes = [change for change in workers.changes if change.pid == pid] or [_NEVER]
        followed = changes[-1].closed is on and changes[-1].at >= at - _CLOCK_SKEW
    errors = [f"answers {got} instead of {wanted}"] * (got != wanted)
    errors += ["did not call on_change"] * (not followed)
    for path, status in (("/health", 200), ("/reports", 503), ("/nowhere", 404)):
        if turn == _PLAIN and (other := _get(connection, path)[0].status) != status:
            errors.append(f"answers {path} with {other} instead of {status}")
    error = f"{turn}, {'on' if on else 'off'}: worker {pid} {'; '.join(errors)}." if errors else ""
    return _Sample(pid, turn, max(0.0, changes[-1].at - at), seen, error)


def _table(samples: list[_Sample], links: Mapping[int, str]) -> Iterator[str]:
    """Yield a line for each worker, for each way of flipping and for all."""
    groups: dict[str, list[_Sample]] = {}
    for sample in sorted(samples):
        groups.setdefault(f"worker {sample.pid}, {links.get(sample.pid, '?')}", []).append(sample)
    for sample in samples:
        groups.setdefault(sample.turn, []).append(sample)
    width = max(map(len, groups))
    yield f"{'milliseconds':{width}}  flips  median     p95     max  median seen by a client"
    for name, group in (groups | {"all": samples}).items():
        reached, seen = sorted(s.reached for s in group), median(s.seen for s in group)
        figures = (median(reached), reached[ceil(len(reached) * 0.95) - 1], reached[-1], seen)
        yield f"{name:{width}}  {len(group):5}" + "".join(f"{s * 1000:8.1f}" for s in figures)
