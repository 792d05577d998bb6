"""Programs in processes of their own that hold maintenance mode and can be killed or frozen."""

from __future__ import annotations

import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final, Self

from fastapi_maintenance import maintenance_mode_on

_ROOT: Final = Path(__file__).parents[2]


class Program:
    """A Python process whose lines a test can wait for, and that ends with the test."""

    def __init__(self, *arguments: str) -> None:
        self._command = [sys.executable, *arguments]
        self._lines: queue.Queue[str] = queue.Queue()
        self._seen: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=_ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=1,
        )
        threading.Thread(target=self._pump, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        process = self._running
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(5)  # who reads its standard input sees that it is over
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def expect(self, pattern: str, *, within: float = 15.0) -> re.Match[str]:
        """Wait for a line that matches."""
        deadline = time.monotonic() + within
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(
                    f"No line matched {pattern!r} within {within} s; there were {self._seen}"
                ) from None
            self._seen.append(line)
            if match := re.search(pattern, line):
                return match

    def say(self, line: str) -> None:
        """Give it a line on its standard input."""
        stdin = self._running.stdin
        assert stdin is not None
        stdin.write(f"{line}\n")
        stdin.flush()

    def wait(self, within: float) -> int:
        """Wait for its end, and return its exit code."""
        return self._running.wait(within)

    def signal(self, what: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._running.pid, what)

    def _pump(self) -> None:
        stdout = self._running.stdout
        assert stdout is not None
        with stdout:
            for line in stdout:
                self._lines.put(line.rstrip("\n"))


class Holder(Program):
    """A script that enters a block, on, with `with Holder(...)`, and then leaves and enters it as
    it is told.
    """

    def __init__(self, url: str, *, lease: float = 30.0) -> None:
        super().__init__("-m", "tests.support.holders", url, str(lease))

    def __enter__(self) -> Self:
        super().__enter__()
        self.enter()
        return self

    def enter(self) -> None:
        """Enter the block, and come back when the hold stands."""
        self.say("enter")
        self.expect("^held$")

    def leave(self) -> None:
        """Leave the block, and come back when that is done."""
        self.say("leave")
        self.expect("^left$")

    @property
    def lost(self) -> bool:
        """Whether it has lost the hold, as the block itself says."""
        self.say("lost?")
        return self.expect("^(True|False)$")[0] == "True"


def main(url: str, lease: str) -> None:
    """Be the script."""
    logging.basicConfig(stream=sys.stdout)
    while sys.stdin.readline() == "enter\n":
        with maintenance_mode_on(url, lease=float(lease)) as block:
            _say("held")
            while sys.stdin.readline() == "lost?\n":
                _say(str(block.lost))
        _say("left")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
