"""Blocking functions in own threads, as the default executor may be full or shut down."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def start_thread(function: Callable[[], T]) -> Future[T]:
    """Run a function in a daemon thread, for which neither a loop nor the interpreter waits."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # so that a waiter that is cancelled ends only itself

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="fastapi_maintenance call", daemon=True).start()
    return future


async def in_thread(function: Callable[[], T]) -> T:
    """Run a function in a daemon thread. A cancellation does not wait for it."""
    return await asyncio.wrap_future(start_thread(function))
