"""What wraps what: from an application inwards to the router that chooses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Host, Mount, Router

__all__ = ["mounted_app", "root_path_of", "router_of", "routes_beneath", "unwrap"]

_DEEPEST: Final = (
    100  # layers of middleware; an object that invents an `.app` for every `.app` must not hang us
)


def unwrap(app: object) -> Iterator[object]:
    """An app, then what it wraps, and so on inwards until something routes or nothing more can be seen."""
    for _ in range(_DEEPEST):
        yield app
        if isinstance(app, Starlette | Router):
            return
        owner = getattr(
            app, "__self__", None
        )  # a router hands its own bound method `app` to its middlewares
        app = owner if isinstance(owner, Starlette | Router) else getattr(app, "app", None)
        if app is None:
            return


def router_of(app: object) -> Router | None:
    """The router that this layer is or has."""
    if isinstance(app, Starlette):
        return app.router
    return app if isinstance(app, Router) else None


def root_path_of(app: object) -> str:
    """Return the `root_path` that an application puts into every component; "" if it leaves the component's own."""
    return app.root_path if isinstance(app, FastAPI) else ""


def routes_beneath(app: object) -> bool:
    """Whether there is a router within an app that we can see."""
    return any(router_of(layer) is not None for layer in unwrap(app))


def mounted_app(app: object, mount: Mount | Host) -> object:
    """What is mounted. Where a middleware of the mount hides what it wraps, the mount remembers."""
    return app if routes_beneath(app) else getattr(mount, "_base_app", app)
