"""What would answer a request, and what is to be known of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, Self

from fastapi import FastAPI
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Router

from ..decorators import Mark, Marks

__all__ = ["NOT_FOUND", "Resolved", "docs_urls", "is_refused"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What would answer a request. `found` is False where the app itself says 404, 405 or redirects for a slash."""

    found: bool
    mark: Mark | None = None
    docs: bool = False
    scope: str | None = None

    @classmethod
    def marked(cls, marks: Marks, *, docs: bool = False) -> Self:
        """An endpoint that bears these."""
        return cls(found=True, mark=marks.mark, docs=docs, scope=marks.scope)


NOT_FOUND: Final = Resolved(found=False)


def is_refused(endpoint: object, method: str | None) -> bool:
    """Whether a class-based endpoint says 405 by itself: it takes every method and looks for a handler later."""
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    if method is None or not (isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint)):
        return False
    if endpoint.dispatch is not HTTPEndpoint.dispatch:
        return False
    # Newer versions of Starlette also refuse a few methods that have a handler. Older ones run it, so it counts as found.
    handlers = ("head", "get") if method == "HEAD" else (method.lower(),)
    return all(getattr(endpoint, name, None) is None for name in handlers)


def docs_urls(app: object, router: Router) -> tuple[str | None, ...]:
    """The documentation's paths, as configured in the app whose own router this is."""
    if not isinstance(app, FastAPI) or app.router is not router or not app.openapi_url:
        return ()
    oauth2_redirect = app.swagger_ui_oauth2_redirect_url if app.docs_url else None
    return tuple(url for url in (app.openapi_url, app.docs_url, app.redoc_url, oauth2_redirect) if url)
