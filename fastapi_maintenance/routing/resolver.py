"""Ask the routers in order which route answers, as the application itself does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, Self

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router
from starlette.types import Scope

from ..decorators import Marks
from .layers import mounted_app, router_of, unwrap
from .match import NOT_FOUND, RouteMatch, docs_urls, is_application, rejects_method

# These answer 405 to a partial match.
_REJECTING: Final = frozenset({Route.handle, APIRoute.handle})


class Part(NamedTuple):
    """A route or an included router, with the marks around it.

    `effective` is the object whose path, methods and endpoint FastAPI uses: inside an included
    router, it has the prefix.
    """

    original: BaseRoute
    effective: Any
    marks: Marks

    @classmethod
    def of(cls, route: BaseRoute, marks: Marks) -> Self:
        """Return a route of a router that is not included."""
        return cls(route, route, with_inclusion(route, marks))


class _Choice(NamedTuple):
    """The route that a router would choose."""

    match: Match
    part: Part
    scope: Scope


def resolve(app: object, scope: Scope) -> RouteMatch:
    """Return what answers a scope in an app. The scope stays unchanged.

    The marks of the enclosing application in `scope["app"]` count, too.
    """
    copy = dict(scope)
    if "fastapi" in copy:  # matching writes into this dictionary
        copy["fastapi"] = dict(copy["fastapi"])
    return _match_app(app, copy, Marks().extend(scope.get("app")))


# -- marks -----------------------------------------------------------------------------------------


def included_router(route: object) -> Router | None:
    """Return the router that is included as this route."""
    router = getattr(route, "original_router", None)
    is_known = hasattr(route, "include_context") and hasattr(route, "effective_candidates")
    return router if isinstance(router, Router) and is_known else None


def with_own(target: object, marks: Marks) -> Marks:
    """Merge in the marks of a router or a route, and those among its dependencies."""
    marks = marks.extend(target)
    if not isinstance(target, APIRouter | APIRoute | APIWebSocketRoute):
        return marks
    return marks.among(target.dependencies)


def with_inclusion(route: Any, marks: Marks) -> Marks:
    """Merge in the marks among the dependencies of `include_router`, if the route is one."""
    if included_router(route) is None:
        return marks
    return marks.among(route.include_context.dependencies)


def enter(app: object, marks: Marks) -> tuple[object, Router | None, Marks]:
    """Unwrap an app. Return its innermost layer, the router of that, and the marks up to there."""
    layer = app
    for layer in unwrap(app):
        marks = marks.extend(layer)
    router = router_of(layer)
    return layer, router, marks if router is None else with_own(router, marks)


def parts_of(part: Part) -> Iterator[Part]:
    """Yield the routes and nested routers of an included router."""
    included = part.effective
    marks = with_own(included.original_router, part.marks)
    inherited = len(included.include_context.dependencies)  # FastAPI puts these first
    for inner in included.effective_candidates():
        if included_router(inner) is None:
            effective = getattr(inner, "starlette_route", None) or inner
            yield Part(inner.original_route, effective, marks)
        else:
            yield Part(inner, inner, marks.among(inner.include_context.dependencies[inherited:]))


def flatten(part: Part) -> Iterator[Part]:
    """Yield the route itself, or every route of an included router."""
    if included_router(part.original) is None:
        yield part
    else:
        for inner in parts_of(part):
            yield from flatten(inner)


def _frontends(
    included: Any, marks: Marks, prefix: str = ""
) -> Iterator[tuple[object, str, Marks]]:
    """Yield every group of frontends in an included router, with the prefix and marks around it."""
    router = included.original_router
    marks = with_own(router, with_inclusion(included, marks))
    prefix += included.include_context.prefix
    yield from ((group, prefix, marks) for group in router._low_priority_routes)
    for route in filter(included_router, router.routes):
        yield from _frontends(route, marks, prefix)


# -- matching --------------------------------------------------------------------------------------


def _match_app(app: object, scope: Scope, marks: Marks) -> RouteMatch:
    """Return what answers in one app. Writes into `scope`."""
    innermost, router, marks = enter(app, marks)
    if router is None:
        return RouteMatch(True, *marks)
    if isinstance(innermost, Starlette):
        scope["app"] = innermost
        if isinstance(innermost, FastAPI) and innermost.root_path:
            scope["root_path"] = innermost.root_path
    choice = _choose((Part.of(route, marks) for route in router.routes), scope)
    if choice is None:
        return _match_last(router, scope, marks)
    while (included := included_router(choice.part.original)) is not None:
        inner = _choose(parts_of(choice.part), scope)
        if inner is None:  # a custom router that matches without a route
            return _match_default(included, scope, with_own(included, choice.part.marks))
        choice = inner
    return NOT_FOUND if _rejects(choice) else _match_route(choice, router, scope)


def _choose(parts: Iterable[Part], scope: Scope) -> _Choice | None:
    """Return the first route that matches fully, or else the first that matches partially."""
    partial: _Choice | None = None
    for part in parts:
        match, child_scope = _matches(part, scope)
        if match is Match.FULL:
            return _Choice(match, part, child_scope)
        if match is Match.PARTIAL and partial is None:
            partial = _Choice(match, part, child_scope)
    return partial


def _matches(part: Part, scope: Scope) -> tuple[Match, Scope]:
    original, effective, _ = part
    if isinstance(original, APIRoute) and effective is not original:
        # FastAPI asks the original, which may be of a custom class, in this way.
        fastapi = {**scope.get("fastapi", {}), "effective_route_context": effective}
        return original.matches({**scope, "fastapi": fastapi})
    match: tuple[Match, Scope] = effective.matches(scope)
    return match


def _rejects(choice: _Choice) -> bool:
    """Return whether the route answers 405. A custom one may answer a partial match otherwise."""
    original, effective, _ = choice.part
    handle = (original if isinstance(original, APIRoute) else effective).handle
    return choice.match is Match.PARTIAL and getattr(handle, "__func__", None) in _REJECTING


def _match_route(choice: _Choice, router: Router, scope: Scope) -> RouteMatch:
    """Return the match of the chosen route, or what answers in the app that is mounted there."""
    original, effective, around = choice.part
    marks = with_own(original, around)
    child_scope = {**scope, **choice.scope}
    endpoint = getattr(effective, "endpoint", None) or choice.scope.get("endpoint")
    if isinstance(original, Mount | Host):
        return _match_app(mounted_app(endpoint, original), child_scope, marks)
    if is_application(endpoint):
        return _match_app(endpoint, child_scope, marks)
    method = scope.get("method")
    if rejects_method(endpoint, method):
        return NOT_FOUND
    is_docs = getattr(effective, "path", None) in docs_urls(scope.get("app"), router)
    docs = is_docs and method in ("GET", "HEAD")
    return RouteMatch(True, *marks.extend(endpoint, method), docs)


def _match_last(router: Router, scope: Scope, marks: Marks) -> RouteMatch:
    """Return what a router does without a matching route: a redirect, a frontend, its default."""
    frontend: Any = getattr(router, "_match_low_priority", None)  # `frontend()` has no public walk
    match, _, _, context = (Match.NONE, {}, None, None) if frontend is None else frontend(scope)
    if match is Match.NONE and router.default == router.not_found:
        return NOT_FOUND
    if match is Match.PARTIAL or _redirects(router, scope):
        return NOT_FOUND
    if match is Match.NONE:
        return _match_default(router, scope, marks)
    return RouteMatch(
        True, *(marks if context is None else _frontend_marks(router, context, marks))
    )


def _match_default(router: Router, scope: Scope, marks: Marks) -> RouteMatch:
    is_missing = router.default == router.not_found
    return NOT_FOUND if is_missing else _match_app(router.default, scope, marks)


def _frontend_marks(router: Router, context: Any, marks: Marks) -> Marks:
    wanted = context.original_route, context.frontend_prefix
    for route in filter(included_router, router.routes):
        for group, prefix, around in _frontends(route, marks):
            if (group, prefix) == wanted:
                return around
    return marks


def _redirects(router: Router, scope: Scope) -> bool:
    """Return whether a router redirects to the same path with or without a slash at its end."""
    route_path = get_route_path(scope)
    if scope["type"] != "http" or not router.redirect_slashes or route_path == "/":
        return False
    path: str = scope["path"]
    other = {**scope, "path": path.rstrip("/") if route_path.endswith("/") else path + "/"}
    return any(route.matches(other)[0] is not Match.NONE for route in router.routes)
