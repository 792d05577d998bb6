"""A worker on a running link, and what is to be seen of the link from outside."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.backends.redis.script import dump_hold
from fastapi_maintenance.model.evaluate import evaluate
from fastapi_maintenance.model.holds import Hold
from tests.backends.recording import RecordingFeed
from tests.support.collecting import Collecting
from tests.support.waiting import eventually

# Seconds: generous for what takes milliseconds, and less than any poll where only pushes count.
SOON: Final = 30.0
_LONGEST_TURN: Final = 0.1  # seconds of processor time before the event loop gets its turn


@dataclass(eq=False)
class Worker(RecordingFeed):
    """A feed of which others may hear.

    It reports what it has applied, as a real worker does, if `reporting`; otherwise something that
    never changes, or nothing at all if it is an `observer`.
    """

    reporting: bool = False
    observer: bool = False
    drained: bool = False

    def report(self) -> Mapping[str, Any]:
        if self.observer:
            return {}
        applied = (
            {"epoch": self.last.epoch, "applied": self.last.fingerprint}
            if self.reporting and self.readings
            else {}
        )
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "drained": self.drained,
            **applied,
        }

    @property
    def syncs(self) -> int:
        """How many readings came."""
        return len(self.readings)

    def has_synced(self, since: int) -> bool:
        """Whether any came after the first so many."""
        return self.syncs > since

    def has_failed(self, times: int) -> bool:
        """Whether Redis could not be read so often."""
        return len(self.errors) >= times

    def has_read(self, after: float, on: bool) -> bool:
        """Whether its last reading was made after a time, and said so then."""
        return self.last.now > after and evaluate(self.last, self.last.now).state.enabled is on

    @property
    def held(self) -> list[str]:
        """The holds that stand by the last reading, now."""
        return sorted(hold.id for hold in self.last.holds or () if time.time() < hold.deadline)

    def sees(self, message: str) -> bool:
        """Whether it is closed with this message for visitors."""
        return self.is_on() and self.state.message == message

    def was_ever_off(self, since: int = 0) -> bool:
        """Whether any reading after the first so many said off when it came."""
        return not all(
            evaluate(reading, reading.now).state.enabled for reading in self.readings[since:]
        )


async def settled(backend: RedisBackend, worker: Worker, ask: Redis | None = None) -> int:
    """Wait until the link has done all that earlier commands cause; return how often it synced.

    `ask` is another client of the server, for a backend that may not read.
    """
    (link,) = backend._links
    while True:
        syncs = worker.syncs
        # By then Redis has pushed what there is to push.
        await (ask.ping() if ask else backend.read())
        await asyncio.sleep(0.02)
        await eventually(
            lambda: not (link._woken.done() or link._heard) and link._report_at == math.inf,
            within=30,
        )
        if worker.syncs == syncs:
            return syncs


def sync_now(backend: RedisBackend) -> None:
    """Let all its links look again at once, as after a push."""
    for link in list(backend._links):
        link._hear()


@asynccontextmanager
async def linked(
    backend: RedisBackend, worker: Worker | None = None, *, wait: bool = True, busy: bool = False
) -> AsyncIterator[Worker]:
    """A worker on a link of its own, from its first reading on, while the event loop never waits
    long for its turn.

    `busy` is for tests that keep it so themselves.
    """
    worker = worker or Worker()
    async with no_hot_loop(busy=busy):
        watch = asyncio.create_task(backend.watch(worker, worker.report), name="the link")
        try:
            if wait:
                await eventually(lambda: worker.readings, within=30)
            yield worker
            assert not watch.done(), watch
        finally:
            watch.cancel()
            await asyncio.wait([watch])


@asynccontextmanager
async def no_hot_loop(*, busy: bool = False) -> AsyncIterator[None]:
    """Fail if one turn of the event loop computes for long or, unless the test is `busy`, if most
    of the time is spent so.

    Measured in processor time, so that a busy machine is no reason to fail; what blocks without
    computing, blockbuster finds. What the garbage collector takes is not counted: its heap is that
    of all tests.
    """
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            spent = time.thread_time() - collecting.seconds
            await asyncio.sleep(0.005)
            worst = max(worst, time.thread_time() - collecting.seconds - spent)

    with Collecting() as collecting:
        watching = asyncio.create_task(watch(), name="the watchdog")
        began, spent = time.monotonic(), time.thread_time()
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])
    took, spent = time.monotonic() - began, time.thread_time() - spent
    assert worst < _LONGEST_TURN, f"one turn computed for {worst * 1000:.0f} ms"
    assert busy or took < 1.0 or spent < 0.5 * took, (
        f"{spent:.1f} s of {took:.1f} s were spent computing"
    )


@asynccontextmanager
async def recorded_commands(client: Redis) -> AsyncIterator[list[tuple[str, str]]]:
    """What clients send meanwhile, each as address and command; not what scripts call."""
    commands: list[tuple[str, str]] = []

    async def record() -> None:
        while True:
            seen = await monitor.next_command()
            if seen["client_type"] != "lua":
                commands.append(
                    (f"{seen['client_address']}:{seen['client_port']}", seen["command"])
                )

    async with client.monitor() as monitor:
        recording = asyncio.create_task(record(), name="the monitor")
        try:
            yield commands
        finally:
            recording.cancel()
            await asyncio.wait([recording])


def open_files() -> set[str]:
    """What this process has open."""
    return {f"{name} {target}" for name, target in _descriptors()}


def _descriptors() -> Iterator[tuple[str, str]]:
    for name in os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"):
        with suppress(OSError):
            yield name, os.readlink(f"/proc/self/fd/{name}")


@contextmanager
def took_less_than(seconds: float) -> Iterator[None]:
    """Fail if the block takes much longer than that, as a busy machine may make it."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds + 25, f"it took {took:.2f} s"


def knowledge(
    value: str = "",
    left: int = 0,
    *holds: Hold,
    life: int = 8,
    epoch: int = 9,
    noticed: int = 0,
    age: float = 0.0,
    rolled_back: bool = False,
    **components: str,
) -> list[str | int]:
    """Return the arguments of a restore step: what a worker read `age` seconds ago."""
    read_at = round((time.time() - age) * 1e6)
    found: list[str | int] = ["", life, epoch, noticed, read_at, int(rolled_back)]
    for component, text in {"": value, **components}.items():
        found += ["", component, text, left if component == "" else 0]
    for hold in holds:
        left = round((hold.deadline - time.time()) * 1000)
        found += [hold.id, left, round(hold.since * 1e6), dump_hold(hold)]
    return found
