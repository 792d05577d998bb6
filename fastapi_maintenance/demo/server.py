"""The Redis of the demo, whichever it is."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, ClassVar, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ..backends.redis.keys import Keys
from ..exceptions import why
from .errors import DemoError
from .ports import HOST
from .writes import Write

__all__ = ["KEYS", "RedisServer"]

KEYS: Final = Keys.of("maintenance")

_DEADLINE: Final = 5.0  # seconds for one command


class RedisServer(ABC):
    """A running server that is the demo's alone; `aclose` only lets go of it."""

    pushes: ClassVar[bool]
    """Whether it tells the workers of every write, and so whether a flip takes milliseconds."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.client = Redis(
            host=HOST,
            port=port,
            protocol=2,
            decode_responses=True,
            single_connection_client=True,
            socket_timeout=_DEADLINE,
            retry=Retry(NoBackoff(), 0),
        )

    @property
    def url(self) -> str:
        """How a backend is told of it."""
        return f"redis://{HOST}:{self.port}/0"

    @abstractmethod
    def describe(self) -> str:
        """What it is, in one sentence."""

    @abstractmethod
    def writes(self) -> AsyncIterator[Write]:
        """What is written to the switch from now on, by whomever; ends when the server does."""

    async def run(self, *words: str) -> Any:
        """Run a command as redis-cli does, all on one connection. Raises `DemoError` if it fails."""
        try:
            return await self.client.execute_command(*words)  # type: ignore[no-untyped-call]
        except RedisError as error:
            raise DemoError(f"Redis, on port {self.port}, failed at {words[0]}: {why(error)}.") from error

    async def rungs(self) -> dict[int, str]:
        """How each registered worker, by process id, hears of changes."""
        rungs: dict[int, str] = {}
        for entry in await self.run("HVALS", KEYS.workers):
            with suppress(ValueError, KeyError):  # an entry of another shape is no worker of this version
                report = json.loads(entry.partition(" ")[2])
                rungs[int(report["pid"])] = str(report["rung"])
        return rungs

    async def aclose(self) -> None:
        """Close the connection."""
        with suppress(RedisError):
            await self.client.aclose()
