"""The result of matching a request against the routes."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, NamedTuple

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Router

from ..model.precedence import Effect, Mark

_CHECKS_METHODS: Final = "_allowed_methods" in HTTPEndpoint.dispatch.__code__.co_names
"""True if `HTTPEndpoint` rejects unknown methods. Older versions run any function of that name."""


class RouteMatch(NamedTuple):
    """The endpoint that would answer a request, by its marks.

    `found` is False if the application itself answers 404 or 405, or redirects to add or remove a
    slash. `docs` is True for the documentation of an application at its configured URLs.
    """

    found: bool
    mark: Mark | None = None
    component: str | None = None
    effect: Effect | None = None
    docs: bool = False


NOT_FOUND: Final = RouteMatch(found=False)


def rejects_method(endpoint: object, method: str | None) -> bool:
    """Return whether a class-based endpoint answers 405: its route takes every method."""
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    if method is None or not (isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint)):
        return False
    if endpoint.dispatch is not HTTPEndpoint.dispatch:
        return False
    handlers = ("head", "get") if method == "HEAD" else (method.lower(),)
    # Starlette 0.46 finds the handler of its 405 by the method of that name, too.
    none = (None, endpoint.method_not_allowed)
    if all(getattr(endpoint, name, None) in none for name in handlers):
        return True
    if not _CHECKS_METHODS or endpoint.__init__ is not HTTPEndpoint.__init__:
        return False
    unused: Any = None
    return method not in endpoint({"type": "http"}, unused, unused)._allowed_methods


def is_application(endpoint: object) -> bool:
    """Return whether the endpoint of a route is an application with routes of its own."""
    return isinstance(endpoint, Starlette | Router)


def docs_urls(app: object, router: Router) -> tuple[str | None, ...]:
    """Return the configured URLs of the documentation, if this is the router of the app itself."""
    if not isinstance(app, FastAPI) or app.router is not router or not app.openapi_url:
        return ()
    oauth2_redirect = app.swagger_ui_oauth2_redirect_url if app.docs_url else None
    urls = (app.openapi_url, app.docs_url, app.redoc_url, oauth2_redirect)
    return tuple(url for url in urls if url)
