"""The requests that a worker has let in and not yet finished, and whom a closing must wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.types import Scope

from ._policy import decide
from .decorators import Effect, Mark
from .knowledge import Gate
from .state import OFF, MaintenanceState

if TYPE_CHECKING:
    from .mode import MaintenanceMode

__all__ = ["Admission", "InFlight", "Standing", "current_admission", "untrack_current_request"]

_PATIENCE: Final = 1.0  # seconds for each exempt handler, so that one that hangs keeps neither the others nor the WebSockets waiting


class Standing(NamedTuple):
    """What the precedence table asks of a request. `exempt` is for good: what a state allows is asked of each state."""

    mark: Mark | None
    found: bool
    exempt: bool
    scope: str | None = None
    effect: Effect | None = None


class Admission:
    """One request, WebSocket or lifespan while its ASGI call runs."""

    __slots__ = ("decided", "evict", "gate", "holding", "mode", "outer", "scope", "standing")

    decided: MaintenanceState  # what it was refused by; set for refused requests alone
    gate: Gate  # what it was judged by; a lifespan has none

    def __init__(self, mode: MaintenanceMode, scope: Scope) -> None:
        self.mode = mode
        self.scope = scope
        outer = current_admission.get()
        self.outer = outer if outer is not None and _is_around(outer.scope, scope) else None
        self.standing: Standing | None = None  # classified when somebody asks, not while the service is open
        self.holding: tuple[str | None, ...] = ()  # what the blocks that it is in hold closed here: scopes, or everything
        self.evict: Callable[[str], Awaitable[None]] | None = None  # sends an open WebSocket away, saying why

    @property
    def belongs_to(self) -> str | None:
        """The scope of its route, as far as that was found out."""
        return None if self.standing is None else self.standing.scope

    @property
    def state(self) -> MaintenanceState | None:
        """The state that this request was decided by; None before that, and for a lifespan."""
        gate: Gate | None = getattr(self, "gate", None)
        if gate is None:
            return None
        closing, state, _ = gate.of(self.belongs_to)
        admitted_by = closing.state if closing is not None else state if not state.enabled else OFF
        return getattr(self, "decided", admitted_by)

    def concerned_by(self, gate: Gate, scope: str | None = None) -> bool:
        """Whether it would be refused by this gate now, and is to be waited for where a scope, or everything, was closed.

        The one that closed is never waited for.
        """
        if None in self.holding or scope in self.holding:
            return False
        if self.standing is None:
            return True
        mark, _, exempt, own, effect = self.standing
        if scope not in (None, own):
            return False
        closing = gate.of(own).closing
        exempt = exempt or (closing is not None and self.mode.guests.include(self.scope, closing.state))
        # Without a route it may be at work in a middleware, so it counts like one with a route.
        method = self.scope.get("method")
        return decide(mark=mark, found=True, exempt=exempt, closing=closing, method=method, effect=effect).refused

    def hold(self, switch: str, scope: str | None, *, lets_go: bool) -> None:
        """Note that this request holds a scope, or everything, in one block more or less, here and in the applications around this one.

        `switch` is how the block's backend is called. Of another switch's closing nobody is excused by that.
        """
        admission: Admission | None = self
        while admission is not None:
            if admission.mode.backend.describe() == switch:
                held = [*admission.holding, *([] if lets_go else [scope])]
                if lets_go:
                    held.remove(scope)
                admission.holding = tuple(held)
                admission.mode.in_flight_changed()
            admission = admission.outer


def untrack_current_request() -> None:
    """Leave the current request out of drains: a closing no longer waits for its response.

    Call it in an endpoint, or add `Depends(untrack_current_request)`, where a response may be endless and writes nothing. It
    also counts for enclosing applications. Without a current request it does nothing.
    """
    admission = current_admission.get()
    while admission is not None:
        admission.mode.in_flight.discard(admission)
        admission.mode.in_flight_changed()
        admission = admission.outer


def _is_around(outer: Scope, inner: Scope) -> bool:
    """Whether a request is answered within another: the same one passed on, or one that an endpoint makes in-process.

    Not within it is the next one of a client that pipelines. Servers start that from the last `send` of the one before, and so in
    its context: taken for a part of it, each would keep all the earlier ones of its connection in memory.
    """
    if any(inner.get(name) is not None and inner[name] is outer.get(name) for name in ("headers", "state")):
        return True
    return any(inner.get(name) != outer.get(name) for name in ("client", "server"))


current_admission: ContextVar[Admission | None] = ContextVar("fastapi_maintenance_admission", default=None)
"""The request or lifespan that the code runs in."""


class InFlight(set[Admission]):
    """The admissions of one application. Open, a request costs it one `add` and one `discard`."""

    def concerned_by(self, gate: Gate, scope: str | None = None) -> Iterator[Admission]:
        """Those that whoever closed a scope, or everything, must wait for."""
        return (admission for admission in list(self) if admission.concerned_by(gate, scope))

    def count(self, gate: Gate, scope: str | None = None) -> tuple[int, int]:
        """How many HTTP requests and how many WebSockets: those to wait for, or all while open."""
        waited_for = list(self if gate.of(scope).closing is None else self.concerned_by(gate, scope))
        http = sum(admission.scope["type"] == "http" for admission in waited_for)
        return http, len(waited_for) - http

    def is_drained(self, gate: Gate, scope: str | None = None) -> bool:
        """Whether the scope, or everything, is closed and nobody has to be waited for."""
        return gate.of(scope).closing is not None and next(self.concerned_by(gate, scope), None) is None

    async def classify(self, standing_of: Callable[[Scope], Awaitable[Standing]]) -> None:
        """Find out who need not be waited for: all are asked about at once, and whoever stays unclear is waited for."""

        async def ask(admission: Admission) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    admission.standing = await standing_of(admission.scope)

        await asyncio.gather(*(ask(admission) for admission in list(self) if admission.standing is None))
