"""The router: its operations, its guard and its options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends

from .._internal.validation import require
from ..decorators import force_maintenance_mode_off
from . import events, page, routes
from .dependencies import note_operator
from .errors import translate_errors
from .security import check_guards, refuse_cross_site, refuse_to_start_unguarded, require_guard


def maintenance_admin(
    *,
    dependencies: Sequence[Any] = (),
    operator: Callable[..., Any] | None = None,
    public: bool = False,
    prefix: str = "/maintenance",
) -> APIRouter:
    """Make the router: `app.include_router(maintenance_admin(dependencies=[Depends(login)]))`.

    Its root is the panel. It administers the application whose middleware the request has passed,
    and stays reachable during maintenance. `dependencies` guard it; those of `include_router` or of
    an enclosing router do as well. Without any guard the application refuses to start, unless
    `public` opens the router to everybody, as for a demo. `operator` is a dependency that returns
    the name of the operator, for the switch and the history. A panel in a browser needs a guard
    that browsers handle without scripts: HTTP Basic or a cookie. Raises `ConfigurationError`.
    """
    valid = operator is None or callable(operator)
    require(valid, "operator must be a function that returns a name", operator)
    valid = not prefix or (prefix.startswith("/") and not prefix.endswith("/"))
    require(valid, "prefix must begin with a slash and not end with one", prefix)
    needs_guard = not (public or dependencies)
    router = APIRouter(
        prefix=prefix,
        tags=["maintenance"],
        dependencies=[
            *([Depends(require_guard)] if needs_guard else []),
            Depends(refuse_cross_site),
            *check_guards(dependencies, public=public),
            *([] if operator is None else [Depends(note_operator(operator))]),
            Depends(translate_errors),
        ],
        lifespan=refuse_to_start_unguarded if needs_guard else None,
    )
    for module in (page, routes, events):
        router.include_router(module.router)
    return force_maintenance_mode_off(router)
