"""A process that works on a file backend as it is told, line by line: `python -m
tests.backends.file_worker PATH`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from fastapi_maintenance.backends import LocalFileBackend
from fastapi_maintenance.model.evaluate import evaluate
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import MaintenanceState
from tests.support.waiting import eventually

from .recording import watched


class FileWorker:
    """Every public method is a command; its arguments are words, its result is JSON."""

    def __init__(self, path: str) -> None:
        self.backend = LocalFileBackend(path, ttl=0.4)
        self.holds: dict[str, Hold] = {}

    async def write(self, word: str) -> None:
        await self.backend.write(MaintenanceState.parse(word))

    async def read(self) -> bool:
        reading = await self.backend.read()
        return evaluate(reading, reading.now).state.enabled

    async def acquire(self, id: str, word: str, lease: str) -> None:
        self.holds[id] = await self.backend.acquire(
            Hold(id, MaintenanceState.parse(word)), float(lease)
        )

    async def renew(self, id: str, lease: str) -> bool:
        return await self.backend.renew(self.holds[id], float(lease))

    async def release(self, id: str) -> None:
        await self.backend.release(self.holds.pop(id))

    async def acquire_many(self, prefix: str, count: str) -> None:
        for number in range(int(count)):
            await self.acquire(f"{prefix}{number}", "on", "60")

    async def lock_for(self, seconds: str) -> None:
        with self.backend._files.locked():
            say("locked")
            await asyncio.sleep(float(seconds))

    async def clear(self) -> None:
        await self.backend.clear()

    async def write_until(self, stop: str) -> int:
        """Write two states that are both on, one short and one long, in turn, until there is a file
        of that name; count them.
        """
        states = [
            MaintenanceState(enabled=True),
            MaintenanceState(enabled=True, message="x" * 20_000),
        ]
        count = 0
        while not Path(stop).exists():
            await self.backend.write(states[count % 2])
            count += 1
        return count

    async def misread(self, times: str) -> int:
        """Read so many times; count the readings that did not say on."""
        readings = [await self.backend.read() for _ in range(int(times))]
        return sum(reading.switch is None or not reading.switch.enabled for reading in readings)

    async def flip_seen_at(self, seconds: str) -> float:
        """When a watch here was told that it is on, by the monotonic clock that all processes
        share.
        """
        async with watched(self.backend, attach=False) as feed:
            say("watching")
            await eventually(feed.is_on, within=float(seconds), every=0.002)
            return time.monotonic()


def say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    worker = FileWorker(sys.argv[1])
    say("ready")
    for line in sys.stdin:
        command, *arguments = line.split()
        say(asyncio.run(getattr(worker, command)(*arguments)))


main()  # it is only ever run
