"""Asking every route in turn, as the app's own routers would."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, RouteContext
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import Scope

from ..decorators import Marks
from .included import leaves
from .layers import layers_of, mounted, router_of
from .resolved import NOT_FOUND, Resolved, docs_urls, is_refused

__all__ = ["walk"]


def walk(app: object, scope: Scope) -> Resolved:
    """Follow an app down to what answers a scope, which stays as it is."""
    return _answer(app, _copy(scope), Marks())


def _answer(app: object, scope: Scope, marks: Marks) -> Resolved:
    """Follow one app down to what answers; `scope` is ours to change, `marks` are what the mounts above carry."""
    layers = list(layers_of(app))
    for layer in layers:
        marks = marks.inside(layer)
    router = router_of(innermost := layers[-1])
    if router is None:
        return Resolved.marked(marks)
    if isinstance(innermost, Starlette):
        scope["app"] = innermost
        if isinstance(innermost, FastAPI) and innermost.root_path:
            scope["root_path"] = innermost.root_path
    refused = False
    for route in router.routes:
        match, child_scope = route.matches(scope)
        if match is Match.FULL:
            leaf, child_scope, marks = _leaf(route, scope, child_scope, marks)
            return _land(leaf, router, scope, child_scope, marks)
        refused = refused or match is Match.PARTIAL
    return NOT_FOUND if refused else _answer_last(router, scope, marks)


def _leaf(route: BaseRoute, scope: Scope, child_scope: Scope, marks: Marks) -> tuple[BaseRoute | RouteContext, Scope, Marks]:
    """The route itself, or the one that answers where a whole router is included there, with what those routers are marked with."""
    if not isinstance(route, Route | WebSocketRoute | Mount | Host):
        for context, around in leaves(route, marks):
            match, inner_scope = _matches(context, scope)
            if match is Match.FULL:
                return context, inner_scope, around
    return route, child_scope, marks


def _matches(context: RouteContext, scope: Scope) -> tuple[Match, Scope]:
    route = context.original_route
    effective = getattr(context, "_route_context", None)
    if effective is not None and isinstance(route, APIRoute) and type(route).matches is not APIRoute.matches:
        # `context.matches` passes over what a route class of a user's own says; FastAPI asks it, and this is how.
        included = {**scope.get("fastapi", {}), "effective_route_context": effective}
        return route.matches({**scope, "fastapi": included})
    match: tuple[Match, Scope] = context.matches(scope)
    return match


def _land(leaf: BaseRoute | RouteContext, router: Router, scope: Scope, child_scope: Scope, marks: Marks) -> Resolved:
    """Describe the route that answers, or go on in what is mounted there."""
    original = getattr(leaf, "original_route", leaf)
    endpoint = getattr(leaf, "endpoint", None) or child_scope.get("endpoint")
    if isinstance(original, Mount | Host):
        return _answer(mounted(endpoint, original), {**scope, **child_scope}, marks)
    method = scope.get("method")
    if is_refused(endpoint, method):
        return NOT_FOUND
    docs = method in ("GET", "HEAD") and getattr(leaf, "path", None) in docs_urls(scope.get("app"), router)
    return Resolved.marked(marks.inside(endpoint, method), docs=docs)


def _answer_last(router: Router, scope: Scope, marks: Marks) -> Resolved:
    """What a router does when no route of its own answers: redirect for a slash, static frontends, its default."""
    match_frontend: Any = getattr(router, "_match_low_priority", None)  # what `frontend()` adds has no public walk
    frontend = Match.NONE if match_frontend is None else match_frontend(scope)[0]
    has_default = router.default != router.not_found
    if frontend is Match.NONE and not has_default:
        return NOT_FOUND
    if frontend is Match.PARTIAL or _redirects(router, scope):
        return NOT_FOUND
    return Resolved.marked(marks) if frontend is Match.FULL else _answer(router.default, scope, marks)


def _redirects(router: Router, scope: Scope) -> bool:
    path: str = scope["path"]
    if scope["type"] != "http" or not router.redirect_slashes or path in ("/", scope.get("root_path", "") + "/"):
        return False
    other = {**scope, "path": path.rstrip("/") if path.endswith("/") else path + "/"}
    return any(route.matches(other)[0] is not Match.NONE for route in router.routes)


def _copy(scope: Scope) -> Scope:
    """Matching writes into the scope, also into what FastAPI keeps of its own in there."""
    copy = dict(scope)
    if "fastapi" in copy:
        copy["fastapi"] = dict(copy["fastapi"])
    return copy
