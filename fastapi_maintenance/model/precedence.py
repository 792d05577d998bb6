"""The precedence rules that decide whether a request is refused. Pure functions.

`evaluate` decides before them between holds and switches; `InFlightRequest.decide` calls them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal, NamedTuple

from .state import OFF, ON, MaintenanceState

Mark = Literal["on", "off"]
Effect = Literal["reads", "writes"]

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""The methods that pass in read-only mode (RFC 9110, 9.2.1). A WebSocket does not pass."""


class DecidedBy(StrEnum):
    """The rule that decided, in the order of precedence: the first rule that applies wins."""

    FORCED_ON = "forced-on"
    FORCED_OFF = "forced-off"
    NO_ROUTE = "no-route"
    EXEMPT = "exempt"
    HOLD = "hold"
    OVERRIDE = "override"
    SWITCH = "switch"
    OPEN = "open"
    """One of the last three, without maintenance."""


class Closure(NamedTuple):
    """The rule that closes the gate, and its state."""

    rule: DecidedBy
    state: MaintenanceState


class Decision(NamedTuple):
    """The decision on a request: refused or not, by which rule, and the state to describe."""

    refused: bool
    rule: DecidedBy
    state: MaintenanceState


# The end of a maintenance opens neither a forced-on route nor an override, so both leave out the
# details of the switch.
_FORCED_ON: Final = Decision(True, DecidedBy.FORCED_ON, ON)
_FORCED_OFF: Final = Decision(False, DecidedBy.FORCED_OFF, OFF)
_NO_ROUTE: Final = Decision(False, DecidedBy.NO_ROUTE, OFF)
_EXEMPT: Final = Decision(False, DecidedBy.EXEMPT, OFF)
_OPEN: Final = Decision(False, DecidedBy.OPEN, OFF)
_OVERRIDDEN: Final = Closure(DecidedBy.OVERRIDE, ON)


def closure_of(
    hold: MaintenanceState | None, override: bool | None, switch: MaintenanceState
) -> Closure | None:
    """Apply rules 5 to 7 to a snapshot. Returns None if they leave the gate open.

    `hold` combines the active holds, and `switch` is the state after its window was applied, as
    `evaluate` returns both.
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
    """Apply rules 1 to 7 to one request.

    `method` is in upper case, as ASGI servers send it, and None for a WebSocket. In read-only mode
    the mark `effect` decides; without it, the method does.
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
