"""Look routes up by their literal text, with the same result as asking them in order."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, cast

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route, Router, WebSocketRoute

from ..decorators import Marks
from .layers import mounted_app
from .match import NOT_FOUND, RouteMatch, docs_urls, is_application, rejects_method
from .resolver import Part, enter, flatten, included_router, with_own

_ROUTES: Final = (APIRoute, APIWebSocketRoute, Mount, Route, WebSocketRoute)
_STANDARD: Final = frozenset(each.matches for each in _ROUTES)  # by type, path, method only
_STANDARD_ROUTER: Final = getattr(APIRouter, "matches", None)
_PARAMETER: Final = re.compile("{([a-zA-Z_][a-zA-Z0-9_]*)}")  # in a `path_format`
_NO_FLAGS: Final = re.compile("").flags
_MAX_PATH_LENGTH: Final = 640  # characters; no setting keeps Python from converting as many digits
_METHODS: Final = frozenset(
    {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", None}
)
_order = attrgetter("order")


class RouteIndex:
    """The routes of an app by the literal text before their first parameter.

    The index ends before the first route that could match by anything but type, path and method. A
    path is looked up by its own prefixes, so the cost does not grow with the number of routes. A
    path that is not found here must be resolved.
    """

    def __init__(self, target: object, app: object, marks: Marks | None = None) -> None:
        start = Marks().extend(app) if marks is None else marks
        self._around = app  # kept alive, for the table finds this index by its id
        innermost, router, marks = enter(target, start)
        self._fastapi = innermost if isinstance(innermost, FastAPI) else None
        self._app = innermost if isinstance(innermost, Starlette) else app  # `scope["app"]` there
        self._opaque = RouteMatch(True, *marks) if router is None else None
        self._router = router or Router()
        self._entries: dict[str, list[_Entry]] = {}
        self._max_depth = 0
        if router is not None:
            self._fill(router, marks)

    def find(self, kind: str, method: str | None, path: str, root_path: str) -> RouteMatch | None:
        """Return what answers an "http" or "websocket" scope, or None if it must be resolved."""
        if self._opaque is not None:
            return self._opaque
        # The `$` of a route's expression also matches before a newline, and Python may refuse to
        # convert a long number.
        if "\n" in path or len(path) > _MAX_PATH_LENGTH:
            return None
        if self._fastapi is not None:
            root_path = self._fastapi.root_path or root_path
        route_path = _strip_root_path(root_path, path) if root_path else path
        for entry in self._candidates(route_path):
            takes = entry.is_mount or (
                entry.kind == kind and (not entry.methods or method in entry.methods)
            )
            match = entry.regex.match(route_path) if takes else None
            if match is None:
                continue
            if self._router.routes[entry.place] is not entry.top:  # but an equal route
                return None
            if not entry.is_mount:
                return entry.matches.get(method) or entry.match(method)
            mount_path = root_path + route_path[: -len("/" + match["path"])]  # as Mount computes it
            return entry.mounted(self._app).find(kind, method, path, mount_path)
        return None

    def _candidates(self, path: str) -> list[_Entry]:
        """Return the entries whose literal text the path begins with, in route order."""
        found = [*self._entries.get(path, ())]
        end = path.find("/") + 1
        for _ in range(self._max_depth):
            if end in (0, len(path)):  # the whole path was looked up first
                break
            found += self._entries.get(path[:end], ())
            end = path.find("/", end) + 1
        if len(found) > 1:
            found.sort(key=_order)
        return found

    def _fill(self, router: Router, marks: Marks) -> None:
        docs = docs_urls(self._app, router)
        order = 0
        for place, top in enumerate(list(router.routes)):
            if not _matches_as_usual(top):
                return
            for part in flatten(Part.of(top, marks)):
                prefix = _literal_prefix(part)
                if prefix is None:
                    return
                entry = _Entry(order, place, top, part, part.effective.path in docs)
                self._entries.setdefault(prefix, []).append(entry)
                self._max_depth = max(self._max_depth, prefix.count("/"))
                order += 1


@dataclass(eq=False)
class _Entry:
    """One route. `place` is the index of `top`, which is the route or the inclusion around it."""

    order: int
    place: int
    top: BaseRoute
    part: Part
    is_docs: bool
    matches: dict[str | None, RouteMatch] = field(default_factory=dict)
    inner: RouteIndex | None = None

    def __post_init__(self) -> None:
        original, effective, _ = self.part
        self.regex: re.Pattern[str] = effective.path_regex
        self.methods: set[str] | None = getattr(effective, "methods", None)
        self.is_mount = isinstance(original, Mount)
        self.kind = "websocket" if isinstance(original, WebSocketRoute) else "http"

    def mounted(self, app: object) -> RouteIndex:
        """Return the index of the mounted app."""
        if self.inner is None:
            original, effective, around = self.part
            target = mounted_app(effective.app, cast("Mount", original))
            self.inner = RouteIndex(target, app, with_own(original, around))
        return self.inner

    def match(self, method: str | None) -> RouteMatch | None:
        """Return the match for a method that the route takes, or None if it must be resolved."""
        original, effective, around = self.part
        if is_application(effective.endpoint):
            return None
        found = NOT_FOUND
        if not rejects_method(effective.endpoint, method):
            marks = with_own(original, around).extend(effective.endpoint, method)
            found = RouteMatch(True, *marks, self.is_docs and method in ("GET", "HEAD"))
        if method in _METHODS:  # clients can invent any number of others
            self.matches[method] = found
        return found


def _matches_as_usual(route: Any) -> bool:
    """Return whether the routers that are included as this route match as FastAPI's own do."""
    router: Any = included_router(route)
    if router is None:
        return True
    matches = getattr(getattr(router, "matches", None), "__func__", None)
    return matches is _STANDARD_ROUTER and all(map(_matches_as_usual, route.effective_candidates()))


def _literal_prefix(part: Part) -> str | None:
    """Return the text that a path must begin with, up to a slash, or that it must equal.

    Returns None for a route that may match by anything else.
    """
    original, route, _ = part
    matches = getattr(original.matches, "__func__", None)
    if matches not in _STANDARD:  # it may have none of what follows
        return None
    origins = {type(each).__module__ for each in route.param_convertors.values()}
    if origins - {"starlette.convertors"}:  # a custom one may fail on text that it matches
        return None
    if route.path_regex.flags != _NO_FLAGS or route.path_regex.pattern != _expression(route):
        return None
    path: str = route.path_format
    text, brace, _ = path.partition("{")
    return text[: text.rfind("/") + 1] if brace else text


def _expression(route: Any) -> str:
    """Return the regular expression that Starlette compiles for the path of a route."""
    convertors = route.param_convertors
    parts = _PARAMETER.split(route.path_format)  # text, name, text, name, …, text
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = [f"(?P<{name}>{convertors[name].regex})" for name in parts[1::2]]
    return f"^{''.join(parts)}$"


def _strip_root_path(root_path: str, path: str) -> str:
    """Return the path that routes compare, as Starlette's `get_route_path` does."""
    if path.startswith(root_path) and path[len(root_path) : len(root_path) + 1] in ("", "/"):
        return path[len(root_path) :]
    return path
