"""Every version of redis-server that is claimed to be tested is there, and is that version."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from . import versions
from .servers import RedisServer
from .versions import INSTALLED, VALKEY, VERSIONS, program_of

CARRIED = [version for version in VERSIONS if version != INSTALLED]


@pytest.mark.parametrize("version", CARRIED)
def test_server_from_a_wheel_has_its_version(version: str) -> None:
    said = subprocess.run(
        [program_of(version), "--version"], capture_output=True, text=True, check=True
    ).stdout

    assert f" v={version.removeprefix('valkey-')}." in said
    assert said.startswith("Valkey") == (version == VALKEY)


@pytest.mark.every_redis
def test_marked_test_gets_the_named_version(
    request: pytest.FixtureRequest, redis_server: RedisServer, redis_program: str
) -> None:
    version = request.node.callspec.params["redis_program"]
    said = redis_server.cli("INFO", "server")
    name, _, number = version.rpartition("-")

    assert version == INSTALLED or f"\n{name or 'redis'}_version:{number}." in said
    assert redis_program == program_of(version)


def test_environment_names_the_installed_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_SERVER", "/opt/redis/redis-server")
    assert program_of(INSTALLED) == "/opt/redis/redis-server"


@pytest.mark.parametrize(
    ("machine", "error"), [("x86_64", RuntimeError), ("aarch64", pytest.skip.Exception)]
)
def test_missing_server_fails_in_ci_and_skips_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, error: type[BaseException]
) -> None:
    monkeypatch.setattr(versions, "_SERVERS", tmp_path)
    monkeypatch.setattr(platform, "machine", lambda: machine)

    with pytest.raises(error, match=f"no redis-server {VALKEY}"):
        program_of(VALKEY)
