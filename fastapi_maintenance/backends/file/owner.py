"""The process that has a hold, and whether it is gone."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Owner"]


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from one of the same number elsewhere or later.

    `start` is None where the system does not say when a process began.
    """

    host: str
    pid: int
    start: str | None

    @classmethod
    def current(cls) -> Owner:
        """The process this runs in."""
        pid = os.getpid()
        return cls(_host(), pid, _state_and_start(pid)[1])

    def is_gone(self) -> bool:
        """Whether it has certainly ended; of a process on another host that is never certain."""
        if self.host != _host():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # somebody else's process, so there is one
            pass
        state, start = _state_and_start(self.pid)
        return state in ("Z", "X") or (None not in (self.start, start) and self.start != start)


def _host() -> str:
    """Within which boundary a process number means one process: containers and reboots make new ones under the same host name."""
    boot = _read("/proc/sys/kernel/random/boot_id")
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        namespace = ""
    return " ".join(filter(None, (socket.gethostname(), boot, namespace)))


def _state_and_start(pid: int) -> tuple[str | None, str | None]:
    """Fields 3 and 22 of proc_pid_stat(5); None where there are none, or where other users' processes are hidden."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()  # the name before ")" may itself contain spaces and ")"
    return (fields[0], fields[19]) if len(fields) > 19 else (None, None)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
