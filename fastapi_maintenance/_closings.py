"""Since when what is closed has been closed."""

from __future__ import annotations

import math

from ._policy import Closing
from .knowledge import Gate

__all__ = ["Closings"]


class Closings:
    """Remembers for everything, and for each scope that was ever told apart from it. Times are local and monotonic."""

    def __init__(self) -> None:
        self._since: dict[str | None, float] = {}

    def note(self, gate: Gate, before: Gate, at: float) -> None:
        """Take in that one gate followed another."""
        since = self._since
        general = since.get(None, -math.inf)
        # Also what goes by the general state now: it may have been open under it until this moment.
        for scope in {None, *gate.scopes, *before.scopes, *since}:
            if gate.of(scope).closing is None:
                since.pop(scope, None)
            elif before.of(scope).closing is None:
                since[scope] = at
            else:
                since.setdefault(scope, general)

    def since_before(self, moment: float, gate: Gate, scope: str | None) -> Closing | None:
        """What closes a scope, or everything, and has done so since before then; None if it was open meanwhile."""
        since = self._since.get(scope, self._since.get(None, math.inf))
        return gate.of(scope).closing if since <= moment else None
