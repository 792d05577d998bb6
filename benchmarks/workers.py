"""Many workers in a few processes, each of which notes when it answers otherwise than before; and the floor, which only hears and reads."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final, Self

from fastapi_maintenance import MaintenanceModeMiddleware
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.runtime.gate import Gate
from tests.support.servers import RedisServer

from .measuring import processor_time
from .subjects import living, receive, scope_of

KEY: Final = "maintenance"
_TIMEOUT: Final = 60.0  # seconds

Stamps = list[float]


class Switch:
    """Writes the switch over a connection of its own, as redis-cli does but without its start."""

    def __init__(self, server: RedisServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port))

    def set(self, on: bool) -> float:
        """Write it bare, and say when that was sent."""
        sent = time.monotonic()
        self._socket.sendall(b"SET maintenance %d\r\n" % on)
        self._socket.recv(64)
        return sent

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class WorkerPool:
    """`links` workers in a few processes; `member` is what each process does."""

    def __init__(
        self, member: Callable[..., None], server: RedisServer, links: int, **options: Any
    ) -> None:
        processes = links if links <= 10 else 4
        shares = [links // processes + (number < links % processes) for number in range(processes)]
        self.links = links
        self._server = server
        self._switch = Switch(server)
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        context = multiprocessing.get_context("fork")
        for share in shares:
            ear, mouth = context.Pipe(duplex=True)
            process = context.Process(
                target=member, args=(server, share, mouth), kwargs=options, daemon=True
            )
            process.start()
            mouth.close()
            self._pipes.append(ear)
            self._processes.append(process)

    def __enter__(self) -> Self:
        try:
            self.gather()  # each says so when it is ready
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        self._switch.close()

    def switch(self, on: bool) -> float:
        """Write the switch, and say when."""
        return self._switch.set(on)

    def flip(self, on: bool) -> Stamps:
        """Write the switch, and return after how many seconds each worker answered accordingly."""
        sent = self.switch(on)
        return [heard - sent for heard in self.gather()]

    def gather(self) -> Stamps:
        """One stamp of every worker."""
        stamps: Stamps = []
        deadline = time.monotonic() + _TIMEOUT
        while len(stamps) < self.links:
            ready = wait(self._pipes, timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RuntimeError(
                    f"after {_TIMEOUT:g} s only {len(stamps)} of {self.links} workers have followed"
                )
            for pipe in ready:
                assert isinstance(pipe, Connection)
                stamps += pipe.recv()
        return stamps

    def processor_time(self) -> tuple[float, float]:
        """What Redis and all the workers have had of the processors, in seconds."""
        return processor_time(self._server.pid), sum(
            processor_time(process.pid or 0) for process in self._processes
        )


class Gathering:
    """Sends the stamps of this process in few messages, so that telling takes little of what is measured."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._stamps: Stamps = []

    def note(self, stamp: float) -> None:
        self._stamps.append(stamp)

    def tell(self) -> None:
        if self._stamps:
            self._pipe.send(self._stamps)
            self._stamps = []


def run_workers(server: RedisServer, links: int, pipe: Connection, *, ttl: float = 1.0) -> None:
    """Real middlewares with real links. What is noted is the moment after a request was answered otherwise than before."""
    logging.disable()  # a line of each worker for each flip and each cut would be measured, too
    asyncio.run(_run_workers(server.url, links, pipe, ttl))


async def _run_workers(url: str, links: int, pipe: Connection, ttl: float) -> None:
    gathering = Gathering(pipe)
    async with AsyncExitStack() as stack:
        workers = [_Worker(RedisBackend(url, ttl=ttl), gathering) for _ in range(links)]
        await asyncio.gather(
            *(stack.enter_async_context(living(worker.middleware)) for worker in workers)
        )
        while not all(worker.middleware.mode.gate.source == "redis" for worker in workers):
            await asyncio.sleep(0.05)
        for worker in workers:
            worker.watch()
        pipe.send([time.monotonic()] * links)
        while True:
            await asyncio.sleep(0.002)
            gathering.tell()


class _Worker:
    """One middleware, and an eye on its gate."""

    def __init__(self, backend: RedisBackend, gathering: Gathering) -> None:
        self.middleware = MaintenanceModeMiddleware(_nothing, backend=backend)
        self._gathering = gathering
        self._publish = self.middleware.mode._publish
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self) -> None:
        self._closed = self.middleware.mode.gate.closure is not None
        setattr(self.middleware.mode, "_publish", self._published)  # noqa: B010 (a method, for mypy)

    def _published(self, gate: Gate, before: Gate) -> None:
        self._publish(gate, before)
        closed = gate.closure is not None
        if closed is not self._closed:
            self._closed = closed
            task = asyncio.get_running_loop().create_task(self._ask(503 if closed else 200))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, expected: int) -> None:
        async def answered(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] == expected:
                self._gathering.note(time.monotonic())

        await self.middleware(scope_of("/"), receive, answered)


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """The application: says that it has started, and 200."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
