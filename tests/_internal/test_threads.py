"""Functions in threads: what comes back, and what becomes of those that nobody waits for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from fastapi_maintenance._internal.threads import in_thread

from ..support.waiting import eventually


async def test_function_that_returns_gives_its_result_from_a_thread() -> None:
    assert await in_thread(threading.get_ident) != threading.get_ident()


async def test_function_that_raises_has_its_error_raised() -> None:
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await in_thread(fail)


async def test_result_after_a_cancellation_is_dropped() -> None:
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    go_on = threading.Event()
    started: list[threading.Thread] = []

    def wait() -> None:
        started.append(threading.current_thread())
        go_on.wait()

    waiting = asyncio.create_task(in_thread(wait))
    await eventually(lambda: bool(started), within=30)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    started[0].join()
    await asyncio.sleep(0)  # in which the loop takes the result
    await asyncio.sleep(0)

    assert problems == []


def test_result_after_the_loop_was_closed_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    uncaught: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)
    go_on = threading.Event()
    started: list[threading.Thread] = []

    def wait() -> None:
        started.append(threading.current_thread())
        go_on.wait()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_thread(wait), 0.05)

    asyncio.run(give_up())
    go_on.set()
    started[0].join()

    assert uncaught == []
