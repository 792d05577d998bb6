"""Readiness probe: whether a closed worker stays in the load balancer during maintenance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal, get_args

from starlette.responses import JSONResponse

from .decorators import force_maintenance_mode_off
from .exceptions import ConfigurationError
from .runtime.current import current_mode
from .runtime.gate import Gate

__all__ = ["WhileClosed", "readiness"]

WhileClosed = Literal["stay", "leave"]

# The source of a gate that is closed because its backend is away.
_UNREACHABLE: Final = "unreachable-closed"


def readiness(*, while_closed: WhileClosed) -> Callable[[], Awaitable[JSONResponse]]:
    """Make an endpoint for readiness probes: `app.get("/ready")(readiness(while_closed="stay"))`.

    With "stay", a closed worker is ready: clients get its 503 with the page and Retry-After.
    With "leave", the endpoint answers 503 while maintenance is on, for a load balancer that has a
    page of its own. Two kinds of closed workers stay ready all the same: one in read-only mode,
    which still serves reads, and one that cannot reach its backend, so that an outage of Redis
    does not empty the load balancer. The endpoint does no I/O and passes during maintenance.
    Raises `ConfigurationError`.
    """
    if while_closed not in get_args(WhileClosed):
        raise ConfigurationError(
            f"while_closed must be {' or '.join(get_args(WhileClosed))}, not {while_closed!r}."
        )

    @force_maintenance_mode_off
    async def ready() -> JSONResponse:
        mode = current_mode()
        gate = None if mode is None else mode.gate
        closed = gate is not None and gate.closure is not None
        left = while_closed == "leave" and gate is not None and _serves_nothing(gate)
        content = {"ready": not left, "maintenance": closed}
        return JSONResponse(content, 503 if left else 200, {"Cache-Control": "no-store"})

    return ready


def _serves_nothing(gate: Gate) -> bool:
    """Return whether the gate refuses reads too, for another reason than an unreachable backend."""
    closing = gate.closure
    return closing is not None and closing.state.mode == "full" and gate.source != _UNREACHABLE
