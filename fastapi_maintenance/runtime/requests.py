"""In-flight requests, and which of them a drain waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Final, Protocol

from starlette.types import Scope

from ..model.policy import Decision, decide
from ..model.state import OFF, MaintenanceState
from ..routing import RouteMatch
from .gate import Gate

__all__ = [
    "InFlightRequest",
    "InFlightRequests",
    "Owner",
    "current_request",
    "untrack_current_request",
]

_CLASSIFY_TIMEOUT: Final = 1.0  # seconds per request, so that a hanging exempt handler delays neither the others nor the WebSockets


class Owner(Protocol):
    """What an in-flight request needs of the mode that admitted it."""

    gate: Gate
    in_flight: InFlightRequests

    @property
    def switch(self) -> str:
        """The description of the backend, which tells holds of different switches apart."""
        ...

    def is_exempt(self, scope: Scope, state: MaintenanceState) -> bool:
        """Return whether a state that closes the service allows this request."""
        ...

    def drain_progressed(self) -> None:
        """Report soon that a drain has ended, if it has."""
        ...


class InFlightRequest:
    """One request, WebSocket or lifespan while its ASGI call runs.

    `exempt` is the lasting answer of the exemption rules: None until they were asked. What a state itself allows is asked of each
    state. `excluded` lists the components that blocks inside this request hold closed; None stands for the whole service.
    """

    route: RouteMatch | None = None
    exempt: bool | None = None
    gate: Gate | None = None  # by which the request was decided; None for a lifespan
    refused_by: MaintenanceState | None = None
    excluded: tuple[str | None, ...] = ()
    close: Callable[[str], Awaitable[None]] | None = (
        None  # ends an open WebSocket or stream, with a reason
    )

    def __init__(self, owner: Owner, scope: Scope) -> None:
        self.owner = owner
        self.scope = scope
        outer = current_request.get()
        self.outer = outer if outer is not None and _is_around(outer.scope, scope) else None

    @property
    def component(self) -> str | None:
        """The component of the route, if the route is known."""
        return None if self.route is None else self.route.component

    @property
    def state(self) -> MaintenanceState | None:
        """The state by which the gate decided on this request; None for a lifespan."""
        if self.refused_by is not None or self.gate is None:
            return self.refused_by
        closing, state, _ = self.gate.for_component(self.component)
        return closing.state if closing is not None else OFF if state.enabled else state

    def decide(self, gate: Gate, *, found: bool) -> Decision:
        """Apply the precedence rules to this request, whose route must be known. `found` is what rule 3 goes by."""
        route, scope = self.route, self.scope
        assert route is not None
        closing = gate.for_component(route.component).closure
        exempt = self.exempt or (closing is not None and self.owner.is_exempt(scope, closing.state))
        return decide(
            mark=route.mark,
            found=found,
            exempt=exempt,
            closure=closing,
            method=scope.get("method"),
            effect=route.effect,
        )

    def blocks_drain(self, gate: Gate, component: str | None = None) -> bool:
        """Return whether a drain of a component, or of the whole service, waits for this request.

        It does if the gate would refuse the request now. A request without a route may be at work in a middleware, so it counts
        like one with a route. The request that holds the service closed never counts.
        """
        if self.refused_by is not None or None in self.excluded or component in self.excluded:
            return False
        if self.route is None or self.exempt is None:  # not classified yet
            return True
        return component in (None, self.route.component) and self.decide(gate, found=True).refused

    def exclude(self, switch: str, component: str | None) -> None:
        """Leave this request, here and in enclosing applications on that switch, out of drains of a component or of everything."""
        for admission in self._on(switch):
            admission.excluded = (*admission.excluded, component)
            admission.owner.drain_progressed()

    def include(self, switch: str, component: str | None) -> None:
        """Undo one `exclude`."""
        for admission in self._on(switch):
            excluded = [*admission.excluded]
            excluded.remove(component)
            admission.excluded = tuple(excluded)

    def _on(self, switch: str) -> Iterator[InFlightRequest]:
        return (admission for admission in self.with_outer() if admission.owner.switch == switch)

    def with_outer(self) -> Iterator[InFlightRequest]:
        """Yield this request, and the same one in each enclosing application."""
        admission: InFlightRequest | None = self
        while admission is not None:
            yield admission
            admission = admission.outer


def untrack_current_request() -> None:
    """Leave the current request out of drains: a closing no longer waits for its response.

    Call it in an endpoint, or add `Depends(untrack_current_request)`, where a response may be endless and writes nothing. It
    also counts for enclosing applications. Without a current request it does nothing.
    """
    current = current_request.get()
    for admission in () if current is None else current.with_outer():
        admission.owner.in_flight.discard(admission)
        admission.owner.drain_progressed()


def _is_around(outer: Scope, inner: Scope) -> bool:
    """Return whether a request is answered within another: the same one passed on, or one that an endpoint makes in-process.

    The next request of a client that pipelines is not within the one before. Servers start it from the last `send` of that one,
    and so in its context: taken for a part of it, each would keep all earlier requests of its connection in memory.
    """
    if any(
        inner.get(name) is not None and inner[name] is outer.get(name)
        for name in ("headers", "state")
    ):
        return True
    return any(inner.get(name) != outer.get(name) for name in ("client", "server"))


current_request: ContextVar[InFlightRequest | None] = ContextVar(
    "fastapi_maintenance_admission", default=None
)
"""The request or lifespan that the code runs in."""


class InFlightRequests(set[InFlightRequest]):
    """The requests of one application that are in flight. While open, a request costs one `add` and one `discard`."""

    def blocking(self, gate: Gate, component: str | None = None) -> Iterator[InFlightRequest]:
        """Yield the requests that a drain of a component, or of the whole service, waits for."""
        return (admission for admission in list(self) if admission.blocks_drain(gate, component))

    def count(self, gate: Gate, component: str | None = None) -> tuple[int, int]:
        """Return how many HTTP requests and how many WebSockets a drain waits for, or while open, how many there are."""
        if gate.for_component(component).closure is None:
            counted = [admission for admission in list(self) if admission.refused_by is None]
        else:
            counted = list(self.blocking(gate, component))
        http = sum(admission.scope["type"] == "http" for admission in counted)
        return http, len(counted) - http

    def is_drained(self, gate: Gate, component: str | None = None) -> bool:
        """Return whether a component, or the whole service, is closed and no request blocks the drain."""
        return (
            gate.for_component(component).closure is not None
            and next(self.blocking(gate, component), None) is None
        )

    async def classify(self, classifier: Callable[[InFlightRequest], Awaitable[None]]) -> None:
        """Classify all unclassified requests at the same time. A request that stays unclassified blocks the drain."""

        async def ask(admission: InFlightRequest) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLASSIFY_TIMEOUT):
                    await classifier(admission)

        await asyncio.gather(
            *(ask(admission) for admission in list(self) if admission.exempt is None)
        )
