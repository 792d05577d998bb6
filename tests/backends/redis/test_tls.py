"""Connections by TLS: who trusts whom, and what they share."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from threading import Event
from typing import Any
from unittest.mock import Mock

import pytest
import trustme
from redis.asyncio.connection import SSLConnection

from fastapi_maintenance import maintenance_mode_on
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.server import TLSContextCache
from fastapi_maintenance.exceptions import BackendUnavailableError
from fastapi_maintenance.model.state import OFF
from fastapi_maintenance.runtime.mode import MaintenanceMode
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

SLACK = 30.0  # seconds, for a busy machine


@pytest.fixture(scope="module")
def strict() -> Iterator[RedisServer]:
    """A server that lets nobody in without a certificate."""
    with RedisServer(tls=True, client_certificates=True) as server:
        yield server


async def test_with_a_certificate_of_its_own_a_worker_is_let_in(strict: RedisServer) -> None:
    async with MaintenanceMode(RedisBackend(strict.url)) as mode:
        await strict.acli("SET", "maintenance", 1)
        await eventually(lambda: mode.gate.closure is not None, within=SLACK)
        async with maintenance_mode_on(RedisBackend(strict.url, timeout=10.0)):
            await strict.acli("DEL", "maintenance")
            await eventually(
                lambda: mode.cache.known is not None and mode.cache.known.switch == OFF,
                within=SLACK,
            )
            assert mode.gate.closure is not None
        await eventually(lambda: mode.gate.closure is None, within=SLACK)


async def test_without_one_it_is_told_so(strict: RedisServer) -> None:
    backend = RedisBackend(
        f"rediss://127.0.0.1:{strict.port}?ssl_ca_certs={strict.ca_file}", timeout=10.0
    )
    with pytest.raises(
        BackendUnavailableError, match=r"(?i)certificate.required|reset by peer|closed by server"
    ):
        await backend.read()


async def test_a_server_that_nobody_vouches_for_is_not_talked_to(
    strict: RedisServer, tmp_path: Any
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    backend = RedisBackend(
        f"rediss://127.0.0.1:{strict.port}?ssl_ca_certs={tmp_path}/other.pem", timeout=10.0
    )
    with pytest.raises(BackendUnavailableError, match=r"(?i)certificate.verify"):
        await backend.read()


async def test_a_certificate_that_is_not_there_is_said_so(strict: RedisServer) -> None:
    backend = RedisBackend(
        f"rediss://127.0.0.1:{strict.port}?ssl_ca_certs=/nowhere/ca.pem", timeout=10.0
    )
    with pytest.raises(BackendUnavailableError, match="No such file"):
        await backend.read()


@pytest.mark.parametrize(("name", "trusted"), [("localhost", True), ("redis.test", False)])
async def test_certificate_must_have_the_name_that_was_resolved(
    strict: RedisServer, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool
) -> None:
    at = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", strict.port))] * 2
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: at)
    backend = RedisBackend(strict.url.replace("127.0.0.1", name), timeout=10.0)
    if trusted:
        assert (await backend.read()).switch is not None
    else:
        with pytest.raises(BackendUnavailableError, match=r"certificate is not valid for"):
            await backend.read()


async def test_connections_share_a_tls_context_until_renewal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[ssl.SSLContext] = []
    create, now = ssl.create_default_context, 1000.0

    def count() -> ssl.SSLContext:
        made.append(create())
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", count)
    monkeypatch.setattr("fastapi_maintenance.backends.redis.server.time.monotonic", lambda: now)
    shared = TLSContextCache()

    async def lent() -> ssl.SSLContext:
        connection = SSLConnection()
        await shared.apply(connection)
        context: ssl.SSLContext = connection.ssl_context.get()
        return context

    assert await lent() is await lent() is await lent()
    assert len(made) == 1
    now += 61.0
    assert await lent() is not made[0]
    assert len(made) == 2


async def test_tls_context_outlives_the_attempt_that_began_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or a worker would never connect where making one takes longer than an attempt may."""
    begun, go_on, made = Event(), Event(), 0
    create = ssl.create_default_context

    def make_late() -> ssl.SSLContext:
        nonlocal made
        made += 1
        begun.set()
        assert go_on.wait(30)
        return create()

    monkeypatch.setattr(ssl, "create_default_context", make_late)
    shared = TLSContextCache()
    attempt = asyncio.create_task(shared.apply(SSLConnection()))
    await eventually(begun.is_set, within=30)
    attempt.cancel()
    await asyncio.wait([attempt])
    again = asyncio.create_task(shared.apply(connection := SSLConnection()))
    await asyncio.sleep(0)
    go_on.set()
    await again
    assert made == 1
    assert connection.ssl_context.context is not None


async def test_tls_context_that_failed_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    create = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", Mock(side_effect=[OSError("no"), create()]))
    shared = TLSContextCache()
    with pytest.raises(OSError, match="no"):
        await shared.apply(SSLConnection())
    await shared.apply(SSLConnection())
