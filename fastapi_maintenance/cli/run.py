"""Running a command while the service is held closed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Final, Literal, Self

from ..coordination.context import MaintenanceContext
from ..exceptions import LeaseLostError
from .console import ExitCode, echo_error
from .worker_table import WaitDisplay

__all__ = ["CommandFailed", "LossReport", "OnLost", "resolve_command", "run_command"]

OnLost = Literal["warn", "kill"]

_NOT_EXECUTABLE: Final = 126  # these two as a shell says it
_NOT_FOUND: Final = 127
_FORWARDED: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_FROM_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT)
_PATIENCE: Final = 10.0  # seconds between asking a command to end and ending it
_LOOK: Final = 0.2  # seconds between two looks at the lease
_TERMINAL: Final = "/dev/tty"


class CommandFailed(Exception):
    """The command did not succeed; raised inside the block, so that the block ends as one that failed."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} exited with {code}")
        self.code = code


class LossReport:
    """Prints that the hold was lost, whatever is logged."""

    printed = False

    def __call__(self, error: LeaseLostError) -> None:
        echo_error(f"{error}.")
        self.printed = True


def resolve_command(command: Sequence[str]) -> int:
    """Whether a command can be run at all: 0, or the exit code of a shell that cannot find it or may not run it."""
    if shutil.which(command[0]) is not None:
        return 0
    return _NOT_EXECUTABLE if os.sep in command[0] and os.path.exists(command[0]) else _NOT_FOUND


async def run_command(
    block: MaintenanceContext,
    command: Sequence[str],
    *,
    loss: LossReport,
    on_lost: OnLost,
    roll: WaitDisplay,
) -> int:
    """Enter the block, run the command, leave the block. Returns the exit code.

    `loss` is the block's `on_lost`. `roll` is entered while the block waits for the workers.
    Raises what the block raises, or `CancelledError` after a signal. The command is then not run.
    """
    signals = _Signals()
    try:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(signals)
            with roll:
                await stack.enter_async_context(block)
            signals.spare_task()
            await _run(command, signals, loss, on_lost)
    except CommandFailed as failed:
        return failed.code
    finally:
        if block.release_error:
            echo_error(f"{block.release_error}.")
    return (
        ExitCode.LEASE_LOST if block.lost else ExitCode.DONE
    )  # only now, as the block looks once more when it ends


async def _run(
    command: Sequence[str], signals: _Signals, loss: LossReport, on_lost: OnLost
) -> None:
    """Run it to its end, and say how the hold has fared. Raises `CommandFailed`, with the exit code that a shell would give."""
    try:
        process = await asyncio.create_subprocess_exec(*command)
    except (
        OSError
    ) as error:  # found before, but its interpreter is missing, or it is no program at all
        echo_error(f"{command[0]} cannot be run: {error.strerror}.")
        raise CommandFailed(command[0], _NOT_EXECUTABLE) from error
    signals.forward_to(process)
    ended = asyncio.ensure_future(process.wait())
    while not (ended.done() or loss.printed):
        await asyncio.wait({ended}, timeout=_LOOK)
    if not ended.done():
        await _react_to_loss(process, ended, on_lost)
    if code := await ended:
        raise CommandFailed(command[0], 128 - code if code < 0 else code)


async def _react_to_loss(
    process: asyncio.subprocess.Process, ended: asyncio.Future[int], on_lost: OnLost
) -> None:
    echo_error("The service may be OPEN while the command runs!")
    if on_lost == "warn":
        return
    echo_error("Ending the command, as --on-lost kill says.")
    with suppress(ProcessLookupError):
        process.terminate()
        await asyncio.wait({ended}, timeout=_PATIENCE)
        process.kill()


class _Signals:
    """Passes signals on to the command. Before there is one, the first signal cancels this task.

    What is ignored from the start, as under `nohup`, stays ignored, by the command too.
    """

    def __init__(self) -> None:
        self._numbers = [
            number for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN
        ]
        self._early: list[signal.Signals] = []
        self._task = asyncio.current_task()
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in self._numbers:
            loop.add_signal_handler(number, self._take, number)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in self._numbers:
            loop.remove_signal_handler(number)

    def spare_task(self) -> None:
        """Cancel nothing from now on: the command gets the signals."""
        self._task = None

    def forward_to(self, process: asyncio.subprocess.Process) -> None:
        """Pass all signals on to this process, beginning with those that came while it was started."""
        self._process = process
        for number in self._early:
            self._pass_on(process, number)

    def _take(self, number: signal.Signals) -> None:
        if self._process is None:
            self._early.append(number)
            if self._task is not None:
                self._task.cancel(f"interrupted by {number.name}")
                self.spare_task()  # it releases the hold now
        elif not (number in _FROM_TERMINAL and _in_foreground()):
            self._pass_on(self._process, number)

    def _pass_on(self, process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            process.send_signal(number)


def _in_foreground() -> bool:
    """Whether a terminal sends what is typed on it to this process' group, and so to the command as well.

    Not asked of standard input, which may be a file while Ctrl-C still is typed on the terminal.
    """
    try:
        with open(_TERMINAL, "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
