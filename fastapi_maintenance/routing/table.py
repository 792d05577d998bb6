"""The routes of an application: one scan of the whole tree, and the route that would answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Final

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount, Router
from starlette.types import ASGIApp, Scope

from ..decorators import Marks, all_marks
from .index import RouteIndex
from .layers import has_router, mounted_app, router_of, unwrap
from .match import RouteMatch, is_application
from .resolver import Part, included_router, parts_of, resolve, with_inclusion, with_own

_NO_ROUTER: Final = Router()
_routes_of = attrgetter("routes")


class RouteTable:
    """The routes beneath a middleware.

    `on_components` is called with the components of all routes when these have changed.
    """

    def __init__(
        self,
        app: ASGIApp,
        on_components: Callable[[frozenset[str]], None] = lambda components: None,
    ) -> None:
        self._app = app
        self._on_components = on_components
        self._components: frozenset[str] = frozenset()
        self._has_router = has_router(app)
        self.current = RouteScan(None)
        """The last scan, which `scan` checks."""
        *_, innermost = unwrap(app)
        self.application = innermost if isinstance(innermost, FastAPI) else None
        """The application, if the middleware is outside it and has to set its `root_path`."""

    def scan(self, scope: Scope) -> RouteScan:
        """Return the current scan of all routes.

        Notices a route that was added later, anywhere in the tree. A mark that is put on an
        endpoint later is noticed together with the next route: set marks where routes are declared.
        """
        target = self._app if self._has_router else self._target(scope)
        return self.current if self.current.is_current(target) else self._renew(target, scope)

    def match(self, scope: Scope, scan: RouteScan | None = None) -> RouteMatch:
        """Return which endpoint would answer. `scan` is the one for this request, if known."""
        scan = scan or self.scan(scope)
        if not scan.is_exact():
            scan = self._renew(scan.target, scope)
        return scan.match(scope)

    def _renew(self, target: object, scope: Scope) -> RouteScan:
        scan = self.current = RouteScan(target, scope.get("app"), is_lasting=self._has_router)
        if scan.components != self._components:
            self._components = scan.components
            self._on_components(scan.components)
        return scan

    def set_root_path(self, scope: Scope) -> bool:
        """Set the application's own `root_path` in a scope. Return whether it was another."""
        root_path = "" if self.application is None else self.application.root_path
        if not root_path or scope.get("root_path") == root_path:
            return False
        scope["root_path"] = root_path
        return True

    def _target(self, scope: Scope) -> ASGIApp:
        """Return where routing starts if a middleware hides what it wraps."""
        around = scope.get("app")
        if not isinstance(around, Starlette):
            return self._app
        # After that application has routed, the scope is no longer the one that its routes match.
        # The middleware is then on one of its mounts, routers or routes.
        layers = unwrap(around.middleware_stack)
        if "endpoint" in scope and all(layer is not self._app for layer in layers):
            return self._app
        return around


class RouteScan:
    """One walk over a route tree: the components in it, and whether any route is forced on.

    `around` is an application that the middleware belongs to; its marks count for all routes.
    `is_lasting` means that the target is the same for every request. The scan is then current while
    `router` has `size` routes, `last` is the last of them, and the lists in `nested` have
    `nested_size` routes together.
    """

    def __init__(self, target: object, around: object = None, *, is_lasting: bool = False) -> None:
        self.target = target
        self.is_lasting = is_lasting
        routers: dict[int, Router] = {}
        lists: list[list[BaseRoute]] = []
        self._copies: list[list[BaseRoute]] = []
        self._marks: set[Marks] = set()
        self._note(around)
        pending: list[object] = [target]
        while pending:
            layers = list(unwrap(pending.pop()))
            self._note(*layers)
            router = router_of(layers[-1])
            if router is None or id(router) in routers:
                continue
            routers[id(router)] = router
            self._note(router)
            lists.append(router.routes)
            self._copies.append(list(router.routes))  # another thread may add a route meanwhile
            pending += self._visit(self._copies[-1])
            if router.default != router.not_found:
                pending.append(router.default)
        self._routers = tuple(routers.values())
        self.router = next(iter(self._routers), _NO_ROUTER)
        self.nested = lists[1:]
        routes, *nested = self._copies or [[]]
        self._count, self.nested_size = len(routes), sum(map(len, nested))
        self.last = routes[-1] if routes else None
        self.size = self._count if self._count and is_lasting else -1
        self._indexes: dict[int, RouteIndex] = {}  # by the application around, made on demand
        self.forced_on = any(marks.mark == "on" for marks in self._marks)
        self.components = frozenset(filter(None, (marks.component for marks in self._marks)))

    def is_current(self, target: object) -> bool:
        """Return whether no route was added since. Costs by the routers, not by the routes."""
        routes = self.router.routes
        last = routes[-1] if routes else None  # a replaced route leaves the count unchanged
        if self.target is not target or len(routes) != self._count or last is not self.last:
            return False
        return not self.nested or sum(map(len, self.nested)) == self.nested_size

    def is_exact(self) -> bool:
        """Return whether every router has the same routes as before."""
        return [*map(_routes_of, self._routers)] == self._copies  # fast: compares identities first

    def match(self, scope: Scope) -> RouteMatch:
        """Return which endpoint would answer, as the routers of the application choose it."""
        try:
            return self.look_up(scope) or resolve(self.target, scope)
        except Exception:
            # A convertor or a custom route failed. The application probably answers 500, too, but
            # it need not: a middleware in between may add to the scope what that route needs. So
            # this could be any endpoint, and is treated as an unmarked one.
            return RouteMatch(found=True)

    def look_up(self, scope: Scope) -> RouteMatch | None:
        """Return what answers if type, method, path, root path and application decide it alone."""
        app = scope.get("app")
        index = self._indexes.get(id(app))
        if index is None:
            index = self._indexes[id(app)] = RouteIndex(self.target, app)
        return index.find(
            scope["type"], scope.get("method"), scope["path"], scope.get("root_path", "")
        )

    def _visit(self, routes: Sequence[BaseRoute]) -> Iterator[object]:
        """Note the marks of routes, and yield the applications and routers in them."""
        for route in routes:
            self._note(route)
            if isinstance(route, Mount | Host):
                yield mounted_app(route.app, route)
            elif (included := included_router(route)) is not None:
                yield included
                # FastAPI caches the routes of an included router, also some that have left its
                # list.
                listed = {*map(id, included.routes)}
                cached = [part.original for part in parts_of(Part.of(route, Marks()))]
                yield from self._visit([each for each in cached if id(each) not in listed])
            elif (endpoint := getattr(route, "endpoint", None)) is None:
                self._marks.add(Marks(mark="on"))  # unknown kinds of routes could be forced on
            elif is_application(endpoint):
                yield endpoint
            else:
                self._note(endpoint)

    def _note(self, *targets: object) -> None:
        for target in targets:
            self._marks.add(with_own(target, with_inclusion(target, Marks())))
            self._marks.update(all_marks(target))
