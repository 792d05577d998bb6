"""Which endpoint would answer a scope. The only file that knows FastAPI's route tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

from fastapi import FastAPI
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Scope

from .decorators import Mark, Marks, carries, scopes_on

__all__ = ["Resolved", "RouteTable", "layers_of"]

_DEEPEST: Final = 100  # layers of middleware; an object that invents an `.app` for every `.app` must not hang us
_NO_ROUTER: Final = Router()


@dataclass(frozen=True, slots=True)
class Resolved:
    """What would answer a request. `found` is False where the app itself says 404, 405 or redirects for a slash."""

    found: bool
    mark: Mark | None = None
    docs: bool = False
    scope: str | None = None

    @classmethod
    def marked(cls, marks: Marks, *, docs: bool = False) -> Self:
        """An endpoint that bears these."""
        return cls(found=True, mark=marks.mark, docs=docs, scope=marks.scope)


_NOT_FOUND: Final = Resolved(found=False)


class RouteTable:
    """The routes of whatever lies beneath a middleware.

    `tell` is called with the scopes that routes belong to, whenever the routes were looked through.
    """

    def __init__(self, app: ASGIApp, tell: Callable[[frozenset[str]], None] = lambda scopes: None) -> None:
        self._app = app
        self._tell = tell
        self._routed = _routes_beneath(app)
        self._survey: _Survey | None = None

    def has_forced_on(self, scope: Scope) -> bool:
        """Whether any route at all may be forced on, so that this request must be resolved although the service is open.

        Notices routes added later, anywhere in the tree. A mark put on an endpoint whose route was already there is noticed
        only together with the next route: set marks where routes are declared.
        """
        target = self._app if self._routed else self._target(scope)
        survey = self._survey
        if survey is None or not survey.holds(target):
            survey = self._survey = _Survey(target)
            self._tell(frozenset(survey.scopes))
        return survey.forced_on

    def resolve(self, scope: Scope) -> Resolved:
        """Say which endpoint would answer, as the app's own routers would choose it."""
        try:
            return _answer(self._target(scope), _copy(scope), Marks())
        except Exception:
            # A convertor, or a user's own route, failed. The app would most likely answer 500 of its own, but it need not:
            # a middleware between us and the router may add to the scope what that route looks for. So this could be any
            # endpoint; closing it is the only answer that keeps a promise to whoever is migrating.
            return Resolved(found=True)

    def _target(self, scope: Scope) -> ASGIApp:
        """Where routing starts: beneath us, or `scope["app"]` where a middleware beneath us hides what it wraps."""
        if self._routed:
            return self._app
        around = scope.get("app")
        if not isinstance(around, Starlette):
            return self._app
        # That app is around us. Once it has routed (we sit on a mount, a router or a route of it) the scope is no longer the
        # one that its routes are for.
        if "endpoint" in scope and all(layer is not self._app for layer in layers_of(around.middleware_stack)):
            return self._app
        return around


class _Survey:
    """One walk over a whole route tree: is anything forced on, which scopes are there, and how to see that it has grown since."""

    def __init__(self, target: ASGIApp) -> None:
        self._target = target
        self.forced_on = False
        self.scopes: set[str] = set()
        routers: dict[int, Router] = {}
        lists: list[list[BaseRoute]] = []
        self._size = 0
        pending: list[object] = [target]
        while pending:
            layers = list(layers_of(pending.pop()))
            self.forced_on |= any(carries(layer, "on") for layer in layers)
            self.scopes.update(*map(scopes_on, layers))
            router = _router(layers[-1])
            if router is None or id(router) in routers:
                continue
            routers[id(router)] = router
            lists.append(router.routes)
            routes = list(router.routes)  # counted as walked, should another thread add one meanwhile
            self._size += len(routes)
            pending += self._visit(routes)
            if router.default != router.not_found:
                pending.append(router.default)
        self._lists = tuple(lists)
        self._outermost = next(iter(routers.values()), _NO_ROUTER)
        self._last = self._outermost.routes[-1:]

    def holds(self, target: ASGIApp) -> bool:
        """Whether nothing was added since. Costs by the number of routers, not of routes, and by nothing once forced on."""
        if self._target is not target:
            return False
        # The last route tells one that was replaced, which leaves the count as it was.
        return self.forced_on or (sum(map(len, self._lists)) == self._size and self._outermost.routes[-1:] == self._last)

    def _visit(self, routes: Sequence[BaseRoute]) -> Iterator[object]:
        for route in routes:
            if isinstance(route, Mount | Host):
                yield _mounted(route.app, route)
            elif isinstance(included := getattr(route, "original_router", None), Router):
                yield included
            elif (endpoint := getattr(route, "endpoint", None)) is not None:
                self.forced_on |= carries(endpoint, "on")
                self.scopes |= scopes_on(endpoint)
            else:
                # A route of a kind that we cannot look into: right and slower, rather than fast and blind.
                self.forced_on = True


