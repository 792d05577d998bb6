"""The routes of an application: one scan of the whole tree, and which route would answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount, Router
from starlette.types import ASGIApp, Scope

from ..decorators import Marks, all_marks
from .index import RouteIndex
from .layers import mounted_app, router_of, routes_beneath, unwrap
from .match import RouteMatch, routes_itself
from .resolver import around, entered, parts_of, router_in, walk

__all__ = ["RouteScan", "RouteTable"]


class RouteTable:
    """The routes of whatever lies beneath a middleware.

    `tell` is called with the components that routes belong to, whenever the routes were looked through.
    """

    def __init__(
        self, app: ASGIApp, tell: Callable[[frozenset[str]], None] = lambda components: None
    ) -> None:
        self._app = app
        self._tell = tell
        self._routed = routes_beneath(app)
        *_, innermost = unwrap(app)
        self.application = innermost if isinstance(innermost, FastAPI) else None
        """The application, if the middleware is around it: then requests come as they were before it set its `root_path`."""
        self._survey: RouteScan | None = None

    def scan(self, scope: Scope) -> RouteScan:
        """What there is to know of all routes together.

        Notices routes added later, anywhere in the tree. A mark put on an endpoint whose route was already there is noticed
        only together with the next route: set marks where routes are declared.
        """
        target = self._app if self._routed else self._target(scope)
        survey = self._survey
        if survey is None or not survey.is_current(target):
            survey = self._survey = RouteScan(target, scope.get("app"))
            self._tell(frozenset(survey.components))
        return survey

    def resolve(self, scope: Scope) -> RouteMatch:
        """Say which endpoint would answer, as the app's own routers would choose it."""
        return self.scan(scope).resolve(scope)

    def localize(self, scope: Scope) -> bool:
        """Put the application's own `root_path` into a scope, as FastAPI does when it is reached. Returns whether that differs."""
        root_path = "" if self.application is None else self.application.root_path
        if not root_path or scope.get("root_path") == root_path:
            return False
        scope["root_path"] = root_path
        return True

    def _target(self, scope: Scope) -> ASGIApp:
        """Where routing starts if a middleware beneath us hides what it wraps: in `scope["app"]`, if that is what it wraps."""
        around = scope.get("app")
        if not isinstance(around, Starlette):
            return self._app
        # That app is around us. Once it has routed (we sit on a mount, a router or a route of it) the scope is no longer the
        # one that its routes are for.
        if "endpoint" in scope and all(
            layer is not self._app for layer in unwrap(around.middleware_stack)
        ):
            return self._app
        return around


_NO_ROUTER: Final = Router()


class RouteScan:
    """One walk over a whole route tree: is anything forced on, which components are there, and how to see that it has grown since."""

    def __init__(self, target: ASGIApp, around: object = None) -> None:
        self._target = target
        self._around = around  # an application that we are a middleware of
        self._scan()

    def is_current(self, target: ASGIApp) -> bool:
        """Whether nothing was added since. Costs by the number of routers, not of routes."""
        if self._target is not target or sum(map(len, self._lists)) != self._size:
            return False
        routes = self._outermost.routes
        return (
            not routes or routes[-1] is self._last
        )  # tells one that was replaced, which leaves the count as it was

    def resolve(self, scope: Scope) -> RouteMatch:
        """Say which endpoint would answer, as the app's own routers would choose it."""
        if [
            router.routes for router in self._routers
        ] != self._copies:  # identity first: a millisecond for 100,000 routes
            self._scan()
        app = scope.get("app")
        try:
            index = self._indexes.get(id(app)) or self._index(app)
            found = index.find(
                scope["type"], scope.get("method"), scope["path"], scope.get("root_path", "")
            )
            return found or walk(self._target, scope)
        except Exception:
            # A convertor, or a user's own route, failed. The app would most likely answer 500 of its own, but it need not:
            # a middleware between us and the router may add to the scope what that route looks for. So this could be any
            # endpoint; closing it is the only answer that keeps a promise to whoever is migrating.
            return RouteMatch(found=True)

    def _scan(self) -> None:
        self.forced_on = False
        self.components: set[str] = set()
        routers: dict[int, Router] = {}
        lists: list[list[BaseRoute]] = []
        self._copies: list[list[BaseRoute]] = []
        pending: list[object] = [self._target]
        self._note(self._around)
        while pending:
            layers = list(unwrap(pending.pop()))
            self._note(*layers)
            router = router_of(layers[-1])
            if router is None or id(router) in routers:
                continue
            routers[id(router)] = router
            self._note(router)
            lists.append(router.routes)
            routes = list(
                router.routes
            )  # counted as walked, should another thread add one meanwhile
            self._copies.append(routes)
            pending += self._visit(routes)
            if router.default != router.not_found:
                pending.append(router.default)
        self._routers = tuple(routers.values())
        self._lists = tuple(lists)
        self._size = sum(map(len, self._copies))
        self._outermost = next(iter(self._routers), _NO_ROUTER)
        self._last = next(reversed(self._outermost.routes), None)
        self._indexes: dict[int, RouteIndex] = {}  # made by need, for the app around: mostly one

    def _index(self, app: object) -> RouteIndex:
        index = self._indexes[id(app)] = RouteIndex(self._target, app)
        return index

    def _visit(self, routes: Sequence[BaseRoute]) -> Iterator[object]:
        for route in routes:
            self._note(route)
            if isinstance(route, Mount | Host):
                yield mounted_app(route.app, route)
            elif (included := router_in(route)) is not None:
                yield included
                # FastAPI keeps what it made of an included router, also what has left the list since.
                kept: list[Any] = [
                    getattr(part, "original_route", part) for part, _ in parts_of(route, Marks())
                ]
                listed = {*map(id, included.routes)}
                yield from self._visit([each for each in kept if id(each) not in listed])
            elif (endpoint := getattr(route, "endpoint", None)) is None:
                # A route of a kind that we cannot look into: right and slower, rather than fast and blind.
                self.forced_on = True
            elif routes_itself(route, endpoint):
                yield endpoint
            else:
                self._note(endpoint)

    def _note(self, *bearers: object) -> None:
        for bearer in bearers:
            for marks in (around(bearer, entered(bearer, Marks())), *all_marks(bearer)):
                self.forced_on |= marks.mark == "on"
                if marks.component is not None:
                    self.components.add(marks.component)
