"""The worker processes, and a connection to each."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ..exceptions import why
from .client import Answer, Client
from .errors import DemoError
from .ports import HOST, free_port
from .program import Program
from .witness import PATH, Statement

__all__ = ["Crew", "start_crew"]

_APP: Final = "fastapi_maintenance.demo.app:app"
_OPTIONS: Final = ("--no-access-log", "--timeout-keep-alive", "60", "--timeout-graceful-shutdown", "2")  # seconds
_PATIENCE: Final = 60.0  # seconds for all workers to start, which on a busy machine takes a while
_PAUSE: Final = 0.05
_AT_ONCE: Final = 8  # connections to open before the first is used, so that more than one process wakes up to accept them


class Crew:
    """The workers, by process id, as far as a connection to them was found."""

    def __init__(self, size: int, port: int, program: Program) -> None:
        self.size = size
        self.port = port
        self._program = program
        self._clients: dict[int, Client] = {}

    @property
    def url(self) -> str:
        """Where they answer."""
        return f"http://{HOST}:{self.port}/"

    @property
    def pids(self) -> list[int]:
        """Those to whom there is a connection."""
        return sorted(self._clients)

    @property
    def complete(self) -> bool:
        """Whether there is a connection to each."""
        return len(self._clients) == self.size

    async def gather(self, within: float) -> None:
        """Find a connection to each worker. Raises `DemoError` if uvicorn ended, or after that many seconds."""
        deadline = time.monotonic() + within
        seeking = asyncio.create_task(self._seek_all())
        try:
            while not seeking.done():
                if time.monotonic() > deadline:
                    raise DemoError(f"Only {len(self._clients)} of {self.size} workers answered within {within:g} s; try --workers 2.")
                await asyncio.wait([seeking], timeout=_PAUSE)
                self._program.check()
            await seeking
        finally:
            seeking.cancel()
            await asyncio.wait([seeking])

    async def _seek_all(self) -> None:
        while not self.complete:
            await self.seek()
            await asyncio.sleep(_PAUSE)

    async def seek(self) -> None:
        """Open a few connections, and keep those that lead to workers not known yet."""
        opened = await asyncio.gather(*(Client.connect(HOST, self.port) for _ in range(_AT_ONCE)), return_exceptions=True)
        clients = [client for client in opened if isinstance(client, Client)]
        try:
            await asyncio.gather(*map(self._keep_if_new, clients))
        finally:
            for client in set(clients) - set(self._clients.values()):
                client.close()

    async def _keep_if_new(self, client: Client) -> None:
        with suppress(OSError, EOFError, ValueError):  # ValueError: whoever answers there, it is no worker of ours
            statement = Statement.model_validate_json((await client.get(PATH)).body)
            self._clients.setdefault(statement.pid, client)

    async def ask(self, pid: int, path: str) -> Answer:
        """Have one of them answer. Raises `DemoError` if it is gone; it is then no longer known."""
        try:
            return await self._clients[pid].get(path)
        except (OSError, EOFError) as error:
            self._clients.pop(pid).close()
            raise DemoError(f"Worker {pid} is gone ({why(error)}).") from error

    async def hear(self, pid: int) -> Statement:
        """What one of them says of itself. Raises `DemoError` if it is gone."""
        return Statement.model_validate_json((await self.ask(pid, PATH)).body)

    def check(self) -> None:
        """Raise `DemoError` if uvicorn itself has ended."""
        self._program.check()

    def part(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()


@asynccontextmanager
async def start_crew(size: int, *, backend: str, home: Path) -> AsyncIterator[Crew]:
    """Start uvicorn with that many workers, whose switch is at the URL `backend`. Raises `DemoError` if that fails."""
    if find_spec("uvicorn") is None:
        raise DemoError("The demo needs uvicorn: pip install 'fastapi-maintenance-cluster[demo]'.")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", _APP, "--host", HOST, "--port", str(port), "--workers", str(size), *_OPTIONS]
    async with Program("uvicorn", command, log=home / "uvicorn.log", env=_environment(os.environ, backend)) as program:
        crew = Crew(size, port, program)
        try:
            await crew.gather(_PATIENCE)
            yield crew
        finally:
            crew.part()  # else uvicorn would wait for the connections


def _environment(outer: Mapping[str, str], backend: str) -> dict[str, str]:
    """The workers' environment: without a second switch, and without options for some other uvicorn."""
    kept: Iterable[tuple[str, str]] = ((name, value) for name, value in outer.items() if not name.startswith("UVICORN_"))
    return dict(kept) | {"FASTAPI_MAINTENANCE_BACKEND": backend, "FASTAPI_MAINTENANCE_MODE": ""}
