"""Workers follow the switch in Redis.

The docstring of a test names a fault that another package had in 2026.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Final

import pytest
from fastapi.testclient import TestClient

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
)

from ...support.servers import RedisServer
from ...support.shops import SOON, becomes, closable, shop, worker
from ...support.waiting import eventually

KEY: Final = "maintenance"
PUSH: Final = b"invalidate\r\n*1\r\n$11\r\nmaintenance\r\n"


class SlowWayBack:
    """A connection to Redis on which every reply and every push takes a while."""

    def __init__(self, server: RedisServer, delay: float) -> None:
        self._server = server
        self._delay = delay
        # Whether the worker was told of a change of the switch, and has asked since.
        self.pushed = self.read = False
        self._pipes: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> str:
        self._proxy = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._proxy.sockets[0].getsockname()[1]}/0"

    async def __aexit__(self, *exc_info: object) -> None:
        self._proxy.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", self._server.port)
        for source, target, delay in ((reader, questions, 0.0), (answers, writer, self._delay)):
            self._pipes.append(asyncio.create_task(self._pipe(source, target, delay)))

    async def _pipe(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: float
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await source.read(65536):
                self.read = self.read or (self.pushed and not delay)
                loop.call_later(delay, self._deliver, target, data)
        finally:
            target.close()

    def _deliver(self, target: asyncio.StreamWriter, data: bytes) -> None:
        target.write(data)
        self.pushed = self.pushed or PUSH in data


def is_closed(app: MaintenanceModeMiddleware) -> bool:
    return app.mode.gate.closure is not None


def commands(server: RedisServer) -> int:
    (line,) = (
        line
        for line in server.cli("INFO", "stats").splitlines()
        if line.startswith("total_commands_processed:")
    )
    return int(line.partition(":")[2])


@pytest.mark.parametrize("lifespan", [True, False])
def test_worker_follows_without_a_call_to_start(redis_server: RedisServer, lifespan: bool) -> None:
    """With waygate 0.2.0's quick start a second worker never listens, and serves on for ever
    after the first has closed.
    """
    client = TestClient(closable(backend=f"{redis_server.url}?ttl=0.3"))
    with client if lifespan else nullcontext():
        assert client.get("/").status_code == 200
        redis_server.cli("SET", KEY, "1")
        becomes(client, 503)
        redis_server.cli("DEL", KEY)
        becomes(client, 200)


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
def test_killed_connection_is_opened_again(redis_server: RedisServer, kind: str) -> None:
    """waygate 0.2.0's listener ends with its connection and is never started again: the worker
    is stale for ever.
    """
    with worker(f"{redis_server.url}?ttl=20") as client:
        redis_server.cli("CLIENT", "KILL", "TYPE", kind)
        for value, status in (("1", 503), ("0", 200)):
            redis_server.cli("SET", KEY, value)
            becomes(client, status)


@pytest.mark.parametrize(("first", "second"), ["10", "01"])
async def test_change_during_read_is_not_missed(
    redis_server: RedisServer, first: str, second: str
) -> None:
    """In waygate 0.2.0 an invalidation that comes between the reply and the cache leaves the
    old value there for ever.
    """
    await redis_server.acli("SET", KEY, second)
    way_back = SlowWayBack(redis_server, 0.7)
    async with way_back as url:
        app = MaintenanceModeMiddleware(shop(), backend=f"{url}?ttl=20")
        async with app.mode:
            await redis_server.acli("SET", KEY, first)
            await eventually(lambda: way_back.read, within=SOON)
            # The reply to the read that the push caused is on its way back.
            await asyncio.sleep(0.1)
            await redis_server.acli("SET", KEY, second)
            await eventually(lambda: is_closed(app) is (first == "1"), within=SOON)
            await eventually(lambda: is_closed(app) is (second == "1"), within=SOON)
            await asyncio.sleep(1.5)
            assert is_closed(app) is (second == "1")


def test_request_costs_no_command(redis_server: RedisServer) -> None:
    """In waygate 0.2.0 every request costs two."""
    with worker(f"{redis_server.url}?ttl=20") as client:
        before = commands(redis_server)
        for _ in range(100):
            client.get("/")
        assert commands(redis_server) - before < 50  # a sync of the worker is about a dozen


@pytest.mark.parametrize("lifespan", [True, False])
def test_worker_knows_before_first_response(redis_server: RedisServer, lifespan: bool) -> None:
    """A proxy's reload at GitLab forgot the maintenance, because only the process knew of it."""
    redis_server.cli("SET", KEY, "1")
    client = TestClient(closable(backend=redis_server.url))
    with client if lifespan else nullcontext():
        assert client.get("/").status_code == 503


def test_key_that_begins_like_another_is_separate(redis_server: RedisServer) -> None:
    """TrackMe compares tenants' ids by substring."""
    redis_server.cli("SET", "shop2", "1")
    with (
        worker(f"{redis_server.url}?key=shop") as shop1,
        worker(f"{redis_server.url}?key=shop2") as shop2,
    ):
        assert (shop1.get("/").status_code, shop2.get("/").status_code) == (200, 503)


def test_all_keys_begin_with_the_switch(redis_server: RedisServer) -> None:
    with worker(f"{redis_server.url}?key=shop") as client:
        redis_server.cli("SET", "shop", "1")
        becomes(client, 503)
        assert {key.partition(":")[0] for key in redis_server.cli("KEYS", "*").splitlines()} == {
            "shop",
            "{shop}",
        }
