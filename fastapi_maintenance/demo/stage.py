"""Puts the demo on, and takes all of it down again whatever happens."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NoReturn, TextIO

from .crew import Crew, start_crew
from .embedded import start_embedded_redis
from .errors import DemoError
from .real import start_real_redis
from .report import Verdict, instructions, verdict
from .screen import open_screen
from .server import RedisServer
from .tally import Tally, milliseconds
from .trial import Trial
from .turns import all_turns
from .watch import Watch

__all__ = ["perform", "run"]

_TELLING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ATTEMPTS: Final = 3  # a machine that is busy with something else may spoil one
_ROUNDS: Final = 6  # of the plain turn, where a flip does not take a second


def run(*, workers: int, check: bool) -> int:
    """Run the demo and return its exit code. What goes wrong is one sentence on stderr."""
    try:
        return asyncio.run(_until_told(perform(workers, check=check, out=sys.stdout), otherwise=int(check)))
    except DemoError as error:
        print(error, file=sys.stderr)  # noqa: T201
    except BrokenPipeError:
        # Nobody reads any more, as after `| head`; Python would say so once again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


async def perform(workers: int, *, check: bool, out: TextIO) -> int:
    """Set up, show or check, and take down; also when cancelled. Raises `DemoError`."""
    if workers < 1:
        raise DemoError("The demo needs at least one worker: --workers 1.")
    with TemporaryDirectory(prefix="fastapi-maintenance-demo-") as home:
        async with _start_redis(Path(home)) as redis:
            _say(out, redis.describe(), f"Starting uvicorn with --workers {workers} …")
            async with start_crew(workers, backend=redis.url, home=Path(home)) as crew:
                _say(out, f"The workers answer on {crew.url}; their process ids are {', '.join(map(str, crew.pids))}.")
                return await _check(redis, crew, out) if check else await _show(redis, crew, out)


def _start_redis(home: Path) -> AbstractAsyncContextManager[RedisServer]:
    program = shutil.which("redis-server")
    return start_embedded_redis() if program is None else start_real_redis(program, home)


async def _show(redis: RedisServer, crew: Crew, out: TextIO) -> NoReturn:
    _say(out, *instructions(redis.port, redis.url, crew.url, sys.executable))
    with open_screen(out) as screen:
        await Watch(redis, crew, screen).run()


async def _check(redis: RedisServer, crew: Crew, out: TextIO) -> int:
    tally, judged = await _attempt(redis, crew)
    for _ in range(_ATTEMPTS - 1):
        if not judged.again:
            break
        _say(out, f"The median was {milliseconds(tally.median)}: this machine is busy. Once more.")
        tally, judged = await _attempt(redis, crew)
    _say(out, "", *tally.by_worker(await redis.rungs()), "", *tally.by_turn(), "", judged.words)
    return 0 if judged.passed else 1


async def _attempt(redis: RedisServer, crew: Crew) -> tuple[Tally, Verdict]:
    trial = Trial(redis, crew)
    await trial.run(all_turns(_ROUNDS if redis.pushes else 1))
    return trial.tally, verdict(trial.tally, trial.complaints, pushed=redis.pushes)


async def _until_told(doing: Coroutine[Any, Any, int], *, otherwise: int) -> int:
    """Let it go on until it ends, or is told to end: by Ctrl-C, by SIGTERM, or because its terminal is gone."""
    task = asyncio.create_task(doing)
    told = asyncio.Event()

    def tell() -> None:
        if not told.is_set():  # an impatient second Ctrl-C must not cut the taking down short
            told.set()
            task.cancel()

    for number in _TELLING:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants it to be ignored
            asyncio.get_running_loop().add_signal_handler(number, tell)
    await asyncio.wait([task])
    return otherwise if task.cancelled() else task.result()


def _say(out: TextIO, *lines: str) -> None:
    for line in lines:
        print(line, file=out, flush=True)
