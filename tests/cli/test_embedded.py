"""The imitation of Redis behaves as far as the library needs it."""

from __future__ import annotations

import runpy
import sys
from typing import Any

import fakeredis
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from fastapi_maintenance.backends import backend_from_url
from fastapi_maintenance.cli import embedded
from fastapi_maintenance.coordination.barrier import registered_workers
from fastapi_maintenance.model.state import OFF, ON
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..support.waiting import eventually
from .imitation import imitation

pytestmark = pytest.mark.may_block  # it may block as it starts


async def test_workers_follow_by_messages_and_polls() -> None:
    async with imitation() as url, Redis.from_url(url, protocol=2) as client:
        backend = backend_from_url(url)

        async def hears_by_messages() -> bool:
            return [worker.delivery for worker in await registered_workers(backend)] == ["message"]

        async with MaintenanceMode(backend_from_url(url)) as mode:
            await eventually(hears_by_messages, within=30)
            await client.set("maintenance", "1")
            await eventually(lambda: mode.gate.closure is not None, within=30)
            await backend.write(OFF)
            await eventually(lambda: mode.gate.closure is None, within=30)
            await backend.write(ON)
            await eventually(lambda: mode.gate.closure is not None, within=30)


async def test_an_error_does_not_end_the_connection() -> None:
    async with imitation() as url:
        client: Any = Redis.from_url(url, protocol=2, single_connection_client=True)
        async with client:
            identity = await client.client_id()
            with pytest.raises(ResponseError, match="unknown command"):
                await client.execute_command("NONSENSE")
            with pytest.raises(ResponseError, match="bad luck"):
                await client.eval("error('bad\\nluck')", 0)
            assert await client.client_id() == identity


async def test_resp3_is_refused() -> None:
    async with imitation() as url, Redis.from_url(url, protocol=3) as client:
        with pytest.raises(Exception, match="HELLO"):
            await client.ping()


def test_as_a_program_it_serves_the_port(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    served = []

    def serve(server: fakeredis.TcpFakeServer) -> None:
        served.append(server.server_address[1])
        server.server_close()

    monkeypatch.setattr(fakeredis.TcpFakeServer, "serve_forever", serve)
    monkeypatch.setattr(sys, "argv", ["embedded", str(free_port)])
    runpy.run_path(embedded.__file__, run_name="__main__")
    assert served == [free_port]
