"""The demo: several worker processes behind one switch, and how many milliseconds each flip takes to reach each of them."""

from __future__ import annotations

__all__ = ["run"]


def run(*, workers: int = 4, check: bool = False) -> int:
    """Run the demo until Ctrl-C; with `check`, let it flip the switch by itself and judge. Returns the exit code, 0 or 1."""
    from .stage import run  # not above: the worker processes import this package, too, and need only its application

    return run(workers=workers, check=check)
