"""Close WebSockets and streams some seconds after a closing."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from .._internal.validation import non_negative
from ..model.precedence import Closure
from ..responses.content import detail
from .gate import Gate
from .requests import InFlightRequests


class Evictor:
    """Closes the connections that outlive a closing: WebSockets, and responses of unknown length.

    Both options are seconds after the closing; None leaves that kind open. Raises
    `ConfigurationError` for invalid seconds.
    """

    def __init__(self, *, close_websockets: float | None, close_streams: float | None) -> None:
        given = {
            "websocket": ("close_websockets", close_websockets),
            "http": ("close_streams", close_streams),
        }
        self._grace = {
            kind: non_negative(name, value)
            for kind, (name, value) in given.items()
            if value is not None
        }
        self.closed_since = ClosedSince()

    def start(
        self, tasks: asyncio.TaskGroup, requests: InFlightRequests, current_gate: Callable[[], Gate]
    ) -> None:
        """Start the countdowns of a closing."""
        for kind, after in self._grace.items():
            tasks.create_task(self._close(kind, after, time.monotonic(), requests, current_gate))

    async def _close(
        self,
        kind: str,
        after: float,
        began: float,
        requests: InFlightRequests,
        current_gate: Callable[[], Gate],
    ) -> None:
        await asyncio.sleep(after)
        gate = current_gate()
        # All at once: sending to a client that reads nothing may wait until the server drops it.
        await asyncio.gather(
            *(
                request.close(detail(closure.state))
                for request in requests.blocking(gate)
                if request.scope["type"] == kind
                and request.close
                and not request.excluded
                and (closure := self.closed_since.before(began, gate, request.component))
            )
        )


class ClosedSince:
    """The monotonic times at which the service, and each component, was last closed."""

    def __init__(self) -> None:
        self._since: dict[str | None, float] = {}

    def note(self, gate: Gate, before: Gate, at: float) -> None:
        """Record that one gate followed another."""
        since = self._since
        general = since.get(None, -math.inf)
        # Also the components that follow the general state now: they may have been open until now.
        for component in {None, *gate.components, *before.components, *since}:
            if gate.for_component(component).closure is None:
                since.pop(component, None)
            elif before.for_component(component).closure is None:
                since[component] = at
            else:
                since.setdefault(component, general)

    def before(self, moment: float, gate: Gate, component: str | None) -> Closure | None:
        """Return the closure of a component, or of everything, if it has lasted since `moment`."""
        since = self._since.get(component, self._since.get(None, math.inf))
        return gate.for_component(component).closure if since <= moment else None
