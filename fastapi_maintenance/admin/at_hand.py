"""What a request is about: which application's switch, which scope of it, and who asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Depends, HTTPException, Query, Request

from ..in_flight import current_admission
from ..mode import MaintenanceMode, mode_at_hand

__all__ = ["Mode", "Operator", "Root", "Scope", "note_operator"]

_LONGEST_NAME: Final = 200  # characters


async def mode_asked() -> MaintenanceMode:
    """That of the application whose middleware the request has passed."""
    mode = mode_at_hand()
    if mode is None:
        raise HTTPException(
            501,
            "There is nothing to administer: this request has passed no MaintenanceModeMiddleware. "
            "Add it to the application that includes this router.",
        )
    return mode


Mode = Annotated[MaintenanceMode, Depends(mode_asked)]


async def scope_asked(
    mode: Mode, scope: Annotated[str | None, Query(description="A part of the application, as maintenance_scope names it.")] = None
) -> str | None:
    """The scope that the query names, which some route must belong to."""
    if scope is not None and scope not in mode.scopes:
        raise HTTPException(404, f"No route of this application belongs to the scope {scope!r}: 'scopes' lists which there are.")
    return scope


Scope = Annotated[str | None, Depends(scope_asked)]


def note_operator(operator: Callable[..., Any]) -> Callable[..., Any]:
    """A dependency that remembers, for this request, whom `operator` names."""

    async def note(request: Request, name: Any = Depends(operator)) -> None:  # noqa: B008 - FastAPI reads it there
        request.state.maintenance_operator = None if name is None else str(name)[:_LONGEST_NAME]

    return note


async def operator_noted(request: Request) -> str | None:
    """Who asks, where that is known."""
    name: str | None = getattr(request.state, "maintenance_operator", None)
    return name


Operator = Annotated[str | None, Depends(operator_noted)]


async def find_root(request: Request) -> str:
    """Return the root of the application with the middleware, relative to the URL of the request.

    Proxies and mounts change the beginning of a path, so only the end of it can be trusted.
    """
    admission = current_admission.get()
    scope = request.scope if admission is None else admission.scope
    root_path = str(scope.get("root_path") or getattr(request.scope.get("app"), "root_path", ""))
    path: str = scope["path"]
    beneath = path.removeprefix(root_path) if path.startswith(f"{root_path}/") else path
    return "../" * (beneath.count("/") - 1) or "./"


Root = Annotated[str, Depends(find_root)]
