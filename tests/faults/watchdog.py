"""Notices when the event loop is late because of us, and not because of the machine."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.collecting import Collecting

from .bounds import LOOP_LAG

__all__ = ["Watchdog"]

_BEAT: Final = 0.01  # seconds
_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")  # seconds, in which /proc/stat counts


@dataclass
class Watchdog:
    """Measures how late a timer of the running event loop is, and fails at the end if that was ever more than `bound` seconds.

    Lateness is wall-clock time, so that blocking counts as computing does, less the time in which the machine withheld the processor:
    what our threads spent in the run queue, ready to run (Linux says so in /proc/self/task/*/schedstat), and what the hypervisor stole;
    and less what the garbage collector took, whose heap is that of all tests.
    A control timer in another process would be late at other moments than we are; this is the very time that we were made to wait.
    On other systems nothing is subtracted, and a busy machine can fail a test.
    """

    bound: float = LOOP_LAG
    worst: float = 0.0
    _due: float = 0.0
    _waited: dict[str, int] = field(default_factory=dict)
    _stolen: float = 0.0
    _collecting: Collecting = field(default_factory=Collecting)
    _collected: float = 0.0
    _timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._waited, self._stolen = _run_queue_waits(), _stolen()
        self._collecting.__enter__()
        self._schedule()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._timer is not None
        self._timer.cancel()
        self._look()
        self._collecting.__exit__(kind, error, trace)
        self.check()

    def check(self) -> None:
        """Fail if it was late by more than `bound` so far."""
        assert self.worst < self.bound, f"the event loop was {self.worst * 1000:.0f} ms late"

    def _schedule(self) -> None:
        self._due = time.monotonic() + _BEAT
        self._timer = asyncio.get_running_loop().call_later(_BEAT, self._beat)

    def _beat(self) -> None:
        self._look()
        self._schedule()

    def _look(self) -> None:
        late = time.monotonic() - self._due
        waited, stolen = _run_queue_waits(), _stolen()
        withheld = sum(now - self._waited.get(thread, now) for thread, now in waited.items()) / 1e9 + stolen - self._stolen
        collected, self._collected = self._collecting.seconds - self._collected, self._collecting.seconds
        self._waited, self._stolen = waited, stolen
        self.worst = max(self.worst, late - withheld - collected)


def _run_queue_waits() -> dict[str, int]:
    """For each of our threads the nanoseconds in which it could have run (proc(5), schedstat)."""
    waits: dict[str, int] = {}
    with suppress(FileNotFoundError):  # not Linux
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError):  # it has ended
                waits[thread] = int(Path(f"/proc/self/task/{thread}/schedstat").read_bytes().split()[1])
    return waits


def _stolen() -> float:
    """Seconds of processor time that went to other virtual machines (proc(5), /proc/stat, the eighth number)."""
    try:
        with open("/proc/stat", "rb") as stat:
            return int(stat.readline().split()[8]) * _TICK
    except OSError:
        return 0.0
