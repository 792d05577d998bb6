"""Readiness for load balancers: whether a closed worker stays to answer 503 itself, or leaves. Redis being away is no reason to leave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal, get_args

from starlette.responses import JSONResponse

from .decorators import force_maintenance_mode_off
from .exceptions import ConfigurationError
from .mode import mode_at_hand

__all__ = ["WhileClosed", "readiness"]

WhileClosed = Literal["stay", "leave"]

_UNREACHABLE: Final = "unreachable-closed"  # the source of a gate that is closed because its backend is away


def readiness(*, while_closed: WhileClosed) -> Callable[[], Awaitable[JSONResponse]]:
    """Make an endpoint for readiness probes: `app.get("/ready")(readiness(while_closed="stay"))`.

    With "stay" a closed worker is ready, so that visitors get its 503 with the page and Retry-After. With "leave" it answers 503 while
    maintenance is on, for a load balancer that has a page of its own. A worker that is closed because its backend cannot be reached
    is ready all the same: else an outage of Redis would empty the load balancer. It asks nobody, and passes during maintenance.
    """
    if while_closed not in get_args(WhileClosed):
        raise ConfigurationError(f"while_closed must be {' or '.join(get_args(WhileClosed))}, not {while_closed!r}.")

    @force_maintenance_mode_off
    async def ready() -> JSONResponse:
        mode = mode_at_hand()
        closed = mode is not None and mode.gate.closing is not None
        left = closed and while_closed == "leave" and mode is not None and mode.gate.source != _UNREACHABLE
        content = {"ready": not left, "maintenance": closed}
        return JSONResponse(content, 503 if left else 200, {"Cache-Control": "no-store"})

    return ready
