"""Lets browsers read our answer from another origin, also where the application's CORSMiddleware lies beneath us."""

from __future__ import annotations

from copy import copy
from typing import cast

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from ._routing import layers_of

__all__ = ["CrossOrigin"]


class CrossOrigin:
    """Sends answers through a copy of the CORSMiddleware that lies beneath a middleware, if one does.

    It adds what it adds to the application's own responses, and answers preflights itself. Further out than us it sees our
    answers anyway. In mounted applications it is not looked for: what is around a mount cannot know what is in it.
    """

    def __init__(self, app: ASGIApp, outer: type) -> None:
        self._app = app
        self._outer = outer
        self._found: CORSMiddleware | None = None
        self._has_looked = False

    async def send(self, answer: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let `answer` answer."""
        if scope["type"] == "http" and any(name == b"origin" for name, _ in scope["headers"]):
            answer = self._through(answer, scope)
        await answer(scope, receive, send)

    def _through(self, answer: ASGIApp, scope: Scope) -> ASGIApp:
        if not self._has_looked:  # not before the first answer, when the application is complete
            self._found = _seen(self._app) or _declared(scope.get("app"), self._outer)
            self._has_looked = True
        if self._found is None:
            return answer
        cors = copy(self._found)
        cors.app = answer
        return cors


def _seen(app: ASGIApp) -> CORSMiddleware | None:
    """The outermost one on the way from an app to its router."""
    for layer in layers_of(app):
        if isinstance(layer, CORSMiddleware):
            return layer
        if isinstance(layer, Starlette):
            return _made_of(layer, 0)
    return None


def _declared(app: object, outer: type) -> CORSMiddleware | None:
    """The one that was added to an app before `outer` was, so that it lies beneath; for where another middleware hides it."""
    if not isinstance(app, Starlette):
        return None
    ours = [index for index, middleware in enumerate(app.user_middleware) if _is_a(middleware.cls, outer)]
    return _made_of(app, ours[0]) if ours else None


def _made_of(app: Starlette, start: int) -> CORSMiddleware | None:
    for middleware in app.user_middleware[start:]:
        if _is_a(middleware.cls, CORSMiddleware):
            return cast("CORSMiddleware", middleware.cls(app, *middleware.args, **middleware.kwargs))
    return None


def _is_a(cls: object, kind: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, kind)
