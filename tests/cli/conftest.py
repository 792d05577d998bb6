"""What the tests of the command line ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from fastapi_maintenance import MaintenanceState
from fastapi_maintenance.backends import backend_from_url
from fastapi_maintenance.model.holds import Hold

from ..support.commands import Ran, run


class Cli(Protocol):
    """Runs a command in this process."""

    def __call__(self, *arguments: str) -> Ran: ...


@pytest.fixture
def cli() -> Cli:
    """Runs commands as a script would, with pipes for output."""
    return run


@pytest.fixture(params=["file", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A backend that can be written: each in turn."""
    return (
        f"file:{tmp_path}/switch.json"
        if request.param == "file"
        else request.getfixturevalue("redis_url")
    )


@pytest.fixture
def take_hold() -> Callable[..., Hold]:
    """Takes a hold as a block elsewhere would; it is never renewed."""

    def take(
        url: str,
        id: str,
        *,
        lease: float = 30.0,
        lifts: tuple[str, ...] = (),
        enabled: bool = True,
        **details: Any,
    ) -> Hold:
        hold = Hold(id, MaintenanceState(enabled=enabled, **details), lifts=lifts)
        return asyncio.run(backend_from_url(url).acquire(hold, lease))

    return take
