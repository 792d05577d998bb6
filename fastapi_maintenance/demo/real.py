"""A real redis-server: on a port of its own, in a directory of its own, nothing persisted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, Final

from .errors import DemoError
from .ports import HOST, free_port, is_listening
from .program import Program
from .server import KEYS, RedisServer
from .writes import Write, parse_monitor

__all__ = ["RealRedis", "start_real_redis"]

_PATIENCE: Final = 10.0  # seconds for it to start
_STEP: Final = 0.01


class RealRedis(RedisServer):
    """What a deployment has."""

    pushes: ClassVar[bool] = True
    version = ""

    def describe(self) -> str:
        return f"redis-server {self.version} on port {self.port}: every write, whoever makes it, is pushed to the workers."

    async def writes(self) -> AsyncIterator[Write]:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(b"MONITOR\r\n")
            while line := await reader.readline():
                write = parse_monitor(line.decode(errors="replace"), {KEYS.switch, KEYS.holds}, time.time() - time.monotonic())
                if write is not None:
                    yield write
        finally:
            writer.close()

    async def meet(self, pid: int) -> None:
        """Make sure that it is the process that was started, and learn its version. Raises `DemoError` if it is another."""
        facts = await self.run("INFO", "server")
        if facts["process_id"] != pid:
            raise DemoError(f"Another Redis answers on port {self.port}; run the demo again, and it tries another port.")
        self.version = str(facts["redis_version"])


@asynccontextmanager
async def start_real_redis(program_path: str, home: Path) -> AsyncIterator[RealRedis]:
    """Start it. Raises `DemoError` if it does not answer."""
    redis = RealRedis(free_port())
    async with Program("redis-server", _command(program_path, redis.port, home), log=home / "redis.log") as program:
        try:
            await _answering(redis, program)
            yield redis
        finally:
            await redis.aclose()


def _command(program_path: str, port: int, home: Path) -> list[str]:
    options = {"bind": HOST, "port": str(port), "dir": str(home), "save": "", "appendonly": "no", "daemonize": "no"}
    return [program_path, *(word for name, value in options.items() for word in (f"--{name}", value))]


async def _answering(redis: RealRedis, program: Program) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not is_listening(redis.port):
        await asyncio.sleep(_STEP)
        program.check()
        if time.monotonic() > deadline:
            raise DemoError(f"redis-server does not answer on port {redis.port} after {_PATIENCE:g} s.")
    await redis.meet(program.pid)
