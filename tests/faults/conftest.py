"""What the fault suite shares. Every test in it is watched: the event loop must not be late, and nothing may be left behind."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator

import pytest

from .leaks import nothing_left
from .sites import SITES, Site
from .watchdog import Watchdog


@pytest.fixture(autouse=True)
def _start_processes_without_stopping_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With vfork(2) we stand still, and hold the interpreter's lock, until the new process has been given a processor and has begun."""
    monkeypatch.setattr(subprocess, "_USE_VFORK", False)


@pytest.fixture(autouse=True)
async def watchdog() -> AsyncIterator[Watchdog]:
    """Watches each test. One that keeps the loop busy itself, as no worker would, may set `bound` and say why."""
    async with nothing_left():
        with Watchdog() as watchdog:
            yield watchdog


@pytest.fixture(params=SITES)
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """Each kind of deployment in turn."""
    async with SITES[request.param]() as site:
        yield site
