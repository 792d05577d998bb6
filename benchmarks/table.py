"""Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["milliseconds", "table"]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; everything but its first column is flush right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def milliseconds(seconds: float) -> str:
    """A time, as precisely as it matters."""
    ms = seconds * 1000
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.1f} ms" if ms >= 10 else f"{ms:.2f} ms"
