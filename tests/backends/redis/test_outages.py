"""Workers and writers while Redis fails.

The docstring of a test names a fault that another package had in 2026.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from typing import Final

import pytest
from fastapi.testclient import TestClient

from fastapi_maintenance import (
    set_maintenance_mode,
)
from fastapi_maintenance.exceptions import BackendError, BackendUnavailableError

from ...conftest import RedisServerFactory
from ...support.servers import RedisServer
from ...support.shops import SOON, becomes, closable, worker
from ...support.waiting import eventually_sync

VARIABLE: Final = "FASTAPI_MAINTENANCE_MODE"
KEY: Final = "maintenance"


@pytest.mark.parametrize("lifespan", [True, False])
@pytest.mark.parametrize(("fallback", "status"), [("0", 200), ("1", 503)])
def test_application_starts_without_redis(
    free_port: int, monkeypatch: pytest.MonkeyPatch, lifespan: bool, fallback: str, status: int
) -> None:
    """waygate 0.2.0 says that it fails open; in fact start-up fails, or without a lifespan the
    first request does.
    """
    monkeypatch.setenv(VARIABLE, fallback)
    client = TestClient(closable(backend=f"redis://127.0.0.1:{free_port}/0?ttl=0.3"))
    with client if lifespan else nullcontext():
        assert client.get("/").status_code == status


def test_outage_does_not_end_maintenance(
    own_redis_server: RedisServerFactory,
) -> None:
    """In waygate 0.2.0 an outage of Redis opens the service in the middle of the very
    migration.
    """
    server = own_redis_server()
    server.cli("SET", KEY, "1")
    with worker(f"{server.url}?ttl=1") as client:
        becomes(client, 503)
        server.kill()
        gone = time.monotonic()
        while time.monotonic() < gone + 3:  # beyond `stale_after`
            assert client.get("/").status_code == 503
            time.sleep(0.02)


def test_flush_does_not_end_maintenance(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Contao's and Laravel's flag lives in the application's cache, and clearing that opens the
    site.
    """
    caplog.set_level(logging.INFO, "fastapi_maintenance")
    with worker(f"{redis_server.url}?ttl=120") as client:
        redis_server.cli("SET", KEY, "1")
        becomes(client, 503)
        redis_server.cli("FLUSHALL")
        eventually_sync(lambda: redis_server.cli("GET", KEY) == "1", within=SOON)
        assert client.get("/").status_code == 503
        assert "Redis lost its data" in caplog.text
        caplog.clear()
        redis_server.cli("DEL", KEY)
        becomes(client, 200)
        assert "lost" not in caplog.text


async def test_failed_write_is_an_error(
    own_redis_server: RedisServerFactory, free_port: int
) -> None:
    """Django's cache backend swallows the error: the call returns, and the site stays up."""
    with pytest.raises(BackendUnavailableError, match="cannot be reached"):
        await set_maintenance_mode(True, f"redis://127.0.0.1:{free_port}/0")
    refusing = own_redis_server(config={"min-replicas-to-write": "1"})
    with pytest.raises(BackendError, match="NOREPLICAS"):
        await set_maintenance_mode(True, refusing.url)


def test_outage_delays_no_request(
    own_redis_server: RedisServerFactory,
) -> None:
    """In more than one system the middleware itself, or a readiness probe that asks Redis, took
    everything down.
    """
    server = own_redis_server()
    with worker(f"{server.url}?ttl=0.4") as client:
        assert client.get("/").status_code == 200
        for fault in (server.pause, server.kill):
            fault()
            took = []
            for _ in range(50):
                began = time.monotonic()
                assert client.get("/").status_code == 200
                assert client.get("/health").status_code == 200
                took.append(time.monotonic() - began)
                time.sleep(0.02)
            # A busy machine delays some; who asks Redis waits each time, for half a ttl and more.
            assert sorted(took)[12] < 0.15


async def test_write_fails_within_timeout(own_redis_server: RedisServerFactory) -> None:
    """With its defaults, redis-py tries for about a minute."""
    server = own_redis_server()
    server.pause()
    began = time.monotonic()
    with pytest.raises(BackendUnavailableError):
        await asyncio.create_task(set_maintenance_mode(True, f"{server.url}?timeout=0.5"))

    assert time.monotonic() - began < SOON
