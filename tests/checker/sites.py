"""The Redis of one schedule: a single server, or a master with a replica and three Sentinels."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

from ..faults.stepping import Clock, compile_shim, stepping_server
from ..support.servers import RedisServer
from ..support.topologies import MASTER, SentinelGroup, sentinel_group
from ..support.waiting import eventually
from .schedule import Step

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter, int]
"""A connection to the server that owns the switch, and how many lines of replies to skip."""

_DOWN_AFTER: Final = 1.0
_FAILOVER_TIMEOUT: Final = 10.0
_HEALING_TIMEOUT: Final = 20.0
_TWO_MASTERS: Final = (
    0.8  # seconds for which the isolated master and the new one stand side by side
)
_LOGIN: Final = "worker:change-me-worker@"


class Single:
    """One server, started for one schedule."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._clock: Clock | None = None
        self._home = TemporaryDirectory(prefix="checker-clock-")
        if any(step.action == "step clock" for step in steps) and (shim := _shim()) is not None:
            self.server, self._clock = stepping_server(Path(self._home.name), shim)
        else:
            self.server = RedisServer()
        self.ports: tuple[int, ...] = (self.server.port,)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.server.start)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.to_thread(self.server.close)
        self._home.cleanup()

    def url(self, query: str) -> str:
        """For workers, and for the driver."""
        return f"{self.server.url}?{query}"

    async def connect(self) -> Connection:
        """Connect a bare client."""
        return *await asyncio.open_connection("127.0.0.1", self.server.port), 0

    async def freeze(self, seconds: float) -> None:
        """Let it answer nothing for so long."""
        self.server.pause()
        await asyncio.sleep(seconds)
        self.server.resume()

    async def restart(self, after: float, *, keep: bool) -> None:
        """Let it crash and come back, with what was last saved or empty."""
        await asyncio.to_thread(self.server.kill)
        if not keep:
            (self.server.home / "dump.rdb").unlink(missing_ok=True)
        await asyncio.sleep(after)
        await asyncio.to_thread(self.server.start)

    def step_clock(self, seconds: int) -> None:
        """Set the wall clock of Redis; not where there is no C compiler."""
        if self._clock is not None:
            self._clock.step(seconds)


class Sentinels:
    """A group of servers, started once and healed after each schedule."""

    _context: AbstractContextManager[SentinelGroup] | None = None
    _group: SentinelGroup

    async def __aenter__(self) -> Self:
        if self._context is None:
            context = sentinel_group(down_after=_DOWN_AFTER, users=True)
            self._group = await asyncio.to_thread(context.__enter__)
            self._context = context
        self.ports = tuple(sentinel.port for sentinel in self._group.sentinels)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            async with asyncio.timeout(_HEALING_TIMEOUT):
                await self._heal()
        except (TimeoutError, OSError, AssertionError, RuntimeError):
            await self.close()

    async def close(self) -> None:
        """End it; the next schedule gets another one."""
        context, self._context = self._context, None
        if context is not None:
            await asyncio.to_thread(context.__exit__, None, None, None)

    async def _heal(self) -> None:
        for sentinel in self._group.sentinels:
            sentinel.resume()
        master = await self._master()
        for server in self._group.servers:
            await self._allow(server, True)
            if server is not master:
                await server.acli("REPLICAOF", "127.0.0.1", master.port)
        await asyncio.to_thread(self._group.wait_until_whole)
        await master.acli("FLUSHALL")

    def url(self, query: str) -> str:
        """For workers, and for the driver."""
        return self._group.url_of(_LOGIN, query)

    async def connect(self) -> Connection:
        """Connect a bare client to whom a Sentinel calls master."""
        master = await self._master()
        reader, writer = await asyncio.open_connection("127.0.0.1", master.port)
        writer.write(b"AUTH tester test\r\n")
        return reader, writer, 1

    async def _master(self) -> RedisServer:
        for sentinel in self._group.sentinels:
            with suppress(OSError, TimeoutError, ValueError):
                async with asyncio.timeout(1.0):
                    reader, writer = await asyncio.open_connection("127.0.0.1", sentinel.port)
                    try:
                        writer.write(b"SENTINEL GET-MASTER-ADDR-BY-NAME %s\r\n" % MASTER.encode())
                        lines = [await reader.readline() for _ in range(5)]
                    finally:
                        writer.close()
                port = int(lines[4])
                return next(one for one in self._group.servers if one.port == port)
        raise OSError("no Sentinel answers")

    async def count_failovers(self) -> int:
        """Count the failovers of the group so far, also those that nobody asked for."""
        words = (await self._group.sentinels[-1].acli("SENTINEL", "MASTER", MASTER)).split("\n")
        return int(words[words.index("config-epoch") + 1])

    async def replace_master(self, how: str) -> None:
        """Have another master promoted: as an operator does, or because Sentinels miss this one.

        Then it does not know of it, and goes on serving who is connected.
        """
        old = await self._master()
        if how == "fail over":
            with suppress(RuntimeError):  # no replica will do at the moment
                await self._group.sentinels[0].acli("SENTINEL", "FAILOVER", MASTER)
        else:
            await self._allow(old, False, "sentinel", "replica")
        with suppress(AssertionError, OSError):
            await eventually(lambda: self._is_replaced(old), within=_FAILOVER_TIMEOUT)
        await asyncio.sleep(_TWO_MASTERS)
        await self._allow(old, True)

    async def _is_replaced(self, old: RedisServer) -> bool:
        return await self._master() is not old

    async def cut_replica(self, seconds: float) -> None:
        """Cut the replica off from its master."""
        master = await self._master()
        await self._allow(master, False, "replica")
        await asyncio.sleep(seconds)
        await self._allow(master, True)

    async def _allow(self, server: RedisServer, allowed: bool, *users: str) -> None:
        for user in users or ("sentinel", "replica"):
            await server.acli("ACL", "SETUSER", user, "on" if allowed else "off")
            if not allowed:
                await server.acli("CLIENT", "KILL", "USER", user)

    async def pause_sentinels(self, count: int, seconds: float) -> None:
        """Pause so many of them: two are a majority, without which nothing is confirmed."""
        paused = self._group.sentinels[:count]
        for sentinel in paused:
            sentinel.pause()
        await asyncio.sleep(seconds)
        for sentinel in paused:
            sentinel.resume()


Site = Single | Sentinels


@cache
def _shim() -> Path | None:
    return compile_shim(Path(_shim_home().name)) if shutil.which("cc") else None


@cache
def _shim_home() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="checker-shim-")  # removed at the end of the process
