"""Readiness probe: whether a closed worker stays in the load balancer during maintenance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from starlette.responses import JSONResponse

from ._internal.validation import require_choice
from .decorators import force_maintenance_mode_off
from .runtime.current import current_mode

__all__ = ["WhileClosed", "readiness"]

WhileClosed = Literal["stay", "leave"]


def readiness(*, while_closed: WhileClosed) -> Callable[[], Awaitable[JSONResponse]]:
    """Make an endpoint for readiness probes: `app.get("/ready")(readiness(while_closed="stay"))`.

    With "stay", a closed worker is ready: clients get its 503 with the page and Retry-After.
    With "leave", the endpoint answers 503 while maintenance is on, for a load balancer that has a
    page of its own. Two kinds of closed workers stay ready all the same: one in read-only mode,
    which still serves reads, and one that cannot reach its backend, so that an outage of Redis
    does not empty the load balancer. The endpoint does no I/O and passes during maintenance.
    Raises `ConfigurationError`.
    """
    require_choice("while_closed", while_closed, WhileClosed)

    @force_maintenance_mode_off
    async def ready() -> JSONResponse:
        mode = current_mode()
        closed = left = False
        if mode is not None and mode.gate.closure is not None:
            closed, is_unreachable = True, mode.gate.source == "unreachable-closed"
            serves_nothing = mode.gate.closure.state.mode == "full" and not is_unreachable
            left = while_closed == "leave" and serves_nothing
        content = {"ready": not left, "maintenance": closed}
        return JSONResponse(content, 503 if left else 200, {"Cache-Control": "no-store"})

    return ready
