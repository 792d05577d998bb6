"""Checks options that are in seconds."""

from __future__ import annotations

from ..exceptions import ConfigurationError

__all__ = ["non_negative", "positive"]


def positive(name: str, value: float) -> float:
    """Check an option in seconds. Raises `ConfigurationError`."""
    try:
        meant = not isinstance(value, bool) and 0 < value < float("inf")
    except TypeError:  # text, say, from somebody's environment
        meant = False
    if not meant:
        raise ConfigurationError(f"{name} must be a positive number of seconds, not {value!r}.")
    return value


def non_negative(name: str, value: float) -> float:
    """Check an option in seconds that may be zero. Raises `ConfigurationError`."""
    return value if value == 0 and not isinstance(value, bool) else positive(name, value)
