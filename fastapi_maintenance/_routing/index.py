"""Finding at once what asking every route in turn would find."""

from __future__ import annotations

import re
from operator import attrgetter
from typing import Final, cast

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute, RouteContext
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route, Router, WebSocketRoute

from ..decorators import Marks
from .included import leaves, router_in
from .layers import layers_of, mounted, router_of
from .resolved import NOT_FOUND, Resolved, docs_urls, is_refused

__all__ = ["RouteIndex"]

# Those that choose by type, path and method, and by nothing else.
_PLAIN: Final = frozenset({APIRoute.matches, APIWebSocketRoute.matches, Mount.matches, Route.matches, WebSocketRoute.matches})
_PLAIN_ROUTER: Final = getattr(APIRouter, "matches", None)
_NO_FLAGS: Final = re.compile("").flags
_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", None})
_order = attrgetter("order")


class RouteIndex:
    """The routes of an app by the text before their first parameter, up to the first route that may choose as it likes.

    A path is looked up by its own beginnings, so that what this costs does not grow with the number of routes. For whatever is not
    found here, the routes must be asked.
    """

    def __init__(self, app: object, around: object, marks: Marks | None = None) -> None:
        *_, innermost = layers = list(layers_of(app))
        marks = marks or Marks()
        for layer in layers:
            marks = marks.inside(layer)
        router = router_of(innermost)
        self._root_path = innermost.root_path if isinstance(innermost, FastAPI) else ""
        self._all = Resolved.marked(marks) if router is None else None
        self._routes = [] if router is None else router.routes
        self._entries: dict[str, list[_Entry]] = {}
        self._deepest = 0
        self._app = innermost if isinstance(innermost, Starlette) else around  # as the scope names it there; kept, so is its id
        if router is not None:
            self._fill(router, marks)

    def find(self, kind: str, method: str | None, path: str, root_path: str) -> Resolved | None:
        """What answers an "http" or "websocket"; None where the routes must be asked."""
        if self._all is not None:
            return self._all
        root_path = self._root_path or root_path
        route_path = _beneath(root_path, path)
        for entry in self._candidates(route_path):
            match = entry.regex.match(route_path) if entry.takes(kind, method) else None
            if match is not None:
                if entry.place >= len(self._routes) or self._routes[entry.place] is not entry.top:  # it was replaced, or moved
                    return None
                if not entry.is_mount:
                    return entry.resolve(method)
                beneath = root_path + route_path[: -len("/" + match["path"])]  # as Mount does
                return entry.inside(self._app).find(kind, method, path, beneath)
        return None

    def _candidates(self, path: str) -> list[_Entry]:
        """Those whose text this path begins with, in the order of the routes."""
        found = [*self._entries.get(path, ())]
        end = path.find("/") + 1
        for _ in range(self._deepest):
            if end in (0, len(path)):  # that one was looked up first
                break
            found += self._entries.get(path[:end], ())
            end = path.find("/", end) + 1
        if len(found) > 1:
            found.sort(key=_order)
        return found

    def _fill(self, router: Router, marks: Marks) -> None:
        docs = docs_urls(self._app, router)
        order = 0
        for place, route in enumerate(list(router.routes)):
            if not _includes_plainly(route):
                return
            for leaf, bears in leaves(route, marks):
                beginning = _beginning(leaf)
                if beginning is None:
                    return
                self._entries.setdefault(beginning, []).append(_Entry(order, place, route, leaf, bears, leaf.path in docs))
                self._deepest = max(self._deepest, beginning.count("/"))
                order += 1


class _Entry:
    """One route at its place: the `order` is among all, the `place` that of the `top` route in which it is included, if it is."""

    def __init__(self, order: int, place: int, top: BaseRoute, leaf: RouteContext, marks: Marks, is_docs: bool) -> None:
        self.order = order
        self.place = place
        self.top = top
        self.regex: re.Pattern[str] = leaf.path_regex
        self._leaf = leaf
        self._original = leaf.original_route
        self._marks = marks
        self._is_docs = is_docs
        self._methods = leaf.methods
        self.is_mount = isinstance(self._original, Mount)
        self._kind = "websocket" if isinstance(self._original, WebSocketRoute) else "http"
        self._inner: RouteIndex | None = None
        self._resolved: dict[str | None, Resolved] = {}

    def takes(self, kind: str, method: str | None) -> bool:
        """Whether it is a route for these."""
        return self.is_mount or (self._kind == kind and (not self._methods or method in self._methods))

    def inside(self, around: object) -> RouteIndex:
        """What is mounted there, in a mount."""
        if self._inner is None:
            self._inner = RouteIndex(mounted(self._leaf.app, cast("Mount", self._original)), around, self._marks)
        return self._inner

    def resolve(self, method: str | None) -> Resolved:
        """What it is, for a method that it takes."""
        resolved = self._resolved.get(method)
        if resolved is None:
            endpoint = self._leaf.endpoint
            docs = self._is_docs and method in ("GET", "HEAD")
            resolved = NOT_FOUND if is_refused(endpoint, method) else Resolved.marked(self._marks.inside(endpoint, method), docs=docs)
            if method in _METHODS:  # clients may invent others without end
                self._resolved[method] = resolved
        return resolved


def _includes_plainly(route: BaseRoute) -> bool:
    """Whether routers that are included there choose as FastAPI's do."""
    router = router_in(route)
    return router is None or (getattr(type(router), "matches", None) is _PLAIN_ROUTER and all(map(_includes_plainly, router.routes)))


def _beginning(leaf: RouteContext) -> str | None:
    """The text that a path must begin with, up to a slash, or that it must be; None for a route that may choose by other things."""
    if type(leaf.original_route).matches not in _PLAIN or not all(map(_is_starlettes, leaf.param_convertors.values())):
        return None
    text, brace, _ = (leaf.path_format or "").partition("{")
    expected = f"^{re.escape(text)}{'' if brace else '$'}"
    if leaf.path_regex.flags != _NO_FLAGS or not leaf.path_regex.pattern.startswith(expected):  # made by somebody else
        return None
    return text[: text.rfind("/") + 1] if brace else text


def _is_starlettes(convertor: object) -> bool:
    """Whether it takes whatever its expression takes: one of a user's own may still fail."""
    return type(convertor).__module__ == "starlette.convertors"


def _beneath(root_path: str, path: str) -> str:
    """A path as the routes have it, as Starlette's `get_route_path` takes the root path off."""
    if root_path and path.startswith(root_path) and path[len(root_path) : len(root_path) + 1] in ("", "/"):
        return path[len(root_path) :]
    return path
