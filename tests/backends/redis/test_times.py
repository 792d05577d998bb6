"""Windows and times to live of the switch in Redis.

The docstring of a test names a fault that another package had in 2026.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final

import pytest

from fastapi_maintenance import (
    MaintenanceState,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.exceptions import ConfigurationError

from ...support.servers import RedisServer
from ...support.shops import SOON, becomes, in_, worker

KEY: Final = "maintenance"


@pytest.mark.parametrize(
    ("state", "least", "most"),
    [
        ({}, 3600, 3600),
        ({"ends_in": 900}, 890, 900),
        ({"retry_after": 120, "ends_in": 900}, 120, 120),
    ],
)
def test_retry_after_is_a_number_of_seconds(
    redis_server: RedisServer, state: dict[str, int], least: int, most: int
) -> None:
    """waygate 0.2.0 sends an ISO 8601 date, which no client can read, or for its global mode
    nothing.
    """
    document: dict[str, Any] = {"enabled": True} | state
    if (seconds := document.pop("ends_in", None)) is not None:
        document["ends_at"] = in_(seconds)
    redis_server.cli("SET", KEY, json.dumps(document))
    with worker(redis_server.url) as client:
        answer = client.get("/")

    assert answer.headers["retry-after"].isdecimal()
    assert least <= int(answer.headers["retry-after"]) <= most
    assert answer.headers["cache-control"] == "no-store"


def test_retry_after_is_the_time_to_live(redis_server: RedisServer) -> None:
    redis_server.cli("SET", KEY, "1", "EX", "600")
    with worker(redis_server.url) as client:
        becomes(client, 503)
        assert 590 <= int(client.get("/").headers["retry-after"]) <= 600


def test_upcoming_window_closes_nothing(redis_server: RedisServer) -> None:
    """In waygate 0.2.0 to schedule is to write the state, and so it closes at once."""
    with worker(redis_server.url) as client:
        redis_server.cli(
            "SET", KEY, json.dumps({"enabled": True, "starts_at": in_(3600), "ends_at": in_(7200)})
        )
        time.sleep(0.5)
        assert client.get("/").status_code == 200
        redis_server.cli(
            "SET", KEY, json.dumps({"enabled": True, "starts_at": in_(4), "ends_at": in_(7200)})
        )
        assert client.get("/").status_code == 200
        becomes(client, 503, within=4 + SOON)


def test_window_that_ended_without_workers_is_over(
    redis_server: RedisServer,
) -> None:
    """In waygate 0.2.0 some process must write the end of a window; where none lived to do so,
    it never ends.
    """
    window = json.dumps({"enabled": True, "starts_at": in_(-60), "ends_at": in_(6)})
    redis_server.cli("SET", KEY, window)
    with worker(redis_server.url) as client:
        becomes(client, 503)
    time.sleep(6.1)
    with worker(redis_server.url) as client:
        assert client.get("/").status_code == 200
    assert redis_server.cli("GET", KEY) == window


def test_extended_window_does_not_end_at_its_old_end(
    redis_server: RedisServer,
) -> None:
    """In waygate 0.2.0 another worker's timer still writes "off" at the old one."""
    redis_server.cli("SET", KEY, json.dumps({"enabled": True, "ends_at": in_(6)}))
    with worker(redis_server.url) as a, worker(redis_server.url) as b:
        for client in (a, b):
            becomes(client, 503)
        extended = json.dumps({"enabled": True, "ends_at": in_(600)})
        redis_server.cli("SET", KEY, extended)
        time.sleep(6.2)
        for client in (a, b):
            becomes(client, 503)
    assert redis_server.cli("GET", KEY) == extended


@pytest.mark.parametrize("seconds", [0, -1])
async def test_time_to_live_of_zero_is_an_error(redis_url: str, seconds: float) -> None:
    """A Redis driver for Lexik's bundle sends SETEX with 0, which is an error that only Redis
    tells.
    """
    backend = RedisBackend(redis_url)
    with pytest.raises(ConfigurationError, match="expires_in must be a positive number of seconds"):
        await set_maintenance_mode(True, backend, expires_in=seconds)

    assert not await backend.get_value()


async def test_shortest_time_to_live_expires(redis_server: RedisServer) -> None:
    backend = RedisBackend(redis_server.url)
    await set_maintenance_mode(
        MaintenanceState(enabled=True, message="soon over"), backend, expires_in=0.02
    )
    assert await redis_server.acli("PTTL", KEY) != "-1"
    await asyncio.sleep(0.05)

    assert not await backend.get_value()
