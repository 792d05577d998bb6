"""Running a command while the service is held closed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Final, Literal, Self

from ..barrier import BarrierResult, wait_until_applied
from ..context import MaintenanceBlock
from ..exceptions import LeaseLostError
from .codes import ExitCode
from .output import complain

__all__ = ["CommandFailed", "OnLost", "find", "run_held"]

OnLost = Literal["warn", "kill"]

_FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_FROM_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT)
_PATIENCE: Final = 10.0  # seconds between asking a command to end and ending it
_LOOK: Final = 0.2  # seconds between two looks at the lease


class CommandFailed(Exception):
    """The command did not succeed; raised inside the block, so that the block ends as one that failed."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} exited with {code}")
        self.code = code


def find(command: Sequence[str]) -> int:
    """Whether a command can be run at all: 0, or the exit code of a shell that cannot find it or may not run it."""
    if shutil.which(command[0]) is not None:
        return 0
    return 126 if os.path.exists(command[0]) else 127


async def run_held(
    block: MaintenanceBlock,
    command: Sequence[str],
    *,
    drain: float | None,
    strict: bool,
    on_lost: OnLost,
    progress: Callable[[BarrierResult], None],
) -> int:
    """Hold the service closed, wait at the barrier, run the command, release. Returns the exit code.

    Raises what the block and the barrier raise; the command is then not run.
    """
    with suppress(CommandFailed):
        async with _Signals() as signals, block:
            if drain is not None:
                result = await wait_until_applied(block.backend, drained=True, timeout=drain, progress=progress)
                result.check(strict=strict)
            block.check()
            code = await _run(block, command, signals, on_lost)
            if code:
                raise CommandFailed(command[0], code)
    return code


async def _run(block: MaintenanceBlock, command: Sequence[str], signals: _Signals, on_lost: OnLost) -> int:
    process = await asyncio.create_subprocess_exec(*command)
    signals.forward_to(process)
    ended = asyncio.ensure_future(process.wait())
    told = False
    while not ended.done():
        await asyncio.wait({ended}, timeout=_LOOK)
        if block.lost and not told:
            told = True
            await _tell_of_loss(block, process, ended, on_lost)
    code = ended.result()
    if code < 0:
        return 128 - code  # as a shell says it of a command that a signal ended
    return code or (ExitCode.LEASE_LOST if told or block.lost else 0)


async def _tell_of_loss(block: MaintenanceBlock, process: asyncio.subprocess.Process, ended: asyncio.Future[int], on_lost: OnLost) -> None:
    try:
        block.check()
    except LeaseLostError as error:
        complain(f"{error} The service may be OPEN while the command runs.")
    if on_lost == "warn" or ended.done():
        return
    complain("Ending the command, as --on-lost kill says.")
    with suppress(ProcessLookupError):
        process.terminate()
        await asyncio.wait({ended}, timeout=_PATIENCE)
        if not ended.done():
            process.kill()


class _Signals(AbstractAsyncContextManager["_Signals"]):
    """Passes signals on to the command; before there is one, a signal ends the wait for it."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._task = asyncio.current_task()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in _FORWARDED:
            loop.add_signal_handler(number, self._take, number)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        loop = asyncio.get_running_loop()
        for number in _FORWARDED:
            loop.remove_signal_handler(number)

    def forward_to(self, process: asyncio.subprocess.Process) -> None:
        """From now on there is somebody to pass them on to."""
        self._process = process

    def _take(self, number: signal.Signals) -> None:
        if self._process is None:
            assert self._task is not None
            self._task.cancel()
        elif not (number in _FROM_TERMINAL and sys.stdin is not None and sys.stdin.isatty()):
            # What a terminal sends, it sends to the command as well.
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
