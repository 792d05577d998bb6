"""Trying what may be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def attempt(action: Callable[[], T], refusal: type[Exception]) -> tuple[T | None, str]:
    """What came of it, or None and what the refusal says. Any other exception is raised."""
    try:
        return action(), ""
    except refusal as error:
        return None, str(error)
