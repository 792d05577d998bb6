"""Names of components: parts of an application that can be closed alone."""

from __future__ import annotations

import re
from typing import Any, Final

from .._internal.validation import is_text, require

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Suffixes of other keys.
_RESERVED: Final = frozenset(
    {"epoch", "events", "history", "holds", "recorded", "registry", "told", "w", "workers"}
)


def check_component(name: Any) -> str:
    """Return the name of a component if it is valid. Raises `ConfigurationError`."""
    requirement = "A component must be 1 to 64 letters, digits, '-', '_' or '.'"
    require(is_text(name, _NAME), requirement, name)
    requirement = "A component must not have the name of a key beside the switch"
    require(name not in _RESERVED, requirement, name)
    return str(name)
