"""What a real link sends, recorded once and replayed over raw sockets beside bare `GET`s."""

from __future__ import annotations

import asyncio
import heapq
import random
import re
import secrets
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple, Self

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.connection import Batch, RedisConnection
from fastapi_maintenance.runtime.mode import MaintenanceMode
from tests.support.servers import RedisServer

from .workers import KEY, Gathering, Switch

BARE: Final = Batch.of(("GET", KEY)).packed
_GREETING: Final = Batch.of(("HELLO", "3"), ("CLIENT", "TRACKING", "ON", "OPTIN")).packed
_BARE_GREETING: Final = Batch.of(("HELLO", "3"), ("CLIENT", "TRACKING", "ON")).packed
_REPORT_WITHIN: Final = 0.02  # seconds, as a link does
_QUIET: Final = 0.3  # seconds
_DIGITS: Final = 6  # by which the microseconds of TIME may be shorter


class Recording(NamedTuple):
    """The bytes of one link. In each, `worker` is its id, of twelve characters."""

    worker: bytes
    join: bytes
    poll: bytes
    read: bytes
    report: bytes

    def of(self, worker: bytes) -> Self:
        """Return the same of another worker."""
        return type(self)(*(sent.replace(self.worker, worker) for sent in self))


async def record(server: RedisServer) -> Recording:
    """Record a worker that joins, polls, and follows a bare `SET`."""
    sent: list[bytes] = []
    send = RedisConnection.send

    async def recorded(
        wire: RedisConnection, *batches: Batch, within: float | None = None
    ) -> list[Any]:
        sent.append(b"".join(batch.packed for batch in batches))
        return await send(wire, *batches, within=within)

    async def take(*words: bytes, without: tuple[bytes, ...] = ()) -> bytes:
        while True:
            for text in sent:
                if all(word in text for word in words) and not any(w in text for w in without):
                    return text
            await asyncio.sleep(0.01)

    switch = Switch(server)
    setattr(RedisConnection, "send", recorded)  # noqa: B010 (a method, for mypy)
    try:
        async with asyncio.timeout(30), MaintenanceMode(RedisBackend(server.url)):
            join = await take(b"HSETNX")
            poll = await take(b"PX", b"TIME", without=(b"HSETNX", b"EXISTS"))
            await asyncio.sleep(_QUIET)
            sent.clear()
            switch.set(True)
            read = await take(b"CACHING", without=(b"PX",))
            report = await take(b"PX", without=(b"TIME",))
    finally:
        setattr(RedisConnection, "send", send)  # noqa: B010
        switch.set(False)
        switch.close()
    found = re.search(rb"w:([0-9a-f]{12})\b", poll)
    assert found is not None
    return Recording(found[1], join, poll, read, report)


class Link:
    """One raw socket, and the bytes that it sends."""

    def __init__(self, server: RedisServer, sends: Recording | None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        parts = (b"", BARE, BARE, b"") if sends is None else sends[1:]
        self.join, self.poll, self.read, self.report = parts
        self.lacks = 0  # bytes of the reply to `read`
        self.socket.sendall(_BARE_GREETING if sends is None else _GREETING)

    def ask(self, said: bytes) -> int:
        """Send bytes, and return the length of the reply."""
        self.socket.sendall(said)
        self.socket.settimeout(0.05)
        size = 0
        try:
            while heard := self.socket.recv(65536):
                size += len(heard)
        except TimeoutError:
            return size
        raise ConnectionError("Redis has closed a link")


class Links:
    """Many links on one server, driven by this process; of a recording, or bare ones."""

    def __init__(self, server: RedisServer, count: int, recording: Recording | None) -> None:
        ids = (secrets.token_hex(6).encode() for _ in range(count))
        self._links = [Link(server, recording and recording.of(id)) for id in ids]
        self._selector = selectors.DefaultSelector()
        for link in self._links:
            self._selector.register(link.socket, selectors.EVENT_READ, link)
        self.turn(_QUIET)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for link in self._links:
            link.socket.close()

    def turn(self, seconds: float) -> None:
        """Take what comes."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            deque(self._take(0.01), maxlen=0)

    def join(self) -> None:
        """Let all join at once."""
        for link in self._links:
            link.socket.sendall(link.join)
        self.turn(1.0)

    def polls(self, rate: float, seconds: float) -> int:
        """Poll in turn at a rate; return how many polls were sent."""
        began, sent = time.monotonic(), 0
        while (now := time.monotonic()) < began + seconds:
            for _ in range(int((now - began) * rate) - sent):
                link = self._links[sent % len(self._links)]
                link.socket.sendall(link.poll)
                sent += 1
            deque(self._take(0.0005), maxlen=0)
        self.turn(0.05)
        return sent

    def arm(self) -> None:
        """Read once, so that the next change is pushed."""
        self.turn(_QUIET)  # with the push of a change before
        asked, others = self._links[:5], self._links[5:]
        self._size = min(link.ask(link.read) for link in asked) - _DIGITS
        for link in others:
            link.socket.sendall(link.read)
        self.turn(_QUIET)

    def flip(self, switch: Switch, on: bool) -> list[float]:
        """Write the switch; return the seconds until each link has read it. Links report later."""
        reports: list[tuple[float, int, Link]] = []
        read_at: list[float] = []
        sent, deadline = switch.set(on), time.monotonic() + 30
        while len(read_at) < len(self._links) or reports:
            if time.monotonic() > deadline:
                raise RuntimeError(f"only {len(read_at)} of {len(self._links)} links have read")
            for link in self.reads(0.001):
                now = time.monotonic()
                read_at.append(now - sent)
                if link.report:
                    due = now + random.uniform(0, _REPORT_WITHIN)
                    heapq.heappush(reports, (due, len(read_at), link))
            while reports and reports[0][0] <= time.monotonic():
                link = heapq.heappop(reports)[2]
                link.socket.sendall(link.report)
        self.turn(0.05)
        return read_at

    def reads(self, timeout: float) -> Iterator[Link]:
        """Read after a push; yield the links that have read."""
        for link, heard in self._take(timeout):
            if b"invalidate" in heard:
                link.lacks = max(1, self._size)
                link.socket.sendall(link.read)
            elif link.lacks > 0:
                link.lacks -= len(heard)
                if link.lacks <= 0:
                    yield link

    def _take(self, timeout: float) -> Iterator[tuple[Link, bytes]]:
        for key, _ in self._selector.select(timeout):
            yield key.data, key.data.socket.recv(65536)


def run_floor(server: RedisServer, links: int, pipe: Connection) -> None:
    """Follow pushes with bare reads only, in one process of a `WorkerPool`."""
    with Links(server, links, None) as floor:
        floor.arm()
        pipe.send([time.monotonic()] * links)
        gathering = Gathering(pipe)
        while True:
            for _ in floor.reads(0.05):
                gathering.note(time.monotonic())
            gathering.tell()
