"""In-flight requests, and which of them a drain waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Final, Protocol, Self

from ..model.precedence import Decision, decide
from ..model.state import OFF, MaintenanceState
from .gate import Gate

if TYPE_CHECKING:  # a script that holds a lease needs no FastAPI
    from starlette.types import Scope

    from ..backends import BaseStateBackend
    from ..exemptions.granted import GrantedExemptions
    from ..routing import RouteMatch

# Seconds for each request, so that a hanging handler delays no other.
_CLASSIFY_TIMEOUT: Final = 1.0


class Owner(Protocol):
    """The mode that admitted an in-flight request, as far as the request needs it.

    `granted` has the exemptions of the states that close the service.
    """

    backend: BaseStateBackend
    gate: Gate
    granted: GrantedExemptions
    requests: InFlightRequests

    def drain_progressed(self) -> None: ...


class InFlightRequest:
    """One request, WebSocket or lifespan while its ASGI call runs.

    `scope` is a copy, because routers write into it: `Mount` moves its root_path. `token` is that
    of `set_current_request`. `route` and `exempt` are None until the request is classified.
    `exempt` covers the lasting exemptions; the ones that a state grants are evaluated for each
    state. `refused_by` is the state that refused the request. `excluded` lists the components that
    blocks inside this request hold closed; None stands for the whole service. `close` ends an open
    WebSocket or stream. There is no `__init__`, as it would double the cost of a request.
    """

    owner: Owner
    scope: Scope
    token: Token[InFlightRequest | None] | None = None
    route: RouteMatch | None = None
    exempt: bool | None = None
    gate: Gate | None = None
    refused_by: MaintenanceState | None = None
    excluded: tuple[str | None, ...] = ()
    close: Callable[[str], Awaitable[None]] | None = None
    _outer: InFlightRequest | None = None

    @classmethod
    def of(cls, owner: Owner, scope: Scope) -> Self:
        """Return a request that an application does not serve: a job or a lifespan."""
        request = cls()
        request.owner, request.scope = owner, scope
        return request

    @property
    def outer(self) -> InFlightRequest | None:
        """The request that this one is answered within, decided when it is first asked for."""
        if self.token is not None:
            before, self.token = self.token.old_value, None
            if isinstance(before, InFlightRequest) and _encloses(before.scope, self.scope):
                self._outer = before
        return self._outer

    @property
    def component(self) -> str | None:
        """The component of the route, if the route is known."""
        return None if self.route is None else self.route.component

    @property
    def state(self) -> MaintenanceState | None:
        """The state by which the gate decided on this request; None for a lifespan."""
        if self.refused_by is not None or self.gate is None:
            return self.refused_by
        closure, state, _ = self.gate.for_component(self.component)
        return closure.state if closure is not None else OFF if state.enabled else state

    def decide(self, gate: Gate, *, found: bool) -> Decision:
        """Apply the precedence rules. The route must be known; `found` is the input of rule 3."""
        route, scope = self.route, self.scope
        assert route is not None
        closure = gate.for_component(route.component).closure
        granted = self.owner.granted
        exempt = self.exempt or (closure is not None and granted.allows(scope, closure.state))
        return decide(
            mark=route.mark,
            found=found,
            exempt=exempt,
            closure=closure,
            method=scope.get("method"),
            effect=route.effect,
        )

    def blocks_drain(self, gate: Gate, component: str | None = None) -> bool:
        """Return whether a drain of a component, or of the whole service, waits for this request.

        A drain waits for the requests that the gate would refuse now, and for those whose route is
        not known yet. A request without a route counts as one with a route, because a middleware
        may be working on it. Refused requests and the one that holds the service closed are left
        out.
        """
        if self.refused_by is not None or None in self.excluded or component in self.excluded:
            return False
        if self.route is None:
            return True
        return component in (None, self.route.component) and self.decide(gate, found=True).refused

    def exclude(self, switch: str, component: str | None) -> None:
        """Leave this request out of drains of a component, or of the whole service.

        This covers the enclosing applications on the same switch, a backend's description.
        """
        for request in self._on(switch):
            request.excluded = (*request.excluded, component)
            request.owner.drain_progressed()

    def include(self, switch: str, component: str | None) -> None:
        """Undo one `exclude`."""
        for request in self._on(switch):
            at = request.excluded.index(component)
            request.excluded = request.excluded[:at] + request.excluded[at + 1 :]

    def _on(self, switch: str) -> Iterator[InFlightRequest]:
        around = self.with_outer()
        return (request for request in around if request.owner.backend.describe() == switch)

    def with_outer(self) -> Iterator[InFlightRequest]:
        """Yield this request, and the same one in each enclosing application."""
        request: InFlightRequest | None = self
        while request is not None:
            yield request
            request = request.outer


def untrack_current_request() -> None:
    """Leave the current request out of drains: a closing no longer waits for its response.

    Call it in an endpoint, or add `Depends(untrack_current_request)` to a route, if the response
    may be endless and writes nothing. It covers enclosing applications. Without a current request
    it does nothing.
    """
    current = current_request.get()
    for request in () if current is None else current.with_outer():
        request.owner.requests.discard(request)
        request.owner.drain_progressed()


def _encloses(outer: Scope, inner: Scope) -> bool:
    """Return whether a request is answered within another.

    That is the same request passed on, or one that an endpoint makes in-process. It is not the next
    request of a pipelining client, although servers start it in the context of the one before:
    linked, each would keep all earlier requests of its connection in memory.
    """
    given = [name for name in ("headers", "state") if inner.get(name) is not None]
    if any(inner[name] is outer.get(name) for name in given):
        return True
    return any(inner.get(name) != outer.get(name) for name in ("client", "server"))


current_request: ContextVar[InFlightRequest | None] = ContextVar("maintenance", default=None)
"""The request or lifespan that the code runs in."""

# Bound once: Python specialises neither method of an imported name.
set_current_request: Final = current_request.set
reset_current_request: Final = current_request.reset


class InFlightRequests(set[InFlightRequest]):
    """The requests in flight of one application.

    While the service is open, a request costs one `add` and one `discard`.
    """

    def blocking(self, gate: Gate, component: str | None = None) -> Iterator[InFlightRequest]:
        """Yield the requests that a drain of a component, or of the whole service, waits for."""
        return (request for request in list(self) if request.blocks_drain(gate, component))

    def count(self, gate: Gate, component: str | None = None) -> tuple[int, int]:
        """Return the numbers of HTTP requests and of WebSockets in flight.

        While closed, only those count that a drain waits for.
        """
        if gate.for_component(component).closure is None:
            counted = [request for request in list(self) if request.refused_by is None]
        else:
            counted = list(self.blocking(gate, component))
        http = sum(request.scope["type"] == "http" for request in counted)
        return http, len(counted) - http

    def is_drained(self, gate: Gate, component: str | None = None) -> bool:
        """Return whether a component, or the whole service, is closed and its drain has ended."""
        closure = gate.for_component(component).closure
        return closure is not None and next(self.blocking(gate, component), None) is None

    async def classify(self, classifier: Callable[[InFlightRequest], Awaitable[None]]) -> None:
        """Classify all unclassified requests concurrently. The rest block the drain."""

        async def ask(request: InFlightRequest) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLASSIFY_TIMEOUT):
                    await classifier(request)

        await asyncio.gather(*(ask(request) for request in list(self) if request.exempt is None))
