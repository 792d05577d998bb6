"""Workers follow the switch in Redis.

The docstring of a test names a fault that another package had in 2026.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Final

import pytest
from fastapi.testclient import TestClient

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.model.evaluate import evaluate

from ...support.servers import RedisServer
from ...support.shops import SOON, becomes, closable, worker
from ...support.waiting import eventually
from .links import linked, settled

KEY: Final = "maintenance"
PUSH: Final = b"invalidate\r\n*1\r\n$11\r\nmaintenance\r\n"


class HeldReply:
    """A way to Redis that holds back all that comes after the first push once it is told to."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._pipes: list[asyncio.Task[None]] = []
        self._flows = asyncio.Event()
        self._flows.set()
        self.is_armed = self.is_holding = False

    async def __aenter__(self) -> str:
        self._proxy = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._proxy.sockets[0].getsockname()[1]}/0"

    async def __aexit__(self, *exc_info: object) -> None:
        self._proxy.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def release(self) -> None:
        self._flows.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", self._server.port)
        for source, target, down in ((reader, questions, False), (answers, writer, True)):
            self._pipes.append(asyncio.create_task(self._pipe(source, target, down)))

    async def _pipe(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, down: bool
    ) -> None:
        try:
            while data := await source.read(65536):
                if down and not self._flows.is_set():
                    self.is_holding = True
                    await self._flows.wait()
                elif self.is_armed and PUSH in data:
                    self.is_armed = False
                    self._flows.clear()
                target.write(data)
        finally:
            target.close()


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
    with worker(f"{redis_server.url}?ttl=120") as client:
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
    way = HeldReply(redis_server)
    async with way as url, linked(backend := RedisBackend(f"{url}?ttl=120")) as worker:
        before = await settled(backend, worker)  # else another reply may be the one that is held
        way.is_armed = True
        await redis_server.acli("SET", KEY, first)
        # The reply to the read that the push caused is on its way back.
        await eventually(lambda: way.is_holding, within=SOON)
        await redis_server.acli("SET", KEY, second)
        way.release()

        def is_followed() -> bool:
            known = [evaluate(each, each.now).state.enabled for each in worker.readings[before:]]
            return known[:1] == [first == "1"] and known[-1] == (second == "1")

        await eventually(is_followed, within=SOON)


def test_request_costs_no_command(redis_server: RedisServer) -> None:
    """In waygate 0.2.0 every request costs two."""
    with worker(f"{redis_server.url}?ttl=120") as client:
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
        becomes(shop2, 503)
        assert shop1.get("/").status_code == 200


def test_all_keys_begin_with_the_switch(redis_server: RedisServer) -> None:
    with worker(f"{redis_server.url}?key=shop") as client:
        redis_server.cli("SET", "shop", "1")
        becomes(client, 503)
        assert {key.partition(":")[0] for key in redis_server.cli("KEYS", "*").splitlines()} == {
            "shop",
            "{shop}",
        }
