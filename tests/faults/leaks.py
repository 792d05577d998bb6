"""Notices what is left when it should be gone: tasks, threads, sockets and other files."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from tests.support.waiting import eventually

from .bounds import SLACK

# Threads that an event loop or anyio keeps for the next call; they are few, idle and end with the
# loop.
_POOLED: Final = re.compile(r"asyncio_\d+|AnyIO worker thread")


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fail if the block leaves anything behind that was not there before; what is just being closed
    has a moment for that.
    """
    before = set(_belongings())
    yield
    left: set[str] = set()

    def all_gone() -> bool:
        left.clear()
        left.update(set(_belongings()) - before)
        return not left

    with suppress(AssertionError):
        await eventually(all_gone, within=SLACK)
    assert not left, f"left behind: {sorted(left)}"


def _belongings() -> Iterator[str]:
    """All there is, each by a name that nothing later can have."""
    for task in asyncio.all_tasks():
        if "TestRunner" not in str(task.get_coro()):  # anyio's own, in which tests and fixtures run
            yield f"task {id(task)} {task.get_name()} {task.get_coro()}"
    for thread in threading.enumerate():
        if not _POOLED.match(thread.name):
            yield f"thread {thread.ident} {thread.name}"
    for number in os.listdir("/dev/fd"):
        with suppress(OSError):  # the one by which the directory was read
            yield f"file {number} {os.readlink(f'/dev/fd/{number}')}"
