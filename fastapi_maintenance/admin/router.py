"""The router: what is on it, and who may ask it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute

from ..decorators import force_maintenance_mode_off
from ..exceptions import ConfigurationError
from . import bypasses, events, history, page, state, switch, workers
from .at_hand import note_operator
from .guard import InclusionGuard, PrivateRoute, check_guards, refuse_cross_site
from .problems import explained

__all__ = ["maintenance_admin"]


def maintenance_admin(
    *,
    dependencies: Sequence[Any] = (),
    operator: Callable[..., Any] | None = None,
    public: bool = False,
    prefix: str = "/maintenance",
) -> APIRouter:
    """Make a router for operators: `app.include_router(maintenance_admin(dependencies=[Depends(login)]))`.

    Its root is a panel. It administers the application whose middleware a request has passed, and
    is always reachable. `dependencies` guard it, or those of `include_router` or of a router around
    it. The application refuses to start if no inclusion guards it, unless `public` opens it to
    everybody, as for a demo. `operator` is a dependency that returns the name of the operator, which
    is stored in the switch. A panel in a browser needs a guard that browsers handle without scripts:
    HTTP Basic, or a cookie. Raises `ConfigurationError`.
    """
    if operator is not None and not callable(operator):
        raise ConfigurationError(f"operator must be a dependency that returns a name, not {operator!r}.")
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise ConfigurationError(f"prefix must begin with a slash and end without one, as /maintenance does, not {prefix!r}.")
    plumbing = [Depends(refuse_cross_site), *check_guards(dependencies, public=public)]
    inclusions = None if public or dependencies else InclusionGuard()
    if inclusions is not None:
        plumbing.insert(0, Depends(inclusions.check))
    if operator is not None:
        plumbing.append(Depends(note_operator(operator)))
    router = APIRouter(
        prefix=prefix,
        tags=["maintenance"],
        dependencies=[*plumbing, Depends(explained)],
        route_class=PrivateRoute,
        lifespan=None if inclusions is None else inclusions.lifespan,
    )
    for noun in (page, state, switch, workers, history, bypasses, events):
        noun.add_to(router)
    for route in router.routes:
        assert isinstance(route, APIRoute)
        force_maintenance_mode_off(route.endpoint)
    if inclusions is not None:
        inclusions.router = router
    return router
