"""The router: what is on it, and who may ask it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute

from ..decorators import force_maintenance_mode_off
from ..exceptions import ConfigurationError
from . import bypasses, events, history, page, state, switch, workers
from .at_hand import note_operator
from .guard import check_guards, keep_private, refuse_foreign
from .problems import explained

__all__ = ["maintenance_admin"]


def maintenance_admin(
    *,
    dependencies: Sequence[Any] = (),
    operator: Callable[..., Any] | None = None,
    public: bool = False,
    prefix: str = "/maintenance",
) -> APIRouter:
    """Make a router for operators: `app.include_router(maintenance_admin(dependencies=[Depends(login)]))`. Its root is a panel.

    It administers the application whose middleware a request has passed, and is always reachable. `dependencies` guard it, and there must
    be one, unless `public` leaves it open to everybody, as for a demo. `operator` is a dependency that returns the name of who asks: it is
    written into the switch. A panel in a browser needs a guard that browsers answer to by themselves: HTTP Basic, or a cookie.
    Raises `ConfigurationError`.
    """
    if operator is not None and not callable(operator):
        raise ConfigurationError(f"operator must be a dependency that returns a name, not {operator!r}.")
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise ConfigurationError(f"prefix must begin with a slash and end without one, as /maintenance does, not {prefix!r}.")
    guards: list[Dependency] = [Depends(refuse_foreign), *check_guards(dependencies, public=public)]
    if operator is not None:
        guards.append(Depends(note_operator(operator)))
    router = APIRouter(prefix=prefix, tags=["maintenance"], dependencies=[*guards, Depends(keep_private), Depends(explained)])
    for noun in (page, state, switch, workers, history, bypasses, events):
        noun.add_to(router)
    for route in router.routes:
        assert isinstance(route, APIRoute)
        force_maintenance_mode_off(route.endpoint)
    return router
