"""Add the CORS headers of a CORSMiddleware inside this middleware to its responses."""

from __future__ import annotations

from copy import copy
from typing import cast

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Host, Match, Mount, Router
from starlette.types import ASGIApp, Scope

from ..routing import unwrap


class CORSPassthrough:
    """Wraps responses in a copy of the CORSMiddleware inside a middleware, if there is one.

    It adds the headers that the application's own responses get, and answers preflights. One
    outside sees the responses anyway. The one of a mounted application covers what is mounted
    there. `outer` is the class of the middleware.
    """

    def __init__(self, app: ASGIApp, outer: type) -> None:
        self._app = app
        self._outer = outer
        self._lookup: _CORSLookup | None = None

    def wrap(self, response: ASGIApp, scope: Scope) -> ASGIApp:
        """Return the response to a cross-origin request with its CORS headers."""
        if self._lookup is None:
            self._lookup = _CORSLookup(self._app, _declared(scope.get("app"), self._outer))
        found = self._lookup.find(scope)
        if found is None:
            return response
        cors = copy(found)
        cors.app = response
        return cors


class _CORSLookup:
    """The CORSMiddleware inside an app and inside the apps mounted there."""

    def __init__(self, app: ASGIApp, hidden: CORSMiddleware | None = None) -> None:
        self._own = _seen(app) or hidden
        self._routes: list[BaseRoute] = []
        self._mounted: dict[int, _CORSLookup] = {}
        *_, innermost = unwrap(app)
        if self._own is None and isinstance(innermost, Starlette | Router):
            self._routes = innermost.routes
            mounts = [route for route in self._routes if isinstance(route, Mount | Host)]
            self._mounted = {
                id(route): beneath
                for route in mounts
                if (beneath := _CORSLookup(route.app)).is_there
            }

    @property
    def is_there(self) -> bool:
        return self._own is not None or bool(self._mounted)

    def find(self, scope: Scope) -> CORSMiddleware | None:
        """Return the one that a response to this request would pass."""
        if not self._mounted:
            return self._own
        for route in self._routes:
            match, child_scope = _matches(route, scope)
            if match is Match.FULL:
                beneath = self._mounted.get(id(route))
                return None if beneath is None else beneath.find({**scope, **child_scope})
        return None


def _matches(route: BaseRoute, scope: Scope) -> tuple[Match, Scope]:
    try:
        # FastAPI writes into it.
        return route.matches({**scope, "fastapi": dict(scope.get("fastapi", {}))})
    except Exception:  # of a custom convertor
        return Match.NONE, {}


def _seen(app: ASGIApp) -> CORSMiddleware | None:
    """Return the outermost one between an app and its router."""
    for layer in unwrap(app):
        if isinstance(layer, CORSMiddleware):
            return layer
        if isinstance(layer, Starlette):
            return _made_of(layer, 0)
    return None


def _declared(app: object, outer: type) -> CORSMiddleware | None:
    """Return the one that was added to an app before `outer`, and so lies inside.

    This finds one that another middleware hides.
    """
    if not isinstance(app, Starlette):
        return None
    ours = [_is_a(middleware.cls, outer) for middleware in app.user_middleware]
    return _made_of(app, ours.index(True)) if True in ours else None


def _made_of(app: Starlette, start: int) -> CORSMiddleware | None:
    for middleware in app.user_middleware[start:]:
        if _is_a(middleware.cls, CORSMiddleware):
            return cast(
                "CORSMiddleware", middleware.cls(app, *middleware.args, **middleware.kwargs)
            )
    return None


def _is_a(cls: object, kind: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, kind)
