"""Ask the routers in order which route answers, as the application's own routers would."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from fastapi import APIRouter
from fastapi.routing import APIRoute, APIWebSocketRoute, RouteContext
from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router
from starlette.types import Scope

from ..decorators import Marks
from .layers import mounted_app, root_path_of, router_of, unwrap
from .match import NOT_FOUND, RouteMatch, docs_urls, is_refused, routes_itself

__all__ = ["around", "entered", "flatten", "frontends", "parts_of", "router_in", "walk"]


def router_in(route: object) -> Router | None:
    """Return the router that is included as this route."""
    router = getattr(route, "original_router", None)
    is_seen_through = hasattr(route, "include_context") and hasattr(
        route, "effective_candidates"
    )  # both are FastAPI's own
    return router if isinstance(router, Router) and is_seen_through else None


def around(bearer: object, marks: Marks) -> Marks:
    """Merge in the marks of a router or a route: its own, and those among its dependencies."""
    marks = marks.extend(bearer)
    return (
        marks.among(bearer.dependencies)
        if isinstance(bearer, APIRouter | APIRoute | APIWebSocketRoute)
        else marks
    )


def entered(route: Any, marks: Marks) -> Marks:
    """Merge in what was given to `include_router`, if this is an included router."""
    return marks if router_in(route) is None else marks.among(route.include_context.dependencies)


def parts_of(included: Any, marks: Marks) -> Iterator[tuple[BaseRoute | RouteContext, Marks]]:
    """Yield the routes of an included router, and the routers included in it, each with the marks around it."""
    marks = around(included.original_router, marks)
    given = len(
        included.include_context.dependencies
    )  # which FastAPI puts before those of the routers further in
    for candidate in included.effective_candidates():
        if router_in(candidate) is None:
            yield RouteContext(candidate.original_route, candidate), marks
        else:
            yield candidate, marks.among(candidate.include_context.dependencies[given:])


def flatten(route: BaseRoute, marks: Marks) -> Iterator[tuple[RouteContext, Marks]]:
    """Yield the route, or every route of an included router, each with the marks inherited from enclosing routers."""
    if router_in(route) is None:
        yield RouteContext(route), marks
        return
    for part, inherited in parts_of(route, marks):
        if isinstance(part, RouteContext):
            yield part, inherited
        else:
            yield from flatten(part, inherited)


def frontends(included: Any, marks: Marks, prefix: str = "") -> Iterator[tuple[object, str, Marks]]:
    """Yield every group of frontends in an included router, with the prefix and the marks around it."""
    router = included.original_router
    marks, prefix = (
        around(router, entered(included, marks)),
        prefix + included.include_context.prefix,
    )
    yield from ((group, prefix, marks) for group in router._low_priority_routes)
    for route in router.routes:
        if router_in(route) is not None:
            yield from frontends(route, marks, prefix)


_REFUSING: Final = frozenset(
    {Route.handle, APIRoute.handle}
)  # these say 405 where they match only in part


class _Chosen(NamedTuple):
    """A route that a router would choose."""

    match: Match
    route: BaseRoute | RouteContext
    scope: Scope
    marks: Marks


def walk(app: object, scope: Scope) -> RouteMatch:
    """Follow an app down to what answers a scope, which stays as it is. The app around it may be marked, too."""
    return _answer(app, _copy(scope), Marks().extend(scope.get("app")))


def _answer(app: object, scope: Scope, marks: Marks) -> RouteMatch:
    """Follow one app down to what answers; `scope` is ours to change, `marks` are those around the app."""
    layers = list(unwrap(app))
    for layer in layers:
        marks = marks.extend(layer)
    router = router_of(innermost := layers[-1])
    if router is None:
        return RouteMatch.marked(marks)
    marks = around(router, marks)
    if isinstance(innermost, Starlette):
        scope["app"] = innermost
        scope["root_path"] = root_path_of(innermost) or scope.get("root_path", "")
    chosen = _choose(((route, entered(route, marks)) for route in router.routes), scope)
    if chosen is None:
        return _answer_last(router, scope, marks)
    while (included := router_in(chosen.route)) is not None:
        further = _choose(parts_of(chosen.route, chosen.marks), scope)
        if further is None:  # a user's own router that matches without a route
            return _answer_default(included, scope, around(included, chosen.marks))
        chosen = further
    return NOT_FOUND if _is_refusing(chosen) else _land(chosen, router, scope)


def _choose(
    routes: Iterable[tuple[BaseRoute | RouteContext, Marks]], scope: Scope
) -> _Chosen | None:
    """Return the first route that matches fully, else the first that matches in part."""
    partial: _Chosen | None = None
    for route, marks in routes:
        match, child_scope = _matches(route, scope)
        if match is Match.FULL:
            return _Chosen(match, route, child_scope, marks)
        if match is Match.PARTIAL and partial is None:
            partial = _Chosen(match, route, child_scope, marks)
    return partial


def _matches(route: BaseRoute | RouteContext, scope: Scope) -> tuple[Match, Scope]:
    if isinstance(route, RouteContext) and isinstance(original := route.original_route, APIRoute):
        # `route.matches` passes over a user's own route class. FastAPI asks that, and this is how.
        included = {**scope.get("fastapi", {}), "effective_route_context": route._route_context}
        return original.matches({**scope, "fastapi": included})
    match: tuple[Match, Scope] = route.matches(scope)
    return match


def _is_refusing(chosen: _Chosen) -> bool:
    """Return whether a route that matches only in part answers 405; a user's own may do something else."""
    original = getattr(chosen.route, "original_route", None)
    handle: Any = (
        original if isinstance(original, APIRoute) else chosen.route
    ).handle  # as FastAPI calls it
    return chosen.match is Match.PARTIAL and getattr(handle, "__func__", None) in _REFUSING


