"""The history: who changed what, and when."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from .at_hand import Mode, Scope
from .models import Change
from .problems import responses

__all__ = ["add_to"]


def add_to(router: APIRouter) -> None:
    """Add the operation to the router."""
    router.get("/history", responses=responses(404))(get_history)


async def get_history(mode: Mode, scope: Scope, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Change]:
    """The newest changes of switch and holds, newest first; with a scope, of that alone."""
    return Change.all_of(await mode.backend.history(limit=limit, scope=scope))
