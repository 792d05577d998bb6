"""A hold as it stands in the file beside the switch: JSON, one entry for each hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...exceptions import InvalidStateError
from ...snapshot import Hold
from .owner import Owner

__all__ = ["Lease", "dump_leases", "parse_leases"]


@dataclass(frozen=True, slots=True)
class Lease:
    """A hold and the process that has it. The hold's deadline is by the wall clock."""

    hold: Hold
    owner: Owner

    def stands_at(self, now: float) -> bool:
        """Whether it counts: its time is not up and its process is not known to be gone."""
        return now < self.hold.deadline and not self.owner.is_gone()


def dump_leases(leases: Mapping[str, Lease]) -> bytes:
    """Write them all."""
    return json.dumps({"holds": {id: _dump(lease) for id, lease in leases.items()}}, indent=1).encode()


def parse_leases(raw: bytes) -> dict[str, Lease]:
    """Read what `dump_leases` wrote. Raises `InvalidStateError` for anything else."""
    try:
        return {id: _parse(id, entry) for id, entry in json.loads(raw)["holds"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise InvalidStateError("It is not JSON as this package writes it.") from None


def _dump(lease: Lease) -> dict[str, Any]:
    hold, owner = lease.hold, lease.owner
    entry: dict[str, Any] = json.loads(hold.dump())
    return entry | {"deadline": hold.deadline, "host": owner.host, "pid": owner.pid, "start": owner.start}


def _parse(id: str, entry: dict[str, Any]) -> Lease:
    deadline, pid, start = float(entry["deadline"]), int(entry["pid"]), entry["start"]
    if not math.isfinite(deadline) or not 0 < pid < 2**31:  # to kill(2), 0 and negative numbers mean whole groups
        raise ValueError
    hold = Hold.parse(id, deadline, json.dumps(entry))
    return Lease(hold, Owner(str(entry["host"]), pid, None if start is None else str(start)))
