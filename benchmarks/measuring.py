"""What several parts need: progress, quantiles, and the processor time and memory of a process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Spread(NamedTuple):
    """The median, the quartiles around it, the 99th percentile and the ends."""

    low: float
    first: float
    median: float
    third: float
    p99: float
    high: float


def spread_of(values: Iterable[float]) -> Spread:
    """Return the spread of at least one value."""
    ordered = sorted(values)
    return Spread(*(_quantile(ordered, share) for share in (0, 0.25, 0.5, 0.75, 0.99, 1)))


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def say(text: str) -> None:
    """Print a line of progress to standard error."""
    print(f"    {text}", file=sys.stderr, flush=True)


def processor_time(pid: int) -> float:
    """Return the seconds that a process has had of the processors, to a hundredth (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def private_memory(pid: int) -> int:
    """Return the bytes of memory that a process shares with no other (Linux)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty:"))
