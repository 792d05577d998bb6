"""Request dependencies: mode, component, operator, root of the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Depends, HTTPException, Query, Request

from ..runtime.current import current_mode
from ..runtime.mode import MaintenanceMode
from ..runtime.requests import current_request

_MAX_NAME: Final = 200  # characters


async def get_mode() -> MaintenanceMode:
    """Return the mode of the application whose middleware the request has passed."""
    mode = current_mode()
    if mode is None:
        raise HTTPException(
            501,
            "This request has passed no MaintenanceModeMiddleware. "
            "Add one to the application that includes this router.",
        )
    return mode


Mode = Annotated[MaintenanceMode, Depends(get_mode)]


async def get_component(
    mode: Mode,
    component: Annotated[
        str | None, Query(description="A component, as maintenance_component names it.")
    ] = None,
) -> str | None:
    """Return the component of the query, which must have routes."""
    if component is not None and component not in mode.components:
        raise HTTPException(
            404, f"No route belongs to {component!r}. GET components lists the names."
        )
    return component


Component = Annotated[str | None, Depends(get_component)]


def note_operator(operator: Callable[..., Any]) -> Callable[..., Any]:
    """Make a dependency that stores the name that `operator` returns."""

    async def note(request: Request, name: Any = Depends(operator)) -> None:  # noqa: B008
        request.state.maintenance_operator = None if name is None else str(name)[:_MAX_NAME]

    return note


async def operator_noted(request: Request) -> str | None:
    """Return the name of the operator, if it is known."""
    name: str | None = getattr(request.state, "maintenance_operator", None)
    return name


Operator = Annotated[str | None, Depends(operator_noted)]


async def find_root(request: Request) -> str:
    """Return the root of the application with the middleware, relative to the request's URL.

    Proxies and mounts change the beginning of a path, so only its end can be trusted.
    """
    current = current_request.get()
    scope = request.scope if current is None else current.scope
    root_path = str(scope.get("root_path") or getattr(request.scope.get("app"), "root_path", ""))
    path: str = scope["path"]
    beneath = path.removeprefix(root_path) if path.startswith(f"{root_path}/") else path
    return "../" * (beneath.count("/") - 1) or "./"


Root = Annotated[str, Depends(find_root)]
