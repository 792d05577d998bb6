"""The router: its operations, its guard and its options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute

from ..decorators import force_maintenance_mode_off
from ..exceptions import ConfigurationError
from . import events, page, routes
from .dependencies import note_operator
from .errors import translate_errors
from .security import InclusionGuard, check_guards, refuse_cross_site

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
        raise ConfigurationError(
            f"operator must be a function that returns a name, got {operator!r}."
        )
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise ConfigurationError(
            f"prefix must begin with a slash and end without one, like /maintenance, got {prefix!r}."
        )
    inclusions = InclusionGuard()
    needs_guard = not (public or dependencies)
    router = APIRouter(
        prefix=prefix,
        tags=["maintenance"],
        dependencies=[
            *([Depends(inclusions.check)] if needs_guard else []),
            Depends(refuse_cross_site),
            *check_guards(dependencies, public=public),
            *([] if operator is None else [Depends(note_operator(operator))]),
            Depends(translate_errors),
        ],
        lifespan=inclusions.lifespan if needs_guard else None,
    )
    for module in (page, routes, events):
        router.include_router(module.router)
    return router


for _module in (page, routes, events):
    for _route in _module.router.routes:
        assert isinstance(_route, APIRoute)
        force_maintenance_mode_off(_route.endpoint)
