"""Routers that are included in others, and the marks around their routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute, APIWebSocketRoute, RouteContext
from starlette.routing import BaseRoute, Router

from ..decorators import Marks

__all__ = ["around", "entered", "frontends", "leaves", "parts_of", "router_in"]


def router_in(route: object) -> Router | None:
    """Return the router that is included as this route."""
    router = getattr(route, "original_router", None)
    is_seen_through = hasattr(route, "include_context") and hasattr(route, "effective_candidates")  # both are FastAPI's own
    return router if isinstance(router, Router) and is_seen_through else None


def around(bearer: object, marks: Marks) -> Marks:
    """Merge in the marks of a router or a route: its own, and those among its dependencies."""
    marks = marks.inside(bearer)
    return marks.among(bearer.dependencies) if isinstance(bearer, APIRouter | APIRoute | APIWebSocketRoute) else marks


def entered(route: Any, marks: Marks) -> Marks:
    """Merge in what was given to `include_router`, if this is an included router."""
    return marks if router_in(route) is None else marks.among(route.include_context.dependencies)


def parts_of(included: Any, marks: Marks) -> Iterator[tuple[BaseRoute | RouteContext, Marks]]:
    """Yield the routes of an included router, and the routers included in it, each with the marks around it."""
    marks = around(included.original_router, marks)
    given = len(included.include_context.dependencies)  # which FastAPI puts before those of the routers further in
    for candidate in included.effective_candidates():
        if router_in(candidate) is None:
            yield RouteContext(candidate.original_route, candidate), marks
        else:
            yield candidate, marks.among(candidate.include_context.dependencies[given:])


def leaves(route: BaseRoute, marks: Marks) -> Iterator[tuple[RouteContext, Marks]]:
    """Yield the route, or every route of an included router, each with the marks inherited from enclosing routers."""
    if router_in(route) is None:
        yield RouteContext(route), marks
        return
    for part, inherited in parts_of(route, marks):
        if isinstance(part, RouteContext):
            yield part, inherited
        else:
            yield from leaves(part, inherited)


def frontends(included: Any, marks: Marks, prefix: str = "") -> Iterator[tuple[object, str, Marks]]:
    """Yield every group of frontends in an included router, with the prefix and the marks around it."""
    router = included.original_router
    marks, prefix = around(router, entered(included, marks)), prefix + included.include_context.prefix
    yield from ((group, prefix, marks) for group in router._low_priority_routes)
    for route in router.routes:
        if router_in(route) is not None:
            yield from frontends(route, marks, prefix)
