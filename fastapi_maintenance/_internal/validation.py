"""Validation of options."""

from __future__ import annotations

from ..exceptions import ConfigurationError


def require(valid: object, requirement: str, value: object) -> None:
    """Raise `ConfigurationError` with the requirement and the value unless the value is valid."""
    if not valid:
        raise ConfigurationError(f"{requirement}, got {value!r}.")


def positive(name: str, value: float) -> float:
    """Return an option in seconds if it is positive. Raises `ConfigurationError`."""
    try:
        valid = not isinstance(value, bool) and 0 < value < float("inf")
    except TypeError:  # text from the environment
        valid = False
    require(valid, f"{name} must be a positive number of seconds", value)
    return value


def non_negative(name: str, value: float) -> float:
    """Return an option in seconds if it is zero or positive. Raises `ConfigurationError`."""
    return value if value == 0 and not isinstance(value, bool) else positive(name, value)
