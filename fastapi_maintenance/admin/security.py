"""Access control: require a guard dependency, refuse cross-site requests (CSRF), forbid caching."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Message, Receive, Scope, Send

from .._internal.validation import require
from ..exceptions import ConfigurationError

_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_WITH_BODY: Final = ("POST", "PUT")
_SAME_SITE: Final = ("same-origin", "none")  # none: the person typed the address
_NO_STORE: Final = {"Cache-Control": "no-store"}
_UNGUARDED: Final = (
    "maintenance_admin() has no guard, so anyone who reaches it could close the service. "
    "Pass dependencies=[Depends(login)] to maintenance_admin() or to include_router(…); "
    "dependencies of the whole application do not count. For an open demo: public=True."
)


def check_guards(dependencies: Sequence[Any], *, public: bool) -> list[Dependency]:
    """Return the dependencies that guard the router. Raises `ConfigurationError`."""
    for dependency in dependencies:
        valid = isinstance(dependency, Dependency) and callable(dependency.dependency)
        require(valid, "dependencies must be a list of Depends(function)", dependency)
    if public and dependencies:
        raise ConfigurationError(
            "public=True cannot be combined with dependencies: leave out one or the other."
        )
    return list(dependencies)


@asynccontextmanager
async def refuse_to_start_unguarded(app: Any) -> AsyncIterator[None]:
    """Keep an application from starting if it includes a router with `require_guard` unguarded."""
    if not _is_guarded_in(app):
        raise ConfigurationError(_UNGUARDED)
    yield


async def require_guard(request: Request) -> None:
    """Refuse the request unless every inclusion of such a router brings a guard.

    FastAPI adds the dependencies of `include_router` after the router is made, and a mounted
    application never starts, so each request looks for them again.
    """
    if not _is_guarded_in(request.scope.get("app")):
        raise HTTPException(403, _UNGUARDED)


def _is_guarded_in(app: object) -> bool:
    if not isinstance(app, Starlette):
        return False
    # FastAPI puts the application's dependencies first, then those of inclusions, then ours.
    unguarded = len(getattr(app.router, "dependencies", ()))
    given = (getattr(context, "dependencies", ()) for context in iter_route_contexts(app.routes))
    calls = ([each.dependency for each in dependencies] for dependencies in given)
    places = [each.index(require_guard) for each in calls if require_guard in each]
    return min(places, default=0) > unguarded


class PrivateRoute(APIRoute):
    """A route whose responses no cache keeps, its errors included. Errors repeat no input."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler without the inputs in its 422: not each can be sent as JSON."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                errors = [{**detail, "input": None} for detail in error.errors()]
                raise RequestValidationError(errors) from error

        return handle

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with `Cache-Control: no-store`."""

        async def send_private(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_NO_STORE)
            await send(message)

        try:
            await super().handle(scope, receive, send_private)
        except StarletteHTTPException as error:  # 405 is raised past the send above
            error.headers = {**(error.headers or {}), **_NO_STORE}
            raise


async def refuse_cross_site(request: Request) -> None:
    """Refuse changes by forms and scripts of other sites, which carry the operator's credentials.

    Browsers name the site in Sec-Fetch-Site or Origin. For one that sends neither: a form of
    another site can send POST but no JSON, and a script must ask first (CORS) for PUT and DELETE.
    """
    if request.method in _SAFE:
        return
    if not _is_same_site(request):
        raise HTTPException(
            403, "Cross-site request refused. Behind a proxy, forward the Host header."
        )
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method in _WITH_BODY and content_type != "application/json":
        raise HTTPException(415, "The body must be JSON. Send Content-Type: application/json.")


def _is_same_site(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in _SAME_SITE
    origin = request.headers.get("origin")
    # The scheme is not compared: a proxy that ends TLS need not forward it.
    return origin is None or _netloc(origin) == request.headers.get("host", "").lower() != ""


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
