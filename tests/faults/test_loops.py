"""Event loops that run only while a request is answered, as functions and throttled containers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from starlette.types import Message

from fastapi_maintenance.backends import RedisBackend
from tests.support.asgi import UNUSED, http_scope
from tests.support.servers import RedisServer
from tests.support.shops import closable

TTL: Final = 1.0
STANDING: Final = 2.5 * TTL

Ask = Callable[[], int]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(_end_tasks())
    loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def serving(loop: asyncio.AbstractEventLoop, redis_server: RedisServer) -> Callable[..., Ask]:
    """Make applications without a lifespan, each asked on the loop, which stands still else."""

    def serve(**options: Any) -> Ask:
        app = closable(backend=RedisBackend(redis_server.url, ttl=TTL), **options)

        async def answer() -> int:
            sent: list[Message] = []

            async def send(message: Message) -> None:
                sent.append(message)

            await app(http_scope(path="/", raw_path=b"/"), UNUSED, send)
            status: int = sent[0]["status"]
            return status

        return lambda: loop.run_until_complete(answer())

    return serve


@pytest.mark.parametrize("killed", [False, True])
def test_loop_that_stands_still_gives_one_stale_answer(
    serving: Callable[..., Ask], redis_server: RedisServer, killed: bool
) -> None:
    ask = serving()
    assert ask() == 200
    proved = tries = 0
    while proved < 3:
        tries += 1
        assert tries < 20, "too slow a machine: the worker cannot read within a ttl"
        redis_server.cli("SET", "maintenance", tries % 2)
        if killed:
            redis_server.cli("CLIENT", "KILL", "TYPE", "normal")
        time.sleep(STANDING)
        began = time.monotonic()
        ask()  # by the last known state; then the worker has a ttl to catch up
        if time.monotonic() - began < TTL:
            assert ask() == (503 if tries % 2 else 200)
            proved += 1


def test_closed_worker_on_a_loop_that_stands_still_opens(serving: Callable[..., Ask]) -> None:
    ask = serving(on_unreachable="closed")
    assert ask() == 200
    for _ in range(2):
        time.sleep(STANDING)
        assert ask() == 503, "nothing has confirmed the state for stale_after"
        assert ask() == 200
