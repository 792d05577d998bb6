"""The fixtures that guard every test."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from types import SimpleNamespace

import pytest
from blockbuster import BlockingError
from coverage import Coverage

from fastapi_maintenance import configure_backend
from fastapi_maintenance._internal.logging import error_text
from fastapi_maintenance.backends import default

from ..conftest import no_blocking_calls
from .ports import is_free


class Sleeper(Exception):
    """Blocks when our package asks it what it says."""

    def __str__(self) -> str:
        time.sleep(0)
        return "slept"


async def test_blocking_call_in_an_event_loop_fails() -> None:
    with pytest.raises(BlockingError, match=r"time\.sleep"):
        error_text(Sleeper())


@pytest.mark.may_block
async def test_marked_test_may_block() -> None:
    assert error_text(Sleeper()) == "slept"


class Locker(Exception):
    """Waits for a lock when our package asks it what it says."""

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock

    def __str__(self) -> str:
        self.lock.acquire()
        return "acquired"


@pytest.mark.may_block
async def test_lock_of_coverage_is_no_blocking_call(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, other = threading.Lock(), threading.Lock()
    running = SimpleNamespace(_collector=SimpleNamespace(data_lock=lock))
    monkeypatch.setattr(Coverage, "current", lambda: running)
    with lock, other, no_blocking_calls():
        threading.Timer(0.05, lock.release).start()
        assert error_text(Locker(lock)) == "acquired"
        with pytest.raises(BlockingError, match="acquire"):
            error_text(Locker(other))


async def test_threads_and_tests_may_block() -> None:
    assert await asyncio.to_thread(error_text, Sleeper()) == "slept"
    time.sleep(0)


@pytest.mark.parametrize("round_", [1, 2])
def test_nothing_is_configured_at_the_start(round_: int) -> None:
    assert not [name for name in os.environ if name.startswith("FASTAPI_MAINTENANCE")]
    assert default.backend_or_default().describe() == "env:FASTAPI_MAINTENANCE_MODE"
    configure_backend(f"env:LEFT_OVER_{round_}")


def test_free_port_is_free(free_port: int) -> None:
    assert is_free(free_port)
