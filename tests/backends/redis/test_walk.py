"""The walk of a flip, from the push to the closed gate, as docs/architecture.md prints it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import fastapi_maintenance
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.runtime.mode import MaintenanceMode
from tests.support.pages import ROOT
from tests.support.waiting import eventually

PACKAGE = Path(fastapi_maintenance.__file__).parent


async def test_flip_touches_ten_files_until_the_gate_is_closed(
    redis_url: str, operator: Any
) -> None:
    files: dict[str, None] = {}

    def note(frame: Any, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and mode.gate.closure is None and path.is_relative_to(PACKAGE):
            files[path.name] = None

    async with MaintenanceMode(RedisBackend(redis_url, ttl=120.0)) as mode:
        for value in ("1", "0"):  # so that nothing is done for the first time
            await operator.set("maintenance", value)
            await eventually(lambda: (mode.gate.closure is None) is (value == "0"), within=30)  # noqa: B023
        await asyncio.sleep(0.2)  # the report about that is over, too
        sys.setprofile(note)
        try:
            await operator.set("maintenance", "1")
            await eventually(lambda: mode.gate.closure is not None, within=30)
        finally:
            sys.setprofile(None)

    page = (ROOT / "docs" / "architecture.md").read_text()
    (walk,) = (line for line in page.splitlines() if "touches ten files" in line)
    assert sorted(files) == sorted(name for name in files if f"`{name}`" in walk)
    assert len(files) <= 10
