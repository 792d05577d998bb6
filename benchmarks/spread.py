"""What many measurements come down to: their middle and their spread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

__all__ = ["Spread", "quantile"]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median, the quartiles around it, the 99th percentile and the ends."""

    low: float
    first: float
    median: float
    third: float
    p99: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Of at least one value."""
        ordered = sorted(values)
        return cls(*(quantile(ordered, share) for share in (0, 0.25, 0.5, 0.75, 0.99, 1)))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which that share of sorted values lies, between two of them if need be."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
