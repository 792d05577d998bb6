"""What is true now: the effective state, its holds, and the scopes."""

from __future__ import annotations

from fastapi import APIRouter

from ..report import Report, look
from .at_hand import Mode, Scope
from .models import Hold, ScopeReport, StateReport
from .problems import responses

__all__ = ["add_to", "scopes_in"]


def add_to(router: APIRouter) -> None:
    """Add the operations to the router."""
    router.get("/state", responses=responses(404))(get_state)
    router.get("/holds", responses=responses())(get_holds)
    router.get("/scopes", responses=responses())(get_scopes)


async def get_state(mode: Mode, scope: Scope) -> StateReport:
    """Whether maintenance is on, what decides that, and until when."""
    return StateReport.of(await look(mode.backend, scope))


async def get_holds(mode: Mode) -> list[Hold] | None:
    """The live holds, oldest first; null where they cannot be read."""
    return StateReport.of(await look(mode.backend)).holds


async def get_scopes(mode: Mode) -> list[ScopeReport]:
    """The parts of the application that can be closed alone."""
    return scopes_in(mode, await look(mode.backend))


def scopes_in(mode: Mode, report: Report) -> list[ScopeReport]:
    """What a report says of each scope of an application."""
    return [ScopeReport.of(name, report.about(name)) for name in sorted(mode.scopes)]
