"""Notices when the event loop is late because of us, and not because of the machine."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.collecting import Collecting

from .bounds import LOOP_LAG

_BEAT: Final = 0.01  # seconds
_STILL: Final = 0.02  # seconds; what is shorter is a busy machine's doing, and counted as that
_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")  # seconds, in which /proc/stat counts


@dataclass
class Watchdog:
    """Measures how late a timer of the running event loop is, and fails at the end if that was ever
    more than `bound` seconds.

    Lateness is wall-clock time, so that blocking counts as computing does, less the time in which
    the machine withheld the processor: what our threads spent in the run queue, ready to run (Linux
    says so in /proc/self/task/*/schedstat), what the hypervisor stole, and for how long everything
    stood still, of which neither of them says anything (see `_Stillness`); and less what the
    garbage collector took, whose heap is that of all tests. A control timer in another process
    would be late at other moments than we are; this is the very time that we were made to wait. The
    processor time that the loop's own thread has spent since its last turn always counts. On other
    systems than Linux a busy machine can fail a test.
    """

    bound: float = LOOP_LAG
    worst: float = 0.0
    _due: float = 0.0
    _waited: dict[str, int] = field(default_factory=dict)
    _stolen: float = 0.0
    _spent: float = 0.0
    _stillness: _Stillness = field(default_factory=lambda: _Stillness())
    _still: float = 0.0
    _collecting: Collecting = field(default_factory=Collecting)
    _collected: float = 0.0
    _timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._collecting.__enter__()
        self._stillness.begin()
        self._waited, self._stolen, self._spent = self._waits(), _stolen(), time.thread_time()
        self._schedule()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._timer is not None
        self._timer.cancel()
        self._look()
        self._stillness.end()
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
        waited, stolen, spent = self._waits(), _stolen(), time.thread_time()
        withheld = (
            sum(now - self._waited.get(thread, now) for thread, now in waited.items()) / 1e9
            + stolen
            - self._stolen
        )
        stillness = self._stillness.seconds
        still, self._still = stillness - self._still, stillness
        collected, self._collected = (
            self._collecting.seconds - self._collected,
            self._collecting.seconds,
        )
        computed, self._spent = spent - self._spent - _BEAT, spent
        self._waited, self._stolen = waited, stolen
        self.worst = max(self.worst, late - withheld - still - collected, computed - collected)

    def _waits(self) -> dict[str, int]:
        """Return the waits of our threads but the watchdog's own, which nobody waits for."""
        waits = _run_queue_waits()
        waits.pop(self._stillness.thread_id, None)
        return waits


class _Stillness:
    """How long this whole process did not go on although it would have: frozen, as a suspended
    virtual machine or cgroup is.

    A thread that only sleeps wakes too late then, and nobody has computed meanwhile. It wakes in
    time while the event loop blocks in a call; and where somebody kept the interpreter's lock to
    himself, the process has spent processor time.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._sleep, name="the watchdog", daemon=True)
        self._since = time.monotonic(), time.process_time()
        self._seconds = 0.0

    def begin(self) -> None:
        self._since = time.monotonic(), time.process_time()
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    @property
    def thread_id(self) -> str:
        """The number of the thread, as in /proc/self/task."""
        return str(self._thread.native_id)

    @property
    def seconds(self) -> float:
        """So far; also of a stillness from which the thread has not yet woken."""
        with self._lock:
            return self._seconds + self._overslept()

    def _sleep(self) -> None:
        while not self._over.wait(_BEAT):
            with self._lock:
                self._seconds, self._since = (
                    self._seconds + self._overslept(),
                    (time.monotonic(), time.process_time()),
                )

    def _overslept(self) -> float:
        woken, spent = self._since
        return max(0.0, time.monotonic() - woken - _BEAT - (time.process_time() - spent) - _STILL)


def _run_queue_waits() -> dict[str, int]:
    """For each of our threads the nanoseconds in which it could have run (proc(5), schedstat)."""
    waits: dict[str, int] = {}
    with suppress(FileNotFoundError):  # not Linux
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError):  # it has ended
                waits[thread] = int(
                    Path(f"/proc/self/task/{thread}/schedstat").read_bytes().split()[1]
                )
    return waits


def _stolen() -> float:
    """Seconds of processor time that went to other virtual machines (proc(5), /proc/stat, the
    eighth number).
    """
    try:
        with open("/proc/stat", "rb") as stat:
            return int(stat.readline().split()[8]) * _TICK
    except OSError:
        return 0.0
