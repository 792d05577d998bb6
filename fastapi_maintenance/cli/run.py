"""Hold the service closed while another command runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, suppress
from functools import partial
from signal import SIG_IGN, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, Signals, getsignal
from typing import Any, Final, Self

import typer

from ..backends import BaseStateBackend, EnvVarBackend
from ..backends.base import WorkerRegistry
from ..coordination.context import MaintenanceContext, maintenance_mode_on
from ..exceptions import LeaseLostError, MaintenanceError, UnsupportedError
from .console import ExitCode, echo_error, exit_code_of, exit_with
from .worker_table import wait_display

_NOT_EXECUTABLE: Final = 126  # as a shell exits
_NOT_FOUND: Final = 127  # as a shell exits
_FORWARDED: Final = (SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2)
_FROM_TERMINAL: Final = (SIGINT, SIGQUIT)
_KILL_TIMEOUT: Final = 10.0  # seconds between SIGTERM and SIGKILL
_LOSS_CHECK_INTERVAL: Final = 0.2  # seconds
_TERMINAL: Final = "/dev/tty"


def run(
    backend: BaseStateBackend,
    command: Sequence[str],
    *,
    drain: float,
    allow: Sequence[str] | None,
    on_lost: str,
    allow_unfenced: bool,
    **options: Any,
) -> int:
    """Run a command in a block with these options, and return its exit code or one of our own."""
    if code := resolve_command(command):
        problem = "it is not executable" if code == _NOT_EXECUTABLE else "there is no such command"
        echo_error(f"Cannot run {command[0]}: {problem}.")
        return code
    _check_backend(backend, drains=drain > 0)
    console = None
    if sys.stderr.isatty():  # standard output is the command's
        from rich.console import Console

        console = Console(stderr=True)
    display, lost = ExitStack(), threading.Event()

    def print_loss(error: LeaseLostError) -> None:  # called from the thread of the lease
        echo_error(f"{error}.")
        lost.set()

    block = maintenance_mode_on(
        backend,
        drain=drain or None,
        allow=allow or (),
        on_lost=print_loss,
        strict=not allow_unfenced,
        progress=display.enter_context(wait_display(console, partial(typer.echo, err=True))),
        **options,
    )
    kill = on_lost == "kill"
    try:
        return asyncio.run(run_command(block, command, lost.is_set, display, kill=kill))
    except asyncio.CancelledError as cancelled:
        exit_with(f"The command was not run: {cancelled}.", ExitCode.INTERRUPTED)
    except MaintenanceError as error:
        exit_with(f"{str(error).removesuffix('.')}. The command was not run.", exit_code_of(error))
    finally:
        if block.release_error:
            echo_error(f"{block.release_error}.")


def resolve_command(command: Sequence[str]) -> int:
    """Return 0 if the command can be run, else a shell's exit code for why not."""
    if shutil.which(command[0]) is not None:
        return 0
    return _NOT_EXECUTABLE if os.sep in command[0] and os.path.exists(command[0]) else _NOT_FOUND


def _check_backend(backend: BaseStateBackend, *, drains: bool) -> None:
    """Raise `UnsupportedError` for a backend that closes or drains no other process."""
    if isinstance(backend, EnvVarBackend):
        raise UnsupportedError(
            f"{backend.describe()} is read by each process for itself, so a hold would close none. "
            "Name a Redis with --backend."
        )
    if drains and not isinstance(backend, WorkerRegistry):
        raise UnsupportedError(
            f"{backend.describe()} has no registry of workers to wait for; only Redis has one. "
            "Use --drain 0 to run the command without waiting."
        )


# -- running it ------------------------------------------------------------------------------------


class CommandFailed(Exception):
    """The command failed. Raised inside the block, so that the block counts as failed."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} exited with {code}")
        self.code = code


async def run_command(
    block: MaintenanceContext,
    command: Sequence[str],
    is_lost: Callable[[], bool],
    display: AbstractContextManager[object],
    *,
    kill: bool,
) -> int:
    """Run the command inside the block. Returns the exit code.

    `is_lost` returns whether the loss of the hold is printed. `display` is entered while the block
    waits for the workers. `kill` ends the command if the hold is lost.
    If the block raises, or a signal comes (`CancelledError`), the command is not run.
    """
    signals = _Signals()
    try:
        with signals:
            async with AsyncExitStack() as stack:
                with display:
                    await stack.enter_async_context(block)
                signals.spare_task()
                await _run(command, signals, is_lost, kill=kill)
    except CommandFailed as failed:
        return failed.code
    # Only now, because the block checks the hold once more when it ends.
    return ExitCode.LEASE_LOST if block.lost else ExitCode.DONE


async def _run(
    command: Sequence[str], signals: _Signals, is_lost: Callable[[], bool], *, kill: bool
) -> None:
    """Run the command to its end. Raises `CommandFailed` with the exit code of a shell."""
    try:
        process = await asyncio.create_subprocess_exec(*command)
    except OSError as error:  # a missing interpreter, or not a program
        echo_error(f"Cannot run {command[0]}: {error.strerror}.")
        raise CommandFailed(command[0], _NOT_EXECUTABLE) from error
    signals.forward_to(process)
    ended = asyncio.ensure_future(process.wait())
    while not (ended.done() or is_lost()):
        await asyncio.wait({ended}, timeout=_LOSS_CHECK_INTERVAL)
    if not ended.done():
        echo_error("The service may be OPEN while the command runs!")
        if kill:
            await _kill(process, ended)
    if code := await ended:
        raise CommandFailed(command[0], 128 - code if code < 0 else code)


async def _kill(process: asyncio.subprocess.Process, ended: asyncio.Future[int]) -> None:
    echo_error("Ending the command, because of --on-lost kill.")
    with suppress(ProcessLookupError):
        process.terminate()
        await asyncio.wait({ended}, timeout=_KILL_TIMEOUT)
        process.kill()


class _Signals:
    """Forwards signals to the command. Until it runs, the first signal cancels this task.

    Signals that are ignored from the start, as under `nohup`, stay ignored.
    """

    def __init__(self) -> None:
        self._numbers = [number for number in _FORWARDED if getsignal(number) is not SIG_IGN]
        self._early: list[Signals] = []
        self._task = asyncio.current_task()
        self._process: asyncio.subprocess.Process | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in self._numbers:
            loop.add_signal_handler(number, self._on_signal, number)
        return self

    def __exit__(self, *exc_info: object) -> None:
        loop = asyncio.get_running_loop()
        for number in self._numbers:
            loop.remove_signal_handler(number)

    def spare_task(self) -> None:
        """Cancel nothing from now on, because the command gets the signals."""
        self._task = None

    def forward_to(self, process: asyncio.subprocess.Process) -> None:
        """Forward all signals to this process, including those that came while it started."""
        self._process = process
        for number in self._early:
            self._send(process, number)

    def _on_signal(self, number: Signals) -> None:
        if self._task is not None:
            self._task.cancel(f"interrupted by {number.name}")
            self.spare_task()  # it releases the hold now
        elif number in _FROM_TERMINAL and _in_foreground():
            pass  # the command has it already, even one that is just starting
        elif self._process is None:
            self._early.append(number)
        else:
            self._send(self._process, number)

    def _send(self, process: asyncio.subprocess.Process, number: Signals) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            process.send_signal(number)


def _in_foreground() -> bool:
    """Return whether the terminal sends Ctrl-C to this process' group, and so to the command too.

    Standard input may be a file while Ctrl-C is typed on the terminal, so it is not asked.
    """
    try:
        with open(_TERMINAL, "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
