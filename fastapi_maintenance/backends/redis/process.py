"""The process of a worker, and proof that another one is dead (proc_pid_stat(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..._internal.threads import in_thread
from ..._internal.validation import is_number
from ...model.workers import Worker

_INSTANCE = "FASTAPI_MAINTENANCE_INSTANCE"


class Process(NamedTuple):
    """One process of one boot of a machine, in one PID namespace.

    What the system does not say is empty, and proves nothing.
    """

    pid: int
    boot: str
    namespace: str
    start: str
    instance: str

    @classmethod
    def current(cls) -> Process:
        """Return the process this runs in."""
        try:
            namespace = os.readlink("/proc/self/ns/pid")
        except OSError:
            namespace = ""
        boot = _read("/proc/sys/kernel/random/boot_id")
        return cls(
            os.getpid(),
            boot if namespace else "",
            namespace,
            _start("self"),
            os.environ.get(_INSTANCE, ""),
        )

    def concerns(self, worker: Worker) -> bool:
        """Return True if this process is in a place to prove something of another worker's."""
        near = bool(self.boot) and (self.boot, self.namespace) == (worker.boot, worker.namespace)
        return near or bool(self.instance and self.instance == worker.instance)

    def outlives(self, worker: Worker) -> bool:
        """Return True if the process of a worker that vanished is certainly dead."""
        if not (self.boot and worker.boot and is_number(self.start) and is_number(worker.start)):
            return False
        if (self.boot, self.namespace) == (worker.boot, worker.namespace):
            return _is_dead(worker.pid, worker.start)
        if not self.instance or self.instance != worker.instance:
            return False
        # One container of one name runs at a time, so what ran in its place before is dead. On one
        # boot the starts tell the order.
        return self.boot != worker.boot or int(self.start) > int(worker.start)


async def proved_gone(workers: Iterable[Worker], process: Process | None = None) -> list[str]:
    """Return the ids of vanished workers whose process this one, or the given one, proves dead."""
    vanished = [worker for worker in workers if worker.vanished]

    def prove() -> list[str]:
        here = process or Process.current()
        return [worker.id for worker in vanished if here.outlives(worker)]

    return await in_thread(prove) if vanished else []


def _is_dead(pid: int, start: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's process, or no process number at all
        pass
    now = _start(str(pid))
    return bool(now) and now != start


def _start(pid: str) -> str:
    """Return when a process began, in clock ticks since the boot.

    A zombie has ended as far as requests are concerned.
    """
    # The name before ")" may itself contain spaces and ")".
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) <= 19:
        return ""
    return "ended" if fields[0] in ("Z", "X") else fields[19]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
