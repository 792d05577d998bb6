"""A program that the demo starts, and ends with everything that it started in turn."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from .errors import DemoError

__all__ = ["Program"]

_PATIENCE: Final = 5.0  # seconds between asking it to end and making it end
_STEP: Final = 0.02


class Program:
    """`async with` it for as long as it is to run. Its output goes to `log`.

    It has a session of its own, so that Ctrl-C is for the demo alone to handle, and so that its whole process group can be ended.
    Raises `DemoError` if it cannot be started.
    """

    def __init__(self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._command = command
        self._log = log
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await self._end()
        finally:
            # What it left behind, or it itself if this was too much for it; macOS says EPERM where Linux says that there is nobody.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._started.wait()

    @property
    def pid(self) -> int:
        """Its process, which leads its process group."""
        return self._started.pid

    def check(self) -> None:
        """Raise `DemoError` with its last words if it has ended."""
        code = self._started.poll()
        if code is not None:
            raise DemoError(f"{self._name} ended with exit code {code}. {self._last_words()}")

    def _start(self) -> None:
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - the command is our own
                    self._command, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        except OSError as error:
            raise DemoError(f"{self._name} cannot be started: {error}.") from error

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "It is started by `async with`."
        return self._process

    async def _end(self) -> None:
        process, deadline = self._started, time.monotonic() + _PATIENCE
        process.terminate()
        while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - the end of a process is no event of the loop's
            await asyncio.sleep(_STEP)

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f"It last said: {lines[-1]}" if lines else "It said nothing."
