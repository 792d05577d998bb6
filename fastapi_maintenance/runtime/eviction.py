"""Close WebSockets and streams some seconds after a closing."""

from __future__ import annotations

import asyncio
import math
import time

from .._internal.validation import non_negative
from ..model.precedence import Closure
from ..responses.content import detail
from .gate import Gate
from .requests import Owner


class Evictor:
    """Closes the connections that outlive a closing: WebSockets, and responses of unknown length.

    Both options are seconds after the closing; None leaves that kind open. Raises
    `ConfigurationError` for invalid seconds.
    """

    def __init__(
        self, owner: Owner, close_websockets: float | None, close_streams: float | None
    ) -> None:
        self._owner = owner
        given = {
            "websocket": ("close_websockets", close_websockets),
            "http": ("close_streams", close_streams),
        }
        self._grace = {
            kind: non_negative(name, value)
            for kind, (name, value) in given.items()
            if value is not None
        }
        # The monotonic times at which the service, and each component, was last closed.
        self._closed_since: dict[str | None, float] = {}

    def note(self, gate: Gate, before: Gate, at: float) -> None:
        """Record that one gate followed another."""
        since = self._closed_since
        general = since.get(None, -math.inf)
        # Also the components that follow the general state now: they may have been open until now.
        for component in {None, *gate.components, *before.components, *since}:
            if gate.for_component(component).closure is None:
                since.pop(component, None)
            elif before.for_component(component).closure is None:
                since[component] = at
            else:
                since.setdefault(component, general)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start the countdowns of a closing."""
        for kind, after in self._grace.items():
            tasks.create_task(self._close(kind, after, time.monotonic()))

    async def _close(self, kind: str, after: float, began: float) -> None:
        await asyncio.sleep(after)
        gate = self._owner.gate
        # All at once: sending to a client that reads nothing may wait until the server drops it.
        await asyncio.gather(
            *(
                request.close(detail(closure.state))
                for request in self._owner.requests.blocking(gate)
                if request.scope["type"] == kind
                and request.close
                and not request.excluded
                and (closure := self._closure_before(began, gate, request.component))
            )
        )

    def _closure_before(self, moment: float, gate: Gate, component: str | None) -> Closure | None:
        """Return the closure of a component, or of everything, if it has lasted since `moment`."""
        since = self._closed_since
        lasts = since.get(component, since.get(None, math.inf)) <= moment
        return gate.for_component(component).closure if lasts else None
