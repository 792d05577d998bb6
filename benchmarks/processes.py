"""What the system says of a process (proc(5)); Linux only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["processor_time", "resident"]

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def processor_time(pid: int) -> float:
    """Seconds that it has had of the processors, to a hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(pid: int) -> int:
    """Bytes of memory that are its own: those it shares with nobody."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/smaps_rollup says nothing of Private_Dirty")
