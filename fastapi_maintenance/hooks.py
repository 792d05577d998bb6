"""Tells whom the user named of changes: in every worker, and in one worker for all. Never in the way of a request."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ._fields import fields
from ._handlers import call_handler, name_of
from ._policy import Closing
from .backends.base import News, as_backend_error
from .exceptions import ConfigurationError, InvalidStateError
from .state import OFF, MaintenanceState
from .types import ChangeHook

if TYPE_CHECKING:
    from .mode import MaintenanceMode

__all__ = ["Hooks", "standing"]

logger = logging.getLogger("fastapi_maintenance")

_MOST: Final = 100  # changes that wait for a hook; of a hook that hangs, the oldest are given up


class Hooks:
    """Calls `on_change` for each change that one application sees, in order, and `on_change_once` as its backend allots."""

    def __init__(self, mode: MaintenanceMode, on_change: ChangeHook | None, on_change_once: ChangeHook | None) -> None:
        for name, hook in (("on_change", on_change), ("on_change_once", on_change_once)):
            if hook is not None and not callable(hook):
                raise ConfigurationError(f"{name} must be callable, not {hook!r}.")
        self._mode = mode
        self._on_change = on_change
        self._on_change_once = on_change_once
        self._changes: deque[tuple[MaintenanceState, MaintenanceState, str]] = deque(maxlen=_MOST)
        self._calling = threading.Lock()  # by one event loop at a time, so that the order stays
        self._trouble = ""

    def note(self, old: Closing | None, new: Closing | None, source: str) -> None:
        """Remember a change for `on_change`; from any thread."""
        if self._on_change is not None and standing(old) != standing(new):
            self._changes.append((standing(old), standing(new), source))

    async def serve(self, changed: asyncio.Event) -> None:
        """Call `on_change` for what was noted, whenever the event says so, until cancelled."""
        while self._on_change is not None:
            if self._calling.acquire(blocking=False):
                try:
                    while self._changes:
                        await _call("on_change", self._on_change, *self._changes.popleft())
                finally:
                    self._calling.release()
            await self._pause(changed)

    async def serve_once(self, changed: asyncio.Event) -> None:
        """Offer the backend to tell of the state that stands, whenever the event says so and until it is told; until cancelled."""
        settled: MaintenanceState | None = None
        before = OFF
        while self._on_change_once is not None:
            gate = self._mode.judge()
            state = _lasting(standing(gate.closing))
            # What a worker goes by while it cannot ask is its own affair, not the deployment's.
            if state != settled and gate.source == self._mode.backend.kind and await self._offer(before, state, gate.source):
                settled = before = state
            await self._pause(changed)

    async def _offer(self, before: MaintenanceState, state: MaintenanceState, source: str) -> bool:
        hook, mode = self._on_change_once, self._mode

        async def tell(old: str) -> None:
            try:
                told = MaintenanceState.parse(old)
            except InvalidStateError:  # somebody's hand was in it
                told = before
            await _call("on_change_once", hook, told, state, source)

        try:
            settled = await mode.backend.tell_once(News(before.dump(), state.dump(), mode.confirmed_time()), tell)
        except Exception as error:  # a backend of a user's own may raise anything
            trouble = f"{as_backend_error(error, mode.backend)}"
            if trouble != self._trouble:
                logger.warning(
                    "on_change_once cannot be called yet: %s", trouble, extra=fields("hook-waits", backend=mode.backend.describe())
                )
            self._trouble = trouble
            return False
        self._trouble = ""
        return settled

    async def _pause(self, changed: asyncio.Event) -> None:
        """Until something changes; and look again every `ttl`, because knowledge also grows old where nobody asks."""
        try:
            async with asyncio.timeout(self._mode.backend.ttl):
                await changed.wait()
        except TimeoutError:
            self._mode.judge()
        changed.clear()


def standing(closing: Closing | None) -> MaintenanceState:
    """What the requests of a worker are answered by: the state that closes it, or off."""
    return OFF if closing is None else closing.state


def _lasting(state: MaintenanceState) -> MaintenanceState:
    """Without the end, which each worker works out from a time to live for itself, and so to another microsecond."""
    return state.model_copy(update={"starts_at": None, "ends_at": None})


async def _call(role: str, hook: Any, old: MaintenanceState, new: MaintenanceState, source: str) -> None:
    """Call a hook. What it raises is logged and goes no further."""
    try:
        await call_handler(hook, old, new, source, abandon=True)
    except Exception as error:
        logger.error(
            "The %s hook %s failed: %r", role, name_of(hook), error, exc_info=error, extra=fields("hook-failed", hook=name_of(hook))
        )
