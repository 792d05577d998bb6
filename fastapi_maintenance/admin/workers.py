"""The workers: who they are, and waiting for them."""

from __future__ import annotations

from fastapi import APIRouter

from ..backends.base import WorkerRegistry
from ..barrier import wait_until_applied
from ..exceptions import BarrierError, UnsupportedError
from .at_hand import Mode, Scope
from .models import Barrier, BarrierAsked, WorkerReport
from .problems import responses

__all__ = ["add_to"]


def add_to(router: APIRouter) -> None:
    """Add the operations to the router."""
    router.get("/workers", responses=responses())(get_workers)
    router.post("/barrier", responses=responses(400, 403, 404, 415))(post_barrier)


async def get_workers(mode: Mode) -> list[WorkerReport]:
    """The workers of every host that share the switch, also those that vanished a moment ago."""
    if not isinstance(mode.backend, WorkerRegistry):
        raise UnsupportedError(f"{mode.backend.describe()} has no registry of workers; only Redis has.")
    return WorkerReport.all_of(await mode.backend.roll_call())


async def post_barrier(asked: BarrierAsked, mode: Mode, scope: Scope) -> Barrier:
    """Wait until every live worker has applied the current state and, if asked, drained."""
    result = await wait_until_applied(mode.backend, scope=scope, drained=asked.drained, timeout=asked.timeout)
    try:
        result.check()
        why_not = None
    except BarrierError as error:
        why_not = str(error)
    return Barrier.model_validate(result.to_json() | {"why_not": why_not})
