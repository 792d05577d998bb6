"""Waiting for what must become true, without guessing how long it takes."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar, overload

import anyio

T = TypeVar("T")


@overload
async def eventually(
    predicate: Callable[[], Awaitable[T]], *, within: float, every: float = ...
) -> T: ...
@overload
async def eventually(predicate: Callable[[], T], *, within: float, every: float = ...) -> T: ...
async def eventually(predicate: Callable[[], Any], *, within: float, every: float = 0.005) -> Any:
    """Await until `predicate`, sync or async, is true, and return what it said.

    `within` and `every` are seconds. An `AssertionError` in it counts as "not yet". Raises
    `AssertionError` when time is up.
    """
    value: object = None
    for last in _tries(within):
        try:
            value = predicate()
            if inspect.isawaitable(value):
                value = await value
        except AssertionError:
            if last:
                raise
        else:
            if value:
                return value
        await anyio.sleep(every)
    raise AssertionError(_too_late(predicate, value, within))


def eventually_sync(predicate: Callable[[], T], *, within: float, every: float = 0.005) -> T:
    """The same for code without an event loop; blocks the thread."""
    value: object = None
    for last in _tries(within):
        try:
            value = predicate()
        except AssertionError:
            if last:
                raise
        else:
            if value:
                return value
        time.sleep(every)
    raise AssertionError(_too_late(predicate, value, within))


def _tries(within: float) -> Iterator[bool]:
    """One item a try, saying whether it is the last: the first that began after the deadline."""
    deadline = time.monotonic() + within
    last = False
    while not last:
        last = time.monotonic() >= deadline
        yield last


def _too_late(predicate: object, value: object, within: float) -> str:
    return f"{predicate!r} was still {value!r} after {within} s"
