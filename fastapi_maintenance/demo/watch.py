"""The live view: looks at every worker all the time, and at what is written to the switch."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn

from .board import Board
from .crew import Crew
from .errors import DemoError
from .screen import Screen
from .server import RedisServer
from .witness import Statement

__all__ = ["Watch"]

_EVERY: Final = 0.2  # seconds
_SETTLE: Final = 0.02  # seconds for the write that a change followed to be heard of, too


class Watch:
    """Shows the workers on a screen until it is cancelled, or uvicorn ends: then it raises `DemoError`."""

    def __init__(self, redis: RedisServer, crew: Crew, screen: Screen) -> None:
        self._redis = redis
        self._crew = crew
        self._screen = screen
        self._board = Board()
        self._redis_is_there = True

    async def run(self) -> NoReturn:
        """Look, and look again."""
        writes = asyncio.create_task(self._follow_writes())
        try:
            while True:
                await self._look()
                self._screen.draw(self._board)
                await asyncio.sleep(_EVERY)
        finally:
            writes.cancel()
            await asyncio.wait([writes])

    async def _follow_writes(self) -> None:
        """Whoever ends the demo's Redis wants to see what the workers do without it, so that is no reason to stop."""
        while True:
            try:
                async for write in self._redis.writes():
                    self._board.wrote(write)
            except (OSError, ValueError, DemoError):  # ValueError: a line of MONITOR that is longer than asyncio reads
                pass
            await asyncio.sleep(_EVERY)

    async def _look(self) -> None:
        if not self._crew.complete:
            self._crew.check()
            await self._crew.seek()
        looks = await asyncio.gather(*map(self._look_at, self._crew.pids))
        await asyncio.sleep(_SETTLE)
        await self._look_at_redis()
        for event in [self._board.left(look) if isinstance(look, int) else self._board.saw(*look) for look in looks]:
            if event is not None:
                self._screen.tell(event)

    async def _look_at_redis(self) -> None:
        try:
            self._board.rungs, there = await self._redis.rungs(), True
        except DemoError:
            self._board.rungs, there = {}, False
        if there is not self._redis_is_there:
            self._redis_is_there = there
            self._screen.tell("Redis answers again" if there else "Redis does not answer; the workers keep the state that they know")

    async def _look_at(self, pid: int) -> tuple[int, Statement] | int:
        """What a visitor gets from a worker and what it says of itself; its process id alone if it is gone."""
        try:
            for _ in range(2):  # once more where the switch was flipped between the two
                statement = await self._crew.hear(pid)
                status = (await self._crew.ask(pid, "/")).status
                if statement.enabled is (status == 503):
                    break
        except DemoError:
            return pid
        return status, statement
