"""Holds: leases on the state."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from ..exceptions import InvalidStateError
from .state import MaintenanceState


@dataclass(frozen=True, slots=True)
class Hold:
    """A lease on the state, on or off. A block takes it, and it expires at its deadline.

    An off hold lifts the on holds in `lifts`, which are those of its enclosing blocks. With a
    `component`, it applies to that component. Each renewal extends it by `lease` seconds (0 if
    that is not stored).
    """

    id: str
    state: MaintenanceState
    since: float = 0.0
    deadline: float = math.inf
    lifts: tuple[str, ...] = ()
    component: str | None = None
    lease: float = field(default=0.0, compare=False)

    def dump(self) -> str:
        """Format the constant part as JSON. The deadline is stored beside it."""
        state = self.state.model_dump(mode="json", exclude_none=True)
        optional = {"lifts": self.lifts, "scope": self.component, "lease": self.lease}
        given = {name: value for name, value in optional.items() if value}
        return json.dumps({"state": state, "since": self.since} | given)

    @classmethod
    def parse(cls, id: str, deadline: float, text: str | bytes) -> Hold:
        """Parse what `dump` wrote. Raises `InvalidStateError` for anything else."""
        try:
            document = json.loads(text)
            state = MaintenanceState.from_document(document["state"])
            since, lifts = float(document.get("since", 0.0)), document.get("lifts", [])
            component, lease = document.get("scope"), float(document.get("lease", 0.0))
            if (
                not math.isfinite(since + lease)
                or lease < 0
                or not isinstance(lifts, list)
                or not isinstance(component, str | None)
            ):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            raise InvalidStateError(f"The hold {id!r} cannot be read.") from None
        return cls(id, state, since, deadline, tuple(map(str, lifts)), component, lease)
