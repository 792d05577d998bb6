"""Call user-supplied functions, sync or async, and name them in messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Final, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

Result = TypeVar("Result")

_MAX_THREADS: Final = 40
# One limiter for each event loop.
_threads: Final[RunVar[CapacityLimiter]] = RunVar("fastapi_maintenance_threads")


async def call_handler(
    handler: Callable[..., Result | Awaitable[Result]], *args: object, abandon: bool = False
) -> Result:
    """Call a handler, in a thread unless it is async, and await an awaitable result.

    The threads are not those of the application: a handler never queues behind its blocked
    endpoints. With `abandon`, a cancellation does not wait for the thread.
    """
    if is_async(handler):
        result = handler(*args)
    else:
        result = await to_thread.run_sync(
            partial(handler, *args), abandon_on_cancel=abandon, limiter=_own_limiter()
        )
    return await result if isawaitable(result) else result


def _own_limiter() -> CapacityLimiter:
    limiter = _threads.get(None)
    if limiter is None:
        limiter = CapacityLimiter(_MAX_THREADS)
        _threads.set(limiter)
    return limiter


def is_async(handler: Any) -> bool:
    """Return whether a callable, or its `__call__`, is async. Partials are unwrapped."""
    while isinstance(handler, partial):
        handler = handler.func
    return iscoroutinefunction(handler) or iscoroutinefunction(handler.__call__)


def qualified_name(handler: object) -> str:
    """Return the name of a handler for messages."""
    while isinstance(handler, partial):
        handler = handler.func
    named: Any = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{named.__module__}.{named.__qualname__}"
