"""What the check measured, summed up and laid out. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

__all__ = ["Sample", "Tally", "lay_out", "milliseconds"]

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Sample:
    """One flip as one worker followed it, in seconds from when it was made."""

    pid: int
    turn: str
    reached: float
    """Until the worker went by it."""
    seen: float
    """Until a client on a connection to that worker had got the right answer; looked at every few milliseconds."""


class Tally:
    """All samples of a check."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self._samples = list(samples)

    def add(self, sample: Sample) -> None:
        """Add one."""
        self._samples.append(sample)

    @property
    def flips(self) -> int:
        """How many samples: one for each flip and worker."""
        return len(self._samples)

    @property
    def median(self) -> float:
        """Seconds that a flip took to reach a worker; 0 while there is none."""
        return median(sample.reached for sample in self._samples) if self._samples else 0.0

    def by_worker(self, rungs: Mapping[int, str]) -> list[str]:
        """A table with a line a worker and one of all; `rungs` says how each hears of changes."""
        head = ["worker", "hears by", "flips", "median", "p95", "max", "median seen by a client"]
        rows = [[f"pid {pid}", rungs.get(pid, "?"), *_figures(group)] for pid, group in sorted(_grouped(self._samples, _pid_of).items())]
        return lay_out([head, *rows, ["all", "", *_figures(self._samples)]])

    def by_turn(self) -> list[str]:
        """A table with a line for each way to turn the switch, in the order of their first use."""
        head = ["turned by", "flips", "median", "p95", "max", "median seen by a client"]
        return lay_out([head, *([turn, *_figures(group)] for turn, group in _grouped(self._samples, _turn_of).items())])


def _pid_of(sample: Sample) -> int:
    return sample.pid


def _turn_of(sample: Sample) -> str:
    return sample.turn


def _grouped(samples: Iterable[Sample], key: Callable[[Sample], Key]) -> dict[Key, list[Sample]]:
    groups: dict[Key, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(key(sample), []).append(sample)
    return groups


def _figures(samples: Sequence[Sample]) -> list[str]:
    if not samples:
        return ["0", "-", "-", "-", "-"]
    reached = sorted(sample.reached for sample in samples)
    figures = (median(reached), percentile(reached, 95), reached[-1], median(sample.seen for sample in samples))
    return [str(len(samples)), *map(milliseconds, figures)]


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent do not exceed (nearest rank)."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def milliseconds(seconds: float) -> str:
    """Write a duration: 1.2 ms."""
    return f"{seconds * 1000:.1f} ms"


def lay_out(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with its first row underlined; the first column is flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = map(str.rjust, row, widths)
    return "  ".join([first.strip().ljust(widths[0]), *others])