def _answer(app: object, scope: Scope, marks: Marks) -> Resolved:
    """Follow one app down to what answers; `scope` is ours to change, `marks` are what the mounts above carry."""
    layers = list(layers_of(app))
    for layer in layers:
        marks = marks.inside(layer)
    router = _router(innermost := layers[-1])
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
    return _NOT_FOUND if refused else _answer_last(router, scope, marks)


def _leaf(route: BaseRoute, scope: Scope, child_scope: Scope, marks: Marks) -> tuple[BaseRoute | RouteContext, Scope, Marks]:
    """The route itself, or the one that answers where a whole router is included there, with what those routers are marked with."""
    if not isinstance(route, Route | WebSocketRoute | Mount | Host):
        included = _included([route], marks)
        for context in iter_route_contexts([route]):
            # Both walk in one order, and a router that is included twice is met twice.
            around = next((found for original, found in included if original is context.original_route), marks)
            match, inner_scope = _matches(context, scope)
            if match is Match.FULL:
                return context, inner_scope, around
    return route, child_scope, marks


def _included(routes: Sequence[BaseRoute], marks: Marks) -> Iterator[tuple[BaseRoute, Marks]]:
    """Every route, also of included routers, with what the routers around it are marked with."""
    for route in routes:
        if isinstance(router := getattr(route, "original_router", None), Router):
            yield from _included(router.routes, marks.inside(router))
        else:
            yield route, marks


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
        return _answer(_mounted(endpoint, original), {**scope, **child_scope}, marks)
    method = scope.get("method")
    if _is_refused(endpoint, method):
        return _NOT_FOUND
    docs = method in ("GET", "HEAD") and getattr(leaf, "path", None) in _docs_urls(scope.get("app"), router)
    return Resolved.marked(marks.inside(endpoint, method), docs=docs)


def _answer_last(router: Router, scope: Scope, marks: Marks) -> Resolved:
    """What a router does when no route of its own answers: redirect for a slash, static frontends, its default."""
    match_frontend: Any = getattr(router, "_match_low_priority", None)  # what `frontend()` adds has no public walk
    frontend = Match.NONE if match_frontend is None else match_frontend(scope)[0]
    has_default = router.default != router.not_found
    if frontend is Match.NONE and not has_default:
        return _NOT_FOUND
    if frontend is Match.PARTIAL or _redirects(router, scope):
        return _NOT_FOUND
    return Resolved.marked(marks) if frontend is Match.FULL else _answer(router.default, scope, marks)


def _redirects(router: Router, scope: Scope) -> bool:
    path: str = scope["path"]
    if scope["type"] != "http" or not router.redirect_slashes or path in ("/", scope.get("root_path", "") + "/"):
        return False
    other = {**scope, "path": path.rstrip("/") if path.endswith("/") else path + "/"}
    return any(route.matches(other)[0] is not Match.NONE for route in router.routes)


def _is_refused(endpoint: object, method: str | None) -> bool:
    """Whether a class-based endpoint says 405 by itself: it takes every method and looks for a handler later."""
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    if method is None or not (isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint)):
        return False
    if endpoint.dispatch is not HTTPEndpoint.dispatch:
        return False
    # Newer versions of Starlette also refuse a few methods that have a handler. Older ones run it, so it counts as found.
    handlers = ("head", "get") if method == "HEAD" else (method.lower(),)
    return all(getattr(endpoint, name, None) is None for name in handlers)


def _docs_urls(app: object, router: Router) -> tuple[str | None, ...]:
    """The documentation's paths, as configured in the app whose own router this is."""
    if not isinstance(app, FastAPI) or app.router is not router or not app.openapi_url:
        return ()
    oauth2_redirect = app.swagger_ui_oauth2_redirect_url if app.docs_url else None
    return tuple(url for url in (app.openapi_url, app.docs_url, app.redoc_url, oauth2_redirect) if url)


def layers_of(app: object) -> Iterator[object]:
    """An app, then what it wraps, and so on inwards until something routes or nothing more can be seen."""
    for _ in range(_DEEPEST):
        yield app
        if isinstance(app, Starlette | Router):
            return
        owner = getattr(app, "__self__", None)  # a router hands its own bound method `app` to its middlewares
        app = owner if isinstance(owner, Starlette | Router) else getattr(app, "app", None)
        if app is None:
            return


def _router(app: object) -> Router | None:
    if isinstance(app, Starlette):
        return app.router
    return app if isinstance(app, Router) else None


def _routes_beneath(app: object) -> bool:
    return any(_router(layer) is not None for layer in layers_of(app))


def _mounted(app: object, mount: Mount | Host) -> object:
    """What is mounted. Where a middleware of the mount hides what it wraps, the mount remembers."""
    return app if _routes_beneath(app) else getattr(mount, "_base_app", app)


def _copy(scope: Scope) -> Scope:
    """Matching writes into the scope, also into what FastAPI keeps of its own in there."""
    copy = dict(scope)
    if "fastapi" in copy:
        copy["fastapi"] = dict(copy["fastapi"])
    return copy
