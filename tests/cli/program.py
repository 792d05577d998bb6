"""The command line as a process of its own, in a pipe or on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final, Self

from ..support.commands import Ran
from ..support.waiting import eventually_sync

_ROOT: Final = Path(__file__).parents[2]
_COMMAND: Final = (sys.executable, "-m", "fastapi_maintenance")
_START: Final = 90.0  # seconds; a busy machine needs some of them to import everything
_NOT_INHERITED: Final = (
    "NO_COLOR",
    "FORCE_COLOR",
    "COLUMNS",
    "LINES",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
)


class Program:
    """A command that runs. `output` is what it has printed so far, on a terminal together with its
    complaints.
    """

    def __init__(
        self, *arguments: str, env: Mapping[str, str] | None = None, terminal: bool = False
    ) -> None:
        inherited = {
            name: value for name, value in os.environ.items() if name not in _NOT_INHERITED
        }
        self._reader, writer = _open_terminal() if terminal else os.pipe()
        with NamedTemporaryFile(delete=False) as errors:
            self._errors = Path(errors.name)
            self._process = subprocess.Popen(
                [*_COMMAND, *arguments],
                cwd=_ROOT,
                env=inherited | {"TERM": "xterm-256color"} | dict(env or {}),
                stdin=writer if terminal else subprocess.DEVNULL,
                stdout=writer,
                stderr=writer if terminal else errors,
                # So that Ctrl-C on this terminal is for this program, as in a shell.
                preexec_fn=partial(os.login_tty, 0) if terminal else None,
            )
        os.close(writer)
        self.output = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()
        self.close()
        self._errors.unlink()

    @property
    def complaints(self) -> str:
        """What it printed to standard error so far."""
        return self._errors.read_text()

    def until(self, text: str, *, times: int = 1, within: float = _START) -> None:
        """Wait until it has printed that so many times."""

        def has_printed() -> bool:
            assert self._read().count(text) >= times, (
                f"{text!r} is missing in: {self.output!r}, complaints: {self.complaints!r}"
            )
            return True

        eventually_sync(has_printed, within=within)

    def type(self, keys: str) -> None:
        """Press keys on its terminal."""
        os.write(self._reader, keys.encode())

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def close(self) -> None:
        """Read its output no more, like a pager that was quit."""
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1

    def ended(self, *, within: float = _START) -> Ran:
        """Wait until it ends."""
        eventually_sync(
            lambda: self._read() is not None and self._process.poll() is not None, within=within
        )
        return Ran(self._process.returncode, self._read(), self.complaints)

    def _read(self) -> str:
        """Take what has come, without waiting for more."""
        if self._reader >= 0:
            # Linux' way of saying that nobody has the terminal open any more.
            with suppress(OSError):
                while select.select([self._reader], [], [], 0)[0] and (
                    part := os.read(self._reader, 65536)
                ):
                    self.output += part.decode(errors="replace")
        return self.output


def run(*arguments: str, env: Mapping[str, str] | None = None, terminal: bool = False) -> Ran:
    """Run a command to its end."""
    with Program(*arguments, env=env, terminal=terminal) as program:
        return program.ended()


def _open_terminal() -> tuple[int, int]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    return master, slave
