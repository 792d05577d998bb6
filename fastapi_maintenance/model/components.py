"""The names of components: parts of an application that can be closed alone."""

from __future__ import annotations

import re
from typing import Final

from ..exceptions import ConfigurationError

__all__ = ["check_component"]

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_RESERVED: Final = frozenset(
    {"epoch", "events", "history", "holds", "recorded", "told", "workers"}
)  # kept beside a switch, too


def check_component(name: object) -> str:
    """The name, if it can be one. Raises `ConfigurationError`."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{name!r} cannot name a component: write 1 to 64 letters, digits, '-', '_' or '.', as in billing."
        )
    if name in _RESERVED:
        raise ConfigurationError(
            f"{name!r} cannot name a component: what is kept beside the switch is called so already."
        )
    return name
