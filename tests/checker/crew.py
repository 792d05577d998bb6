"""The workers of one schedule, and the client outside that asks each of them all the time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fastapi_maintenance.coordination.barrier import registered_workers

_EVERY: Final = 0.015  # seconds between two requests on the connection to a worker
# Seconds between two new connections to a worker, which wait in its backlog while it is paused.
_KNOCK: Final = 0.15
_REQUEST: Final = b"GET %s HTTP/1.1\r\nhost: checker\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """One response to a gated request, with local monotonic times."""

    sent: float
    received: float
    status: int


@dataclass(eq=False)
class Worker:
    """One worker process."""

    pid: int
    socket: Path
    started: float
    answers: list[Answer] = field(default_factory=list)
    # When it was paused, killed or told to leave.
    disturbed: list[float] = field(default_factory=list)
    clients: set[asyncio.Task[None]] = field(default_factory=set)

    def signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        if number != signal.SIGCONT:
            self.disturbed.append(time.monotonic())
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Nursery:
    """The process that workers are forked from; it imports everything once."""

    _process: asyncio.subprocess.Process

    async def __aenter__(self) -> Nursery:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.checker.nursery"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._process.kill()
        await self._process.wait()

    async def fork(self, order: dict[str, Any]) -> int:
        """Start a worker, and return its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return int(await self._process.stdout.readline())


class Crew:
    """Starts workers through a nursery, keeps a client on each, and ends them all."""

    def __init__(
        self,
        nursery: Nursery,
        url: str,
        home: Path,
        *,
        stale_after: float,
        policy: str = "closed",
        broken: bool = False,
    ) -> None:
        self._nursery = nursery
        self._order = {"url": url, "policy": policy, "stale_after": stale_after, "broken": broken}
        self._home = home
        self._starting = asyncio.Lock()
        self.workers: list[Worker] = []

    async def __aenter__(self) -> Crew:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.dismiss()

    async def start(self) -> Worker:
        """Start a worker, and ask it from its first moment on."""
        async with self._starting:
            socket, started = self._home / f"{time.monotonic_ns()}.sock", time.monotonic()
            worker = Worker(
                await self._nursery.fork({**self._order, "socket": str(socket)}), socket, started
            )
        worker.clients |= {asyncio.create_task(_ask(worker)), asyncio.create_task(_knock(worker))}
        self.workers.append(worker)
        return worker

    async def dismiss(self) -> None:
        """End all workers and their clients."""
        for worker in self.workers:
            worker.signal(signal.SIGKILL)
            for client in worker.clients:
                client.cancel()
        await asyncio.gather(
            *(client for worker in self.workers for client in worker.clients),
            return_exceptions=True,
        )


async def ready(worker: Worker, *, within: float = 30.0) -> None:
    """Wait until it answers."""
    deadline = time.monotonic() + within
    while not worker.answers:
        if time.monotonic() > deadline:
            raise RuntimeError(f"worker {worker.pid} does not answer")
        await asyncio.sleep(0.005)


async def ask_slowly(worker: Worker, seconds: float, until: Path | None = None) -> None:
    """One request that takes its time, or ends as soon as there is a file."""
    end = f"&until={until}" if until else ""
    await _ask_once(worker, f"/slow?seconds={seconds}{end}".encode())


async def is_at_work(worker: Worker, url: str) -> bool:
    """Whether the registry has heard of a request in flight there."""
    return any(known.pid == worker.pid and known.http for known in await registered_workers(url))


async def _knock(worker: Worker) -> None:
    while True:
        await asyncio.sleep(_KNOCK)
        client = asyncio.create_task(_ask_once(worker, b"/"))
        worker.clients.add(client)
        client.add_done_callback(worker.clients.discard)


async def _ask_once(worker: Worker, path: bytes) -> None:
    with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_unix_connection(str(worker.socket))
        try:
            worker.answers.append(await _exchange(reader, writer, path))
        finally:
            writer.close()


async def _ask(worker: Worker) -> None:
    while True:
        with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_unix_connection(str(worker.socket))
            try:
                while True:
                    worker.answers.append(await _exchange(reader, writer, b"/"))
                    await asyncio.sleep(_EVERY)
            finally:
                writer.close()
        await asyncio.sleep(0.005)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: bytes
) -> Answer:
    sent = time.monotonic()
    writer.write(_REQUEST % path)
    head = await reader.readuntil(b"\r\n\r\n")
    fields: dict[bytes, Any] = dict(
        line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2]
    )
    if b"content-length" not in fields:  # of uvicorn, which ends a request at a shutdown by a 500
        raise EOFError(head)
    await reader.readexactly(int(fields[b"content-length"]))
    return Answer(sent, time.monotonic(), int(head.split(b" ", 2)[1]))
