"""Who gets through: the precedence of marks, exemptions, holds, override and switch. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal, NamedTuple

from .state import OFF, ON, MaintenanceState

__all__ = [
    "SAFE_METHODS",
    "Closure",
    "DecidedBy",
    "Decision",
    "Effect",
    "Mark",
    "closure_of",
    "decide",
]

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""What passes in read-only mode (RFC 9110, 9.2.1). A WebSocket has no method and does not."""


class DecidedBy(StrEnum):
    """Which rule decided, in the order of precedence: the first that has something to say wins."""

    FORCED_ON = "forced-on"
    FORCED_OFF = "forced-off"
    NO_ROUTE = "no-route"
    EXEMPT = "exempt"
    HOLD = "hold"
    OVERRIDE = "override"
    SWITCH = "switch"
    OPEN = "open"
    """One of the last three, saying that there is no maintenance."""


class Closure(NamedTuple):
    """A worker is closed to everyone whom no earlier rule concerns: by which rule, and what that rule says."""

    rule: DecidedBy
    state: MaintenanceState


class Decision(NamedTuple):
    """Whether a request is refused, by which rule, and what that rule says: the state an answer is made from."""

    refused: bool
    rule: DecidedBy
    state: MaintenanceState


# A forced-on route is not coming back when the maintenance ends, nor is an override, so neither borrows the switch's details.
_FORCED_ON: Final = Decision(True, DecidedBy.FORCED_ON, ON)


_FORCED_OFF: Final = Decision(False, DecidedBy.FORCED_OFF, OFF)


_NO_ROUTE: Final = Decision(False, DecidedBy.NO_ROUTE, OFF)


_EXEMPT: Final = Decision(False, DecidedBy.EXEMPT, OFF)


_OPEN: Final = Decision(False, DecidedBy.OPEN, OFF)


_OVERRIDDEN: Final = Closure(DecidedBy.OVERRIDE, ON)


def closure_of(
    hold: MaintenanceState | None, override: bool | None, switch: MaintenanceState
) -> Closure | None:
    """Rules 5 to 7, once for a snapshot; None where they leave the worker open.

    `hold` is what the live holds say together, and the switch's window is already considered: as `evaluate` returns them.
    """
    if hold is not None:
        return Closure(DecidedBy.HOLD, hold) if hold.enabled else None
    if override is not None:
        return _OVERRIDDEN if override else None
    return Closure(DecidedBy.SWITCH, switch) if switch.enabled else None


def decide(
    *,
    mark: Mark | None,
    found: bool,
    exempt: bool,
    closure: Closure | None,
    method: str | None,
    effect: Effect | None = None,
) -> Decision:
    """Rules 1 to 7 for one request. `method` is in upper case, as ASGI has it; None for a WebSocket.

    In read-only mode the mark `effect` decides, or else the method.
    """
    if mark == "on":
        return _FORCED_ON
    if mark == "off":
        return _FORCED_OFF
    if not found:
        return _NO_ROUTE
    if exempt:
        return _EXEMPT
    if closure is None:
        return _OPEN
    reads = method in SAFE_METHODS if effect is None else effect == "reads"
    return Decision(closure.state.mode != "read-only" or not reads, closure.rule, closure.state)


Mark = Literal["on", "off"]


Effect = Literal["reads", "writes"]
