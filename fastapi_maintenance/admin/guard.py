"""Who may ask: nobody unguarded, and no page of somebody else's through an operator's browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, Response
from fastapi.params import Depends as Dependency

from ..exceptions import ConfigurationError

__all__ = ["check_guards", "keep_private", "refuse_foreign"]

_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_OURS: Final = ("same-origin", "none")  # none: what the person typed, not a page


def check_guards(dependencies: Sequence[Any], *, public: bool) -> list[Dependency]:
    """The dependencies that guard the router. Raises `ConfigurationError` where there is none and it was not meant so."""
    for dependency in dependencies:
        if not isinstance(dependency, Dependency) or not callable(dependency.dependency):
            raise ConfigurationError(f"dependencies must be a list of Depends(…) with a function in each, not {dependency!r}.")
    if public and dependencies:
        raise ConfigurationError("public=True means that nobody guards it, so it goes with no dependencies: leave out one or the other.")
    if not public and not dependencies:
        raise ConfigurationError(
            "Whoever reaches this router can close the service, so it needs a dependency that guards it: "
            "maintenance_admin(dependencies=[Depends(login)]). For a demo that everybody may turn: public=True."
        )
    return list(dependencies)


async def refuse_foreign(request: Request) -> None:
    """Let nothing be changed by a form or a script of another site, which a browser would send with the operator's credentials.

    Such a site can send no JSON without asking first (CORS), and browsers say where a request comes from (Sec-Fetch-Site, Origin).
    """
    if request.method in _SAFE:
        return
    if not _is_ours(request):
        raise HTTPException(403, "This was sent by a page of another site. Behind a proxy, let that pass the Host header on.")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Send Content-Type: application/json, also without a body: no form of another site can.")


def _is_ours(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in _OURS
    origin = request.headers.get("origin")
    # Not the scheme: what ends TLS in front of us need not say so.
    return origin is None or (_netloc(origin) != "" and _netloc(origin) == request.headers.get("host", "").lower())


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


async def keep_private(response: Response) -> None:
    """Let no cache keep what operators see."""
    response.headers["Cache-Control"] = "no-store"
