"""The switch: read, set and cleared, by whoever has seen it as it is."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, Query, Response

from ..backends import BaseStateBackend
from ..mode import MaintenanceMode
from ..report import look
from ..snapshot import replace_state
from ..state import OFF, MaintenanceState
from .at_hand import Mode, Operator, Scope
from .models import State, StateReport
from .problems import invalid, responses
from .tags import IF_MATCH, IfMatch, etag_of, matches

__all__ = ["add_to"]

_ATTEMPTS: Final = 5  # of somebody who overwrites whatever is there


def add_to(router: APIRouter) -> None:
    """Add the operations to the router."""
    router.get("/switch", responses=responses(404))(get_switch)
    router.put("/switch", openapi_extra=IF_MATCH, responses=responses(400, 403, 404, 409, 412, 415, 428))(put_switch)
    router.delete("/switch", openapi_extra=IF_MATCH, responses=responses(403, 404, 409, 412, 428))(delete_switch)


async def get_switch(mode: Mode, scope: Scope, response: Response) -> State | None:
    """The switch as it is stored, or that of a scope, with its ETag; null where it cannot be read, or where a scope has none."""
    report = await look(mode.backend, scope)
    response.headers["ETag"] = etag_of(report.reading)
    if report.switch is None or (scope is not None and not report.has_own_switch):
        return None
    return State.model_validate(report.switch.model_dump())


async def put_switch(
    state: MaintenanceState, mode: Mode, scope: Scope, operator: Operator, if_match: IfMatch, response: Response
) -> StateReport:
    """Set the switch, or that of a scope, and say what is true afterwards. Who did it and since when is added."""
    if state.enabled:
        now = (await look(mode.backend)).now.replace(microsecond=0)
        state = replace_state(state, by=operator or state.by, since=state.since or now)
    state.dump()  # refuses what no switch can keep, before anything is compared
    await _exchange(mode.backend.signed(operator), if_match, state, scope)
    return await _afterwards(mode, scope, response)


async def delete_switch(
    mode: Mode,
    scope: Scope,
    operator: Operator,
    if_match: IfMatch,
    response: Response,
    end_holds: Annotated[bool, Query(description="End every hold, too, whoever has it.")] = False,
) -> StateReport:
    """Turn the switch off, or let a scope have none of its own, and say what is true afterwards."""
    if end_holds and scope is not None:
        raise invalid("query", "Holds are ended for everything, not for one scope: leave scope or end_holds out.")
    await _exchange(mode.backend.signed(operator), if_match, OFF, scope, end_holds=end_holds)
    return await _afterwards(mode, scope, response)


async def _exchange(
    backend: BaseStateBackend, if_match: str, state: MaintenanceState, scope: str | None, *, end_holds: bool = False
) -> None:
    for _ in range(_ATTEMPTS):
        seen = await backend.read()
        if not matches(if_match, etag := etag_of(seen)):
            detail = "Somebody else has changed the switch, or its holds, since you looked: look again, then decide."
            raise HTTPException(412, detail, headers={"ETag": etag})
        if await backend.exchange(seen, state, scope=scope, end_holds=end_holds):
            return
    raise HTTPException(412, "Somebody else keeps changing the switch: look again, then decide.")


async def _afterwards(mode: MaintenanceMode, scope: str | None, response: Response) -> StateReport:
    report = await look(mode.backend, scope)
    response.headers["ETag"] = etag_of(report.reading)
    return StateReport.of(report)
