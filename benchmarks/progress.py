"""What goes on, on the error output."""

from __future__ import annotations

import sys

__all__ = ["say"]


def say(text: str) -> None:
    """One line."""
    print(f"    {text}", file=sys.stderr, flush=True)