def _land(chosen: _Chosen, router: Router, scope: Scope) -> RouteMatch:
    """Describe the route that answers, or go on in what is mounted there."""
    original = getattr(chosen.route, "original_route", chosen.route)
    marks = around(original, chosen.marks)
    endpoint = getattr(chosen.route, "endpoint", None) or chosen.scope.get("endpoint")
    if isinstance(original, Mount | Host):
        return _answer(mounted_app(endpoint, original), {**scope, **chosen.scope}, marks)
    if routes_itself(original, endpoint):
        return _answer(endpoint, {**scope, **chosen.scope}, marks)
    method = scope.get("method")
    if is_refused(endpoint, method):
        return NOT_FOUND
    docs = method in ("GET", "HEAD") and getattr(chosen.route, "path", None) in docs_urls(
        scope.get("app"), router
    )
    return RouteMatch.marked(marks.extend(endpoint, method), docs=docs)


def _answer_last(router: Router, scope: Scope, marks: Marks) -> RouteMatch:
    """Describe what a router does if no route of its own answers: redirect for a slash, static frontends, its default."""
    match_frontend: Any = getattr(
        router, "_match_low_priority", None
    )  # what `frontend()` adds has no public walk
    frontend, _, _, context = (
        (Match.NONE, {}, None, None) if match_frontend is None else match_frontend(scope)
    )
    if frontend is Match.NONE and router.default == router.not_found:
        return NOT_FOUND
    if frontend is Match.PARTIAL or _redirects(router, scope):
        return NOT_FOUND
    if frontend is Match.NONE:
        return _answer_default(router, scope, marks)
    return RouteMatch.marked(
        marks if context is None else _marks_of_frontend(router, context, marks)
    )


def _answer_default(router: Router, scope: Scope, marks: Marks) -> RouteMatch:
    return (
        NOT_FOUND if router.default == router.not_found else _answer(router.default, scope, marks)
    )


def _marks_of_frontend(router: Router, context: Any, marks: Marks) -> Marks:
    groups = (
        found
        for route in router.routes
        if router_in(route) is not None
        for found in frontends(route, marks)
    )
    wanted = context.original_route, context.frontend_prefix
    return next((found for group, prefix, found in groups if (group, prefix) == wanted), marks)


def _redirects(router: Router, scope: Scope) -> bool:
    route_path = get_route_path(scope)
    if scope["type"] != "http" or not router.redirect_slashes or route_path == "/":
        return False
    path: str = scope["path"]
    other = {**scope, "path": path.rstrip("/") if route_path.endswith("/") else path + "/"}
    return any(route.matches(other)[0] is not Match.NONE for route in router.routes)


def _copy(scope: Scope) -> Scope:
    """Matching writes into the scope, also into what FastAPI keeps of its own in there."""
    copy = dict(scope)
    if "fastapi" in copy:
        copy["fastapi"] = dict(copy["fastapi"])
    return copy
