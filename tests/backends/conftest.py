"""What the tests of several backends share."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastapi_maintenance.backends import BaseStateBackend, LocalFileBackend

# Imported here and not by the first URL that names Redis: that may be in an event loop, where
# reading the scripts is a blocking call.
from fastapi_maintenance.backends.redis import RedisBackend


@pytest.fixture(params=["file", "redis"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> BaseStateBackend:
    """One that many processes share, and that keeps details: each in turn."""
    if request.param == "file":
        return LocalFileBackend(tmp_path / "switch.json")
    return RedisBackend(request.getfixturevalue("redis_url"))
