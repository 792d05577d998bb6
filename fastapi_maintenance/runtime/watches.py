"""The running watches of an application: one for each event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress

from ..exceptions import ConfigurationError


class Watch:
    """One running watch: its event loop, its task, and an event for each job of the task."""

    task: asyncio.Task[None]

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ready = asyncio.Event()
        self.updated = asyncio.Event()
        self.alive_at = time.monotonic()  # when the loop last ran
        self.fallbacks = asyncio.Event()
        self.on_change = asyncio.Event()
        self.on_change_once = asyncio.Event()
        self.closed = asyncio.Event()


class Watches(dict[asyncio.AbstractEventLoop, Watch]):
    """The watch of each event loop on which the application runs."""

    def on_this_loop(self, run: Callable[[Watch], Coroutine[None, None, None]]) -> Watch:
        """Return the watch of this event loop, and start it unless it runs already."""
        loop = running_loop()
        watch = self.get(loop)
        if watch is None or watch.task.done():
            for closed in [other for other in self if other.is_closed()]:  # with tasks unfinished
                self.pop(closed, None)
            watch = self[loop] = Watch(loop)
            watch.task = loop.create_task(run(watch), name="fastapi_maintenance watch")
        return watch

    async def stop(self) -> None:
        """Stop the watch of this event loop."""
        watch = self.pop(asyncio.get_running_loop(), None)
        if watch is not None:
            watch.task.cancel()
            await asyncio.wait([watch.task])

    def notify(self, *events: str) -> None:
        """Set these events of every watch, from any thread."""
        for watch in list(self.values()):
            for event in (getattr(watch, name) for name in events):
                if not event.is_set():
                    with suppress(RuntimeError):  # the loop was closed with tasks unfinished
                        watch.loop.call_soon_threadsafe(event.set)


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises `ConfigurationError` under trio and without a running loop.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "The event loop must be asyncio's, got none or another kind. "
            "Run the server on asyncio; with hypercorn, by --worker-class asyncio."
        ) from None
