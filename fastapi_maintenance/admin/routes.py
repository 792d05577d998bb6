"""The operations of the API: state, switch, workers, history and bypass tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, HTTPException, Query, Response

from ..backends.base import WorkerRegistry
from ..backends.status import look
from ..coordination.barrier import wait_until_applied
from ..exceptions import BarrierError, UnsupportedError
from ..exemptions.bypass import PARAMETER
from ..exemptions.tokens import grant, granted, revoke
from ..model.history import Change
from ..model.state import OFF, BypassRecord, MaintenanceState
from .dependencies import Component, Mode, Operator, Root
from .errors import invalid, responses
from .etags import IF_MATCH, IfMatch, etag_of, matches
from .models import (
    Barrier,
    BarrierRequest,
    BypassCreate,
    BypassCreated,
    ComponentReport,
    Hold,
    StateReport,
    WorkerReport,
)
from .security import PrivateRoute

_MAX_ATTEMPTS: Final = 5  # with If-Match: *, while others keep writing

router = APIRouter(route_class=PrivateRoute)


@dataclass(frozen=True)
class _ConditionalChange:
    """A change of the switch by an operator, if it is still as If-Match has it."""

    mode: Mode
    component: Component
    operator: Operator
    if_match: IfMatch
    response: Response

    async def to(self, state: MaintenanceState, *, end_holds: bool = False) -> StateReport:
        """Make the change, and return the resulting state with its ETag."""
        backend, component = self.mode.backend.as_operator(self.operator), self.component
        for _ in range(_MAX_ATTEMPTS):
            seen = await backend.read()
            if not matches(self.if_match, etag := etag_of(seen)):
                raise HTTPException(
                    412,
                    "The switch or a hold has changed since it was read. "
                    "Read it again, then decide.",
                    headers={"ETag": etag},
                )
            if await backend.compare_and_set(seen, state, component=component, end_holds=end_holds):
                report = await look(backend, component)
                self.response.headers["ETag"] = etag_of(report.reading)
                return StateReport.of(report)
        raise HTTPException(412, "The switch keeps changing. Read it again, then decide.")


SwitchChange = Annotated[_ConditionalChange, Depends()]


@router.get("/state", responses=responses(404))
async def get_state(mode: Mode, component: Component) -> StateReport:
    """Return whether maintenance is on, what decides that, and until when."""
    return StateReport.of(await look(mode.backend, component))


@router.get("/holds", responses=responses())
async def get_holds(mode: Mode) -> list[Hold] | None:
    """Return the live holds, oldest first; null if they cannot be read."""
    return StateReport.of(await look(mode.backend)).holds


@router.get("/components", responses=responses())
async def get_components(mode: Mode) -> list[ComponentReport]:
    """Return the parts of the application that can be closed alone."""
    return ComponentReport.all_of(await look(mode.backend), mode.components)


@router.get("/switch", responses=responses(404))
async def get_switch(
    mode: Mode, component: Component, response: Response
) -> MaintenanceState | None:
    """Return the stored switch with its ETag; null if it is unreadable or does not exist."""
    report = await look(mode.backend, component)
    response.headers["ETag"] = etag_of(report.reading)
    return report.switch if component is None or report.has_own_switch else None


@router.put(
    "/switch", openapi_extra=IF_MATCH, responses=responses(400, 403, 404, 409, 412, 415, 428)
)
async def put_switch(state: MaintenanceState, change: SwitchChange) -> StateReport:
    """Set the switch and return the resulting state. The operator and the time are added."""
    if state.enabled:
        now = (await look(change.mode.backend)).now.replace(microsecond=0)
        state = state.replace(by=change.operator or state.by, since=state.since or now)
    state.dump()  # refuses what no switch can keep, before anything is compared
    return await change.to(state)


@router.delete("/switch", openapi_extra=IF_MATCH, responses=responses(403, 404, 409, 412, 428))
async def delete_switch(
    change: SwitchChange,
    end_holds: Annotated[bool, Query(description="End every hold too.")] = False,
) -> StateReport:
    """Turn the switch off, or remove that of one part, and return the resulting state."""
    if end_holds and change.component is not None:
        raise invalid(
            "query", "end_holds ends every hold, so it cannot be combined with component."
        )
    return await change.to(OFF, end_holds=end_holds)


@router.get("/workers", responses=responses())
async def get_workers(mode: Mode) -> list[WorkerReport]:
    """Return the workers on every host, including those that vanished recently."""
    if not isinstance(mode.backend, WorkerRegistry):
        raise UnsupportedError(
            f"{mode.backend.describe()} has no registry of workers; only Redis has."
        )
    return WorkerReport.all_of(await mode.backend.read_registry())


@router.post("/barrier", responses=responses(400, 403, 404, 415))
async def post_barrier(asked: BarrierRequest, mode: Mode, component: Component) -> Barrier:
    """Wait until every live worker has applied the current state and, if requested, drained."""
    result = await wait_until_applied(
        mode.backend, component=component, drained=asked.drained, timeout=asked.timeout
    )
    try:
        result.check()
        why_not = None
    except BarrierError as error:
        why_not = str(error)
    return Barrier.model_validate(result.to_json() | {"why_not": why_not})


@router.get("/history", responses=responses(404))
async def get_history(
    mode: Mode, component: Component, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[Change]:
    """Return the latest changes of the switch and of holds, newest first."""
    return [*reversed(await mode.backend.history(limit=limit, component=component))]


@router.get("/bypasses", responses=responses(404))
async def get_bypasses(mode: Mode, component: Component) -> list[BypassRecord]:
    """Return the valid bypass tokens, in general or for a part with a switch of its own."""
    return [*await granted(mode.backend, component)]


@router.post("/bypasses", status_code=201, responses=responses(400, 403, 404, 409, 415))
async def post_bypass(
    asked: BypassCreate, mode: Mode, component: Component, operator: Operator, root: Root
) -> BypassCreated:
    """Create a token. It is valid until it expires, is revoked, or the switch is set again."""
    if mode.granted.bypass is None:
        raise UnsupportedError(
            "Bypass tokens are not configured. Pass bypass=Bypass() to the middleware."
        )
    backend, lasting = mode.backend.as_operator(operator), timedelta(seconds=asked.lasting)
    token, record, _ = await grant(
        backend, mode.granted.bypass, lasting, asked.note or None, component
    )
    query = f"{PARAMETER}={token}"
    return BypassCreated(**record.model_dump(), token=token, query=query, link=f"{root}?{query}")


@router.delete("/bypasses/{id}", status_code=204, responses=responses(403, 404, 409))
async def delete_bypass(mode: Mode, component: Component, operator: Operator, id: str) -> None:
    """Revoke a token, on every worker at once."""
    await revoke(mode.backend.as_operator(operator), [id], component)
