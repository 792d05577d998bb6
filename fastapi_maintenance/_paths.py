"""The path of a request as routes and rules compare it."""

from __future__ import annotations

from starlette.types import Scope

__all__ = ["route_path"]


def route_path(scope: Scope) -> str:
    """Return the path as the application's own routes see it."""
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "").rstrip("/")
    return path[len(root_path) :] if f"{path}/".startswith(f"{root_path}/") else path
