from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from fastapi_maintenance.demo.board import Board, Row
from fastapi_maintenance.demo.client import Answer
from fastapi_maintenance.demo.crew import Crew
from fastapi_maintenance.demo.errors import DemoError
from fastapi_maintenance.demo.real import RealRedis
from fastapi_maintenance.demo.watch import Watch
from fastapi_maintenance.demo.witness import Statement

from ..conftest import RedisServerFactory
from ..waiting import eventually
from .standing import Standing
from .test_real import is_monitored

pytestmark = pytest.mark.may_block


class Notebook:
    """A screen that keeps what it is shown."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.rows: list[Row] = []

    def tell(self, event: str) -> None:
        self.events.append(event)

    def draw(self, board: Board) -> None:
        self.rows = board.rows()

    def told(self, *words: str) -> bool:
        """Whether an event has all these words."""
        return any(all(word in event for word in words) for event in self.events)


@asynccontextmanager
async def watching(redis: RealRedis, crew: Crew) -> AsyncIterator[Notebook]:
    """What is shown while the block runs."""
    notebook = Notebook()
    task = asyncio.create_task(Watch(redis, crew, notebook).run())
    await eventually(lambda: notebook.rows or task.done(), within=20)
    yield notebook
    task.cancel()
    await asyncio.wait([task])


async def test_flips_are_told_with_who_made_them_and_how_long_they_took(redis: RealRedis, crew: Crew) -> None:
    async with watching(redis, crew) as notebook:
        pid = os.getpid()
        assert notebook.told(f"worker {pid} is open (200)")
        await eventually(lambda: is_monitored(redis), within=10)
        await redis.run("SET", "maintenance", "1")
        await eventually(lambda: notebook.told(f"worker {pid} is closed (503), ", " ms after SET maintenance 1"), within=10)
        await redis.run("DEL", "maintenance")
        await eventually(lambda: notebook.told(f"worker {pid} is open (200), ", " ms after DEL maintenance"), within=10)
        await eventually(lambda: [(row.state, row.rung) for row in notebook.rows] == [("open", "tracking")], within=10)


async def test_a_value_that_nobody_can_read_is_told_with_what_stands_instead(redis: RealRedis, crew: Crew) -> None:
    async with watching(redis, crew) as notebook:
        await redis.run("SET", "maintenance", "1")
        await eventually(lambda: notebook.told("is closed (503)"), within=10)
        await redis.run("SET", "maintenance", "garbage")
        await eventually(lambda: notebook.told("stays closed (503)", "'garbage' is not a boolean word"), within=10)
        await redis.run("SET", "maintenance", "1")
        await eventually(lambda: notebook.told("can read the switch again, and is closed (503)"), within=10)


async def test_a_worker_that_is_gone_is_told_and_found_again(redis: RealRedis, crew: Crew) -> None:
    async with watching(redis, crew) as notebook:
        crew._clients[os.getpid()].close()
        await eventually(lambda: notebook.told("is gone"), within=10)
        await eventually(lambda: len(notebook.rows) == 1, within=10)


async def test_without_redis_the_workers_are_still_watched(crew: Crew, own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server()
    redis = RealRedis(server.port)
    async with watching(redis, crew) as notebook:
        await eventually(lambda: is_monitored(redis), within=10)
        server.kill()
        await eventually(lambda: notebook.told("Redis does not answer"), within=10)
        await eventually(lambda: notebook.rows[0].rung == "?", within=10)
        server.start()
        await eventually(lambda: notebook.told("Redis answers again"), within=10)
        await eventually(lambda: is_monitored(redis), within=10)
        assert len(notebook.events) == 3, "one line a change"
    await redis.aclose()


async def test_it_ends_when_the_workers_server_does(redis: RealRedis, worker_port: int) -> None:
    program = Standing()
    crew = Crew(1, worker_port, program)
    program.ended = True
    with pytest.raises(DemoError, match="stand-in ended"):
        await Watch(redis, crew, Notebook()).run()


class Wavering(Crew):
    """Flips between saying and answering, as often as it is told to."""

    def __init__(self, statuses: Iterator[int]) -> None:
        super().__init__(1, 1, Standing())
        self._statuses = statuses

    @property
    def pids(self) -> list[int]:
        return [11]

    @property
    def complete(self) -> bool:
        return True

    async def hear(self, pid: int) -> Statement:
        return Statement(pid=pid, enabled=True, source="redis", changes=1, changed_at=1.0)

    async def ask(self, pid: int, path: str) -> Answer:
        return Answer(next(self._statuses, 503), {}, b"")


@pytest.mark.parametrize(("statuses", "shown"), [([503], 503), ([200, 503], 503), ([200, 200], 200)])
async def test_a_flip_between_two_questions_is_looked_at_again_once(statuses: list[int], shown: int, redis: RealRedis) -> None:
    async with watching(redis, Wavering(iter(statuses))) as notebook:
        assert notebook.events[0] == f"worker 11 is {'closed' if shown == 503 else 'open'} ({shown})"
