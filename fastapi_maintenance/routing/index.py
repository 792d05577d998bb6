"""Finding at once what asking every route in turn would find."""

from __future__ import annotations

import re
from operator import attrgetter
from typing import Any, Final, cast

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute, RouteContext
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route, Router, WebSocketRoute

from ..decorators import Marks
from .layers import mounted_app, router_of, unwrap
from .match import NOT_FOUND, RouteMatch, docs_urls, is_refused, routes_itself
from .resolver import around, entered, flatten, router_in

__all__ = ["RouteIndex"]

# Those that choose by type, path and method, and by nothing else.
_PLAIN: Final = frozenset(
    {
        APIRoute.matches,
        APIWebSocketRoute.matches,
        Mount.matches,
        Route.matches,
        WebSocketRoute.matches,
    }
)
_PLAIN_ROUTER: Final = getattr(APIRouter, "matches", None)
_PARAMETER: Final = re.compile("{([a-zA-Z_][a-zA-Z0-9_]*)}")  # in a `path_format`
_NO_FLAGS: Final = re.compile("").flags
_LONGEST: Final = (
    640  # characters; Python always converts so many digits, and may be told to convert no more
)
_METHODS: Final = frozenset(
    {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", None}
)
_order = attrgetter("order")


class RouteIndex:
    """The routes of an app by the text before their first parameter, up to the first route that may choose as it likes.

    A path is looked up by its own beginnings, so that what this costs does not grow with the number of routes. For whatever is not
    found here, the routes must be asked.
    """

    def __init__(self, target: object, app: object, marks: Marks | None = None) -> None:
        *_, innermost = layers = list(unwrap(target))
        marks = Marks().extend(app) if marks is None else marks
        for layer in layers:
            marks = marks.extend(layer)
        router = router_of(innermost)
        self._fastapi = innermost if isinstance(innermost, FastAPI) else None
        self._all = RouteMatch.marked(marks) if router is None else None
        self._routes = [] if router is None else router.routes
        self._entries: dict[str, list[_Entry]] = {}
        self._deepest = 0
        self._app = (
            innermost if isinstance(innermost, Starlette) else app
        )  # as the component names it there; kept, so is its id
        if router is not None:
            self._fill(router, around(router, marks))

    def find(self, kind: str, method: str | None, path: str, root_path: str) -> RouteMatch | None:
        """Return what answers an "http" or "websocket", or None if the routes must be asked."""
        if self._all is not None:
            return self._all
        # To the `$` of the routes' expressions a newline at the end is no difference, and a long number cannot be converted.
        if "\n" in path or len(path) > _LONGEST:
            return None
        if self._fastapi is not None:
            root_path = self._fastapi.root_path or root_path
        route_path = _strip_root_path(root_path, path) if root_path else path
        for entry in self._candidates(route_path):
            if not (
                entry.is_mount
                or (entry.kind == kind and (not entry.methods or method in entry.methods))
            ):
                continue
            match = entry.regex.match(route_path)
            if match is None:
                continue
            if (
                entry.place >= len(self._routes) or self._routes[entry.place] is not entry.top
            ):  # an equal one is in its place
                return None
            if not entry.is_mount:
                return entry.resolved.get(method) or entry.resolve(method)
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
            for leaf, bears in flatten(route, entered(route, marks)):
                beginning = _literal_prefix(leaf)
                if beginning is None:
                    return
                self._entries.setdefault(beginning, []).append(
                    _Entry(order, place, route, leaf, bears, leaf.path in docs)
                )
                self._deepest = max(self._deepest, beginning.count("/"))
                order += 1


class _Entry:
    """One route at its place: the `order` is among all, the `place` that of the `top` route in which it is included, if it is."""

    def __init__(
        self,
        order: int,
        place: int,
        top: BaseRoute,
        leaf: RouteContext,
        marks: Marks,
        is_docs: bool,
    ) -> None:
        self.order = order
        self.place = place
        self.top = top
        self.regex: re.Pattern[str] = leaf.path_regex
        self._leaf = leaf
        self._original = leaf.original_route
        self._marks = marks
        self._is_docs = is_docs
        self.methods = leaf.methods
        self.is_mount = isinstance(self._original, Mount)
        self.kind = "websocket" if isinstance(self._original, WebSocketRoute) else "http"
        self._inner: RouteIndex | None = None
        self.resolved: dict[str | None, RouteMatch] = {}

    def inside(self, app: object) -> RouteIndex:
        """Return what is mounted there, in a mount."""
        if self._inner is None:
            self._inner = RouteIndex(
                mounted_app(self._leaf.app, cast("Mount", self._original)),
                app,
                around(self._original, self._marks),
            )
        return self._inner

    def resolve(self, method: str | None) -> RouteMatch | None:
        """Return what it is, for a method that it takes; None if the endpoint must be asked."""
        endpoint = self._leaf.endpoint
        if routes_itself(self._original, endpoint):
            return None
        docs = self._is_docs and method in ("GET", "HEAD")
        marks = around(self._original, self._marks).extend(endpoint, method)
        resolved = (
            NOT_FOUND if is_refused(endpoint, method) else RouteMatch.marked(marks, docs=docs)
        )
        if method in _METHODS:  # clients may invent others without end
            self.resolved[method] = resolved
        return resolved


def _includes_plainly(route: Any) -> bool:
    """Whether routers that are included there choose as FastAPI's do."""
    router: Any = router_in(route)
    if router is None:
        return True
    is_plain = getattr(getattr(router, "matches", None), "__func__", None) is _PLAIN_ROUTER
    return is_plain and all(map(_includes_plainly, route.effective_candidates()))


def _literal_prefix(leaf: RouteContext) -> str | None:
    """The text that a path must begin with, up to a slash, or that it must be; None for a route that may choose by other things."""
    matches = getattr(leaf.original_route.matches, "__func__", None)
    if matches not in _PLAIN or not all(map(_is_starlettes, leaf.param_convertors.values())):
        return None
    if leaf.path_regex.flags != _NO_FLAGS or leaf.path_regex.pattern != _expression(
        leaf
    ):  # made by somebody else
        return None
    text, brace, _ = (leaf.path_format or "").partition("{")
    return text[: text.rfind("/") + 1] if brace else text


def _expression(leaf: RouteContext) -> str:
    """Return the expression that Starlette makes of a path."""
    texts = _PARAMETER.split(leaf.path_format or "")
    parts = [
        re.escape(text) if place % 2 == 0 else f"(?P<{text}>{leaf.param_convertors[text].regex})"
        for place, text in enumerate(texts)
    ]
    return f"^{''.join(parts)}$"


def _is_starlettes(convertor: object) -> bool:
    """Whether it takes whatever its expression takes: one of a user's own may still fail."""
    return type(convertor).__module__ == "starlette.convertors"


def _strip_root_path(root_path: str, path: str) -> str:
    """A path as the routes have it, as Starlette's `get_route_path` takes the root path off."""
    if (
        root_path
        and path.startswith(root_path)
        and path[len(root_path) : len(root_path) + 1] in ("", "/")
    ):
        return path[len(root_path) :]
    return path
