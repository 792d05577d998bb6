"""The workers of one schedule, and the client outside that asks each of them all the time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final, Literal

from fastapi_maintenance.coordination.barrier import registered_workers

from ..faults.proxy import Proxy

Cut = Literal["silent", "mute", "deaf", "refused"]
"""How a worker is cut off: both ways, only what it says, only what it is told, or with resets."""


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
    in_component: bool


@dataclass(frozen=True, slots=True)
class Run:
    """One slow request as the application saw it: of which kind, and from when until when."""

    pid: int
    kind: str
    begun: float
    ended: float


@dataclass(eq=False)
class Worker:
    """One worker process."""

    pid: int
    socket: Path
    started: float
    fence: float = 0.0
    proxies: tuple[Proxy, ...] = ()
    answers: list[Answer] = field(default_factory=list)
    disturbed: list[float] = field(
        default_factory=list
    )  # when it was paused, killed or told to leave
    clients: set[asyncio.Task[None]] = field(default_factory=set)

    def signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        if number != signal.SIGCONT:
            self.disturbed.append(time.monotonic())
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def cut_off(self, how: Cut) -> None:
        """Cut it off from Redis, until `reconnect`; without proxies, this does nothing."""
        self.disturbed.append(time.monotonic())
        if how == "refused":
            self.refuse()
            return
        for proxy in self.proxies:
            proxy.stall(up=how != "deaf", down=how != "mute")

    def refuse(self) -> None:
        """Reset its connections; it may know the state all the same once it is reconnected."""
        for proxy in self.proxies:
            proxy.refuse()

    def reconnect(self) -> None:
        """End that."""
        for proxy in self.proxies:
            proxy.flow()


class Nursery:
    """The process that workers are forked from; it imports everything once."""

    _process: asyncio.subprocess.Process

    async def __aenter__(self) -> Nursery:
        self._ordering = asyncio.Lock()
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
        async with self._ordering:
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
        variant: str = "",
        ports: Sequence[int] = (),
    ) -> None:
        self._nursery = nursery
        self._order = {"policy": policy, "variant": variant, "log": str(home / "requests.log")}
        self._url = url
        self._fence = stale_after
        self._ports = ports
        self._home = home
        self._starting = asyncio.Lock()
        self.workers: list[Worker] = []

    @property
    def runs(self) -> list[Run]:
        """The slow requests that have ended, in whichever way but by the end of their process."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self._home / "requests.log").read_text().splitlines()
            words = (line.split() for line in lines)
            return [Run(int(pid), kind, float(at), float(end)) for pid, kind, at, end in words]
        return []

    async def __aenter__(self) -> Crew:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.dismiss()

    async def start(self, *, login: str = "", fence: float | None = None) -> Worker:
        """Start a worker, and ask it from its first moment on."""
        async with self._starting:
            socket, started = self._home / f"{time.monotonic_ns()}.sock", time.monotonic()
            fence = self._fence if fence is None else fence
            proxies = tuple(Proxy(port).__enter__() for port in self._ports)
            url = self._url.replace("://", f"://{login}", 1)
            for port, proxy in zip(self._ports, proxies, strict=True):
                url = url.replace(f":{port}", f":{proxy.port}", 1)
            order = {"url": url, "stale_after": fence, "socket": str(socket), **self._order}
            worker = Worker(await self._nursery.fork(order), socket, started, fence, proxies)
        worker.clients |= {asyncio.create_task(_ask(worker)), asyncio.create_task(_knock(worker))}
        self.workers.append(worker)
        return worker

    async def dismiss(self) -> None:
        """End all workers and their clients."""
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
            for proxy in worker.proxies:
                proxy.__exit__(None, None, None)
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


async def ask_slowly(
    worker: Worker, seconds: float, until: Path | None = None, *, path: str = "/slow"
) -> None:
    """One request that takes its time, or ends as soon as there is a file."""
    end = f"&until={until}" if until else ""
    await _ask_once(worker, f"{path}?seconds={seconds}{end}".encode())


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
            answer = await _exchange(reader, writer, path)
        finally:
            writer.close()
        if not path.startswith(b"/stray"):  # without a route, it is not gated
            worker.answers.append(answer)


async def _ask(worker: Worker) -> None:
    while True:
        with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_unix_connection(str(worker.socket))
            try:
                for path in cycle((b"/", b"/billing")):
                    worker.answers.append(await _exchange(reader, writer, path))
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
    in_component = path.startswith(b"/billing")
    return Answer(sent, time.monotonic(), int(head.split(b" ", 2)[1]), in_component)
