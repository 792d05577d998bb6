"""The client: a process that keeps thousands of requests a second on their way, and says what came
back.

Orders come as JSON lines on its standard input, `{"add": 3, "socket": "…"}` and `{"drop": 3}`. Each
batch of equal answers goes to its standard output as one packed record.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from .truth import CLOSED, GONE, ODD, OPEN, Batch

_RECORD: Final = struct.Struct("<iddii")
_REQUEST: Final = b"GET / HTTP/1.1\r\nhost: soak\r\n\r\n"
_TICK: Final = 0.01  # seconds between two batches on a connection
_AHEAD: Final = 20  # batches on their way at most; a paused worker is not asked without end
_HEAD: Final = re.compile(rb"HTTP/1\.1 (\d{3}) .*?content-length: (\d+)\r\n.*?\r\n\r\n", re.DOTALL)


class Load:
    """The process, and the batches that it has told of and nobody has taken yet."""

    _process: asyncio.subprocess.Process
    _hearing: asyncio.Task[None]

    def __init__(self, rate: int, workers: int) -> None:
        self._batch = max(1, round(rate * _TICK / workers))
        self._batches: list[Batch] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.soak.load", str(self._batch)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        self._hearing = asyncio.create_task(self._hear())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await asyncio.wait([self._hearing])

    def add(self, worker: int, path: Path) -> None:
        """Ask this worker from now on."""
        self._order({"add": worker, "socket": str(path)})

    def drop(self, worker: int) -> None:
        """Ask it no more."""
        self._order({"drop": worker})

    def take(self) -> list[Batch]:
        """What came since the last time."""
        batches, self._batches = self._batches, []
        return batches

    def put_back(self, batches: list[Batch]) -> None:
        """Leave batches for the next time."""
        self._batches = batches + self._batches

    def _order(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def _hear(self) -> None:
        assert self._process.stdout is not None
        with suppress(asyncio.IncompleteReadError):
            while True:
                self._batches.append(
                    Batch(*_RECORD.unpack(await self._process.stdout.readexactly(_RECORD.size)))
                )


# -- in the process --------------------------------------------------------------------------------


class _Client(asyncio.Protocol):
    """One connection to one worker."""

    def __init__(self, worker: int, batch: int) -> None:
        self._worker = worker
        self._batch = batch
        # When, and how many of it are still to be answered.
        self._sent: deque[tuple[float, int]] = deque()
        self._buffer = b""
        self._transport: asyncio.Transport
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def close(self) -> None:
        self._transport.abort()

    def ask(self) -> None:
        """Send a batch, unless too much is on its way."""
        if len(self._sent) < _AHEAD and not self._transport.is_closing():
            self._sent.append((time.monotonic(), self._batch))
            self._transport.write(_REQUEST * self._batch)

    def data_received(self, data: bytes) -> None:
        received = time.monotonic()
        buffer, position = self._buffer + data, 0
        told: tuple[float, int] | None = None
        count = 0
        while (head := _HEAD.match(buffer, position)) is not None:
            end = head.end() + int(head[2])
            if end > len(buffer):
                break
            this = self._take_sent(), _kind(head, buffer[head.end() : end])
            if this != told and told is not None:
                _tell(self._worker, told[0], received, told[1], count)
                count = 0
            told, count, position = this, count + 1, end
        if told is not None:
            _tell(self._worker, told[0], received, told[1], count)
        self._buffer = buffer[position:]

    def _take_sent(self) -> float:
        sent, left = self._sent[0]
        if left == 1:
            self._sent.popleft()
        else:
            self._sent[0] = (sent, left - 1)
        return sent


def _kind(head: re.Match[bytes], body: bytes) -> int:
    """An answer that is as it must be, or not."""
    if head[1] == b"200" and body.isdigit():
        return OPEN
    ours = (
        body.startswith(b'{"detail":"')
        and b"\r\ncache-control: no-store\r\n" in head[0]
        and b"\r\nretry-after: " in head[0]
    )
    return CLOSED if head[1] == b"503" and ours else ODD


def _tell(worker: int, sent: float, received: float, status: int, count: int) -> None:
    sys.stdout.buffer.write(_RECORD.pack(worker, sent, received, status, count))


async def _keep_asking(worker: int, path: str, batch: int) -> None:
    loop = asyncio.get_running_loop()
    while True:
        with suppress(OSError):
            _, client = await loop.create_unix_connection(lambda: _Client(worker, batch), path)
            try:
                at = loop.time()
                while not client.over.done():
                    client.ask()
                    at = max(at + _TICK, loop.time() - 10 * _TICK)
                    await asyncio.sleep(at - loop.time())
                _tell(worker, time.monotonic(), time.monotonic(), GONE, 1)
            finally:
                client.close()
        await asyncio.sleep(_TICK)


async def _obey(batch: int) -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    tasks: dict[int, asyncio.Task[None]] = {}
    flushing = asyncio.create_task(_flush())
    while line := await orders.readline():
        order = json.loads(line)
        if "add" in order:
            tasks[order["add"]] = asyncio.create_task(
                _keep_asking(order["add"], order["socket"], batch)
            )
        elif order["drop"] in tasks:
            tasks.pop(order["drop"]).cancel()
    flushing.cancel()


async def _flush() -> None:
    while True:
        await asyncio.sleep(_TICK)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(_obey(int(sys.argv[1])))
