"""Names of components: parts of an application that can be closed alone."""

from __future__ import annotations

import re
from typing import Final

from ..exceptions import ConfigurationError

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Suffixes of other keys.
_RESERVED: Final = frozenset(
    {"epoch", "events", "history", "holds", "recorded", "registry", "told", "w", "workers"}
)


def check_component(name: object) -> str:
    """Return the name of a component if it is valid. Raises `ConfigurationError`."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"A component must be 1 to 64 letters, digits, '-', '_' or '.', got {name!r}."
        )
    if name in _RESERVED:
        raise ConfigurationError(
            f"A component must not have the name of a key beside the switch, got {name!r}."
        )
    return name
