"""The routes of an application, and which of them would answer."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp, Scope

from .layers import layers_of, routes_beneath
from .resolved import Resolved
from .survey import Survey

__all__ = ["RouteTable"]


class RouteTable:
    """The routes of whatever lies beneath a middleware.

    `tell` is called with the scopes that routes belong to, whenever the routes were looked through.
    """

    def __init__(self, app: ASGIApp, tell: Callable[[frozenset[str]], None] = lambda scopes: None) -> None:
        self._app = app
        self._tell = tell
        self._routed = routes_beneath(app)
        *_, innermost = layers_of(app)
        self.application = innermost if isinstance(innermost, FastAPI) else None
        """The application, if the middleware is around it: then requests come as they were before it set its `root_path`."""
        self._survey: Survey | None = None

    def survey(self, scope: Scope) -> Survey:
        """What there is to know of all routes together.

        Notices routes added later, anywhere in the tree. A mark put on an endpoint whose route was already there is noticed
        only together with the next route: set marks where routes are declared.
        """
        target = self._app if self._routed else self._target(scope)
        survey = self._survey
        if survey is None or not survey.is_current(target):
            survey = self._survey = Survey(target, scope.get("app"))
            self._tell(frozenset(survey.scopes))
        return survey

    def resolve(self, scope: Scope) -> Resolved:
        """Say which endpoint would answer, as the app's own routers would choose it."""
        return self.survey(scope).resolve(scope)

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
        if "endpoint" in scope and all(layer is not self._app for layer in layers_of(around.middleware_stack)):
            return self._app
        return around
