"""Middleware around applications: unwraps them, from the outside in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from starlette.applications import Starlette
from starlette.routing import Host, Mount, Router

# An object that makes up an `.app` for every `.app` must not hang a worker.
_MAX_LAYERS: Final = 100


def unwrap(app: object) -> Iterator[object]:
    """Yield an app, then what it wraps, up to the first router or the last visible layer."""
    for _ in range(_MAX_LAYERS):
        yield app
        if isinstance(app, Starlette | Router):
            return
        # A router passes its bound method `app` to its middleware.
        owner = getattr(app, "__self__", None)
        app = owner if isinstance(owner, Starlette | Router) else getattr(app, "app", None)
        if app is None:
            return


def router_of(app: object) -> Router | None:
    """Return the router that a layer has or is."""
    if isinstance(app, Starlette):
        return app.router
    return app if isinstance(app, Router) else None


def has_router(app: object) -> bool:
    """Return whether a router is visible inside an app."""
    return any(router_of(layer) is not None for layer in unwrap(app))


def mounted_app(app: object, mount: Mount | Host) -> object:
    """Return the mounted app. If middleware hides it, use the one that the mount remembers."""
    return app if has_router(app) else getattr(mount, "_base_app", app)
