"""Routers that are included in others, taken apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import BaseRoute, Router

from ..decorators import Marks

__all__ = ["leaves", "router_in"]


def leaves(route: BaseRoute, marks: Marks) -> Iterator[tuple[RouteContext, Marks]]:
    """The route itself, or all routes of the router that is included there; with what the routers around them are marked with."""
    around = _around([route], marks)
    for context in iter_route_contexts([route]):
        # Both walk in one order, and a router that is included twice is met twice.
        yield context, next((found for original, found in around if original is context.original_route), marks)


def router_in(route: BaseRoute) -> Router | None:
    """The router that is included as this route."""
    router = getattr(route, "original_router", None)
    return router if isinstance(router, Router) else None


def _around(routes: Sequence[BaseRoute], marks: Marks) -> Iterator[tuple[BaseRoute, Marks]]:
    for route in routes:
        if (router := router_in(route)) is None:
            yield route, marks
        else:
            yield from _around(router.routes, marks.inside(router))
