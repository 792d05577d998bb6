"""What would answer a request, and its marks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from inspect import isclass, isroutine
from typing import Final, Self

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Router

from ..decorators import Marks
from ..model.policy import Effect, Mark
from .layers import routes_beneath

__all__ = ["NOT_FOUND", "RouteMatch", "docs_urls", "is_refused", "routes_itself"]

_CHECKS_METHODS: Final = "_allowed_methods" in HTTPEndpoint.dispatch.__code__.co_names
"""Starlette runs only methods that it knows, also where a class has a function of another one's name. Older versions run that."""


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """What would answer a request. `found` is False where the app itself says 404, 405 or redirects for a slash."""

    found: bool
    mark: Mark | None = None
    docs: bool = False
    component: str | None = None
    effect: Effect | None = None

    @classmethod
    def marked(cls, marks: Marks, *, docs: bool = False) -> Self:
        """Return the result for an endpoint with these marks."""
        return cls(
            found=True, mark=marks.mark, docs=docs, component=marks.component, effect=marks.effect
        )


NOT_FOUND: Final = RouteMatch(found=False)


def is_refused(endpoint: object, method: str | None) -> bool:
    """Return whether a class-based endpoint says 405 by itself: it takes every method and looks for a handler later."""
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    if method is None or not (isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint)):
        return False
    if endpoint.dispatch is not HTTPEndpoint.dispatch:
        return False
    handlers = ("head", "get") if method == "HEAD" else (method.lower(),)
    if all(getattr(endpoint, name, None) is None for name in handlers):
        return True
    if not _CHECKS_METHODS or endpoint.__init__ is not HTTPEndpoint.__init__:
        return False
    return method not in endpoint({"type": "http"}, *(None, None))._allowed_methods  # type: ignore[arg-type]


def routes_itself(route: object, endpoint: object) -> bool:
    """Return whether the endpoint of a route is an application with routes of its own."""
    if (
        isinstance(route, APIRoute | APIWebSocketRoute)
        or isclass(endpoint)
        or isroutine(endpoint)
        or isinstance(endpoint, partial)
    ):
        return False
    return routes_beneath(endpoint)


def docs_urls(app: object, router: Router) -> tuple[str | None, ...]:
    """Return the documentation's paths, as configured in the app whose own router this is."""
    if not isinstance(app, FastAPI) or app.router is not router or not app.openapi_url:
        return ()
    oauth2_redirect = app.swagger_ui_oauth2_redirect_url if app.docs_url else None
    return tuple(
        url for url in (app.openapi_url, app.docs_url, app.redoc_url, oauth2_redirect) if url
    )
