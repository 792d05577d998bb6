"""Validation of options."""

from __future__ import annotations

import re
from typing import Final, TypeGuard, get_args

from ..exceptions import ConfigurationError

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


def is_text(value: object, pattern: re.Pattern[str]) -> TypeGuard[str]:
    """Return whether the value is text that the pattern matches, all of it."""
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def is_number(text: str | bytes) -> bool:
    """Return whether `int` converts the text to a number that is not negative.

    It refuses thousands of digits, and `isdigit` alone takes more than digits.
    """
    return text.isascii() and text.isdigit() and len(text) < 20


def require(valid: object, requirement: str, value: object) -> None:
    """Raise `ConfigurationError` with the requirement and the value unless the value is valid."""
    if not valid:
        raise ConfigurationError(f"{requirement}, got {value!r}.")


def require_choice(name: str, value: object, choices: object) -> None:
    """Raise `ConfigurationError` unless the value of an option is one of those of a `Literal`."""
    known = get_args(choices)
    require(value in known, f"{name} must be one of {', '.join(known)}", value)


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
