"""Run `on_change` in every worker and `on_change_once` in one worker, outside the request path."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from .._internal.callables import call_handler, qualified_name
from .._internal.logging import log_fields
from .._internal.validation import require
from ..backends import BaseStateBackend
from ..backends.base import StateChange, as_backend_error
from ..exceptions import InvalidStateError
from ..model.precedence import Closure
from ..model.state import OFF, MaintenanceState
from .gate import Gate

ChangeHook = Callable[[MaintenanceState, MaintenanceState, str], object]
"""Called with the old state, the new state and its source. Async, or sync and then in a thread."""

logger = logging.getLogger("fastapi_maintenance")

_MAX_QUEUED: Final = 100  # changes; if a hook hangs, the oldest are dropped


class ChangeHooks:
    """Calls `on_change` for each change of one application, in order, and `on_change_once` once.

    The backend decides which worker calls `on_change_once`. Raises `ConfigurationError` for a hook
    that cannot be called.
    """

    def __init__(self, on_change: ChangeHook | None, on_change_once: ChangeHook | None) -> None:
        for name, hook in (("on_change", on_change), ("on_change_once", on_change_once)):
            require(hook is None or callable(hook), f"{name} must be callable", hook)
        self.on_change = on_change
        self.on_change_once = on_change_once
        self._changes = deque[tuple[MaintenanceState, MaintenanceState, str]](maxlen=_MAX_QUEUED)
        self._running = threading.Lock()  # for one event loop at a time, so that the order stays
        self._settled: MaintenanceState | None = None  # the last state that was told
        self._last_error = ""

    def enqueue(self, old: Closure | None, new: Closure | None, source: str) -> None:
        """Queue a change for `on_change`, from any thread."""
        if state_of(old) != state_of(new):
            self._changes.append((state_of(old), state_of(new), source))

    async def run(self) -> None:
        """Call `on_change` for the queued changes."""
        if self._running.acquire(blocking=False):
            try:
                while self._changes:
                    await _call("on_change", self.on_change, *self._changes.popleft())
            finally:
                self._running.release()

    async def run_once(self, gate: Gate, confirmed_at: float, backend: BaseStateBackend) -> None:
        """Offer the backend to call `on_change_once`, unless the state of the gate is settled."""
        # Without the window: each worker computes the end from a time to live, to the microsecond.
        state = state_of(gate.closure).model_copy(update={"starts_at": None, "ends_at": None})
        before = self._settled or OFF
        # A worker in an outage follows its own policy, which is no change of the deployment.
        if state == self._settled or gate.source != backend.kind:
            return

        async def tell(old: str) -> None:
            try:
                last = MaintenanceState.parse(old)
            except InvalidStateError:  # edited by hand
                last = before
            await _call("on_change_once", self.on_change_once, last, state, gate.source)

        change = StateChange(before.dump(), state.dump(), confirmed_at)
        try:
            if await backend.notify_once(change, tell):
                self._settled = state
            self._last_error = ""
        except Exception as error:  # a custom backend may raise anything
            message = f"{as_backend_error(error, backend)}"
            if message != self._last_error:
                extra = log_fields("hook-waits", backend=backend.describe())
                logger.warning("on_change_once cannot be called yet: %s", message, extra=extra)
            self._last_error = message


def state_of(closure: Closure | None) -> MaintenanceState:
    """Return the state that closes the gate, or off."""
    return OFF if closure is None else closure.state


async def _call(
    role: str, hook: Any, old: MaintenanceState, new: MaintenanceState, source: str
) -> None:
    """Call a hook, and log its error."""
    try:
        await call_handler(hook, old, new, source, abandon=True)
    except Exception as error:
        name = qualified_name(hook)
        extra = log_fields("hook-failed", hook=name)
        logger.error("The %s hook %s failed: %r", role, name, error, exc_info=error, extra=extra)
