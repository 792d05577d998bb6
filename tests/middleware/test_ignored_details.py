"""A typo in the switch does not leave the service open: invalid details are ignored and named,
wherever the switch is.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import pytest

from fastapi_maintenance import maintenance_mode_on
from fastapi_maintenance.backends import (
    BaseStateBackend,
    EnvVarBackend,
    LocalFileBackend,
    RedisBackend,
)
from fastapi_maintenance.backends.status import look
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..support.servers import RedisServer
from ..support.waiting import eventually

TYPO: Final = '{"enabled": true, "msg": "x", "mode": "readonly"}'
NAMED: Final = ("mode: Input should be 'full' or 'read-only'", "msg: unknown key")


async def closes(
    backend: BaseStateBackend, log: pytest.LogCaptureFixture, component: str | None = None
) -> list[str]:
    """Returns what was logged of a switch that closes."""
    with log.at_level(logging.WARNING, "fastapi_maintenance"):
        async with MaintenanceMode(backend) as mode:
            mode.follow_components(frozenset([component] if component else ()))
            await eventually(
                lambda: mode.gate.for_component(component).closure is not None, within=30
            )
            for _ in range(3):
                mode.update(await backend.read(), 0.0)
    state = mode.gate.for_component(component).state
    assert (state.enabled, state.mode, state.ignored) == (True, "full", NAMED)
    switch = (await look(backend, component)).to_json()["switch"]
    assert (switch["enabled"], switch["ignored"]) == (True, list(NAMED))
    return [record.message for record in log.records]


async def test_redis_switch_with_typo_closes(
    redis_server: RedisServer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await redis_server.acli("SET", "maintenance", TYPO)
    (logged,) = await closes(RedisBackend(redis_url), caplog)
    assert logged.endswith(f"ignored details of the switch: {'; '.join(NAMED)}")


async def test_redis_component_with_typo_closes(
    redis_server: RedisServer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await redis_server.acli("SET", "maintenance:billing", TYPO)
    (logged,) = await closes(RedisBackend(redis_url), caplog, "billing")
    assert logged.endswith(f"ignored details of the switch of billing: {'; '.join(NAMED)}")


async def test_file_switch_with_typo_closes_and_is_rewritten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "switch.json"
    path.write_text(TYPO)
    backend = LocalFileBackend(path, ttl=0.05)
    (logged,) = await closes(backend, caplog)
    assert logged.endswith(f"ignored details of the switch: {'; '.join(NAMED)}")
    await backend.set_value(True)
    assert path.read_text() == "1"


async def test_env_switch_with_typo_closes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", TYPO)
    (logged,) = await closes(EnvVarBackend(), caplog)
    assert logged.endswith(f"ignored details of the switch: {'; '.join(NAMED)}")


async def test_redis_hold_of_newer_version_closes(
    redis_server: RedisServer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = RedisBackend(redis_url)
    async with MaintenanceMode(backend) as mode, maintenance_mode_on(backend=backend):
        key = "{maintenance}:holds"
        (id, *_) = (await redis_server.acli("HKEYS", key)).splitlines()
        stored = await redis_server.acli("HGET", key, id)
        assert '"enabled": true' in stored
        await redis_server.acli(
            "HSET", key, id, stored.replace('"enabled": true', '"enabled": true, "later": [1]')
        )
        await redis_server.acli("SET", "maintenance", "0")
        await eventually(lambda: mode.gate.state.ignored == ("later: unknown key",), within=30)
        assert not mode.gate.is_open


LATER: Final = '{"enabled": true, "starts_at": "2999-01-01T00:00:00Z", "x": 1}'


@pytest.mark.parametrize("value", ['{"enabled": false, "msg": "x"}', LATER])
async def test_redis_typo_is_logged_though_open(
    value: str, redis_server: RedisServer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fastapi_maintenance"):
        async with MaintenanceMode(RedisBackend(redis_url)) as mode:
            await redis_server.acli("SET", "maintenance", value)
            await eventually(
                lambda: [record for record in caplog.records if "unknown key" in record.message],
                within=30,
            )
            assert mode.gate.is_open
