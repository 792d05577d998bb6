"""Backends that do as a test says: to fail, to be slow, to hang."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import ClassVar

from fastapi_maintenance.backends import BaseStateBackend
from fastapi_maintenance.backends.base import SnapshotListener, SupportsLeases
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import MaintenanceState


class Switchboard(BaseStateBackend):
    """What a user would write: two methods, and no call of `super().__init__()`.

    `error` is raised by both while it is set. `gate`, an event, is waited for by `get_value` while
    it is set to one.
    """

    kind: ClassVar[str] = "board"

    def __init__(self, value: bool = False, *, ttl: float = 0.1) -> None:
        self.value = value
        self.ttl = ttl
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.reads = 0

    async def get_value(self) -> bool:
        self.reads += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.value

    async def set_value(self, value: bool) -> None:
        if self.error is not None:
            raise self.error
        self.value = value

    def hang(self) -> None:
        """From now on never answer."""
        self.gate = asyncio.Event()


class StateBoard(Switchboard):
    """A switch with details. `flip` changes it for everybody who watches."""

    def __init__(self, state: MaintenanceState, *, ttl: float = 30) -> None:
        super().__init__(ttl=ttl)
        self.state = state

    async def read(self) -> Snapshot:
        return self._local_reading(self.state)

    async def flip(self, state: MaintenanceState) -> None:
        self.state = state
        await self._announce()


class Ignorant(Switchboard):
    """As a fallback, it has never known anything."""

    async def last_known(self) -> Snapshot | None:
        self.reads += 1
        return None


class LeasedBoard(Switchboard, SupportsLeases):
    """Keeps holds as leases, and does with each step what `faults` says under its name: an error to
    raise, or seconds to take.

    `steps` is what happened, `standing` what stands. `doing` is set while a slow step is under way.
    """

    def __init__(self, value: bool = False, *, ttl: float = 0.1) -> None:
        super().__init__(value, ttl=ttl)
        self.faults: dict[str, Exception | float] = {}
        self.steps: list[str] = []
        self.standing: dict[str, Hold] = {}
        self.kept: MaintenanceState | None = None
        self.revoked = False
        self.doing = threading.Event()

    async def acquire(self, hold: Hold, lease: float) -> Hold:
        self.standing[hold.id] = hold  # also where the reply is lost
        await self._step("acquire")
        return hold

    async def renew(self, hold: Hold, lease: float) -> bool:
        await self._step("renew")
        return not self.revoked

    async def release(self, hold: Hold, *, keep: MaintenanceState | None = None) -> None:
        await self._step("release")
        self.standing.pop(hold.id, None)
        self.kept = keep

    async def _step(self, name: str) -> None:
        self.steps.append(name)
        fault = self.faults.get(name)
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            self.doing.set()
            await asyncio.sleep(fault)
            self.doing.clear()


class DeadWatch(Switchboard):
    """Its watch delivers once and then ends: by returning, or with `end` if that is an error."""

    def __init__(self, end: Exception | None = None, *, ttl: float = 0.05) -> None:
        super().__init__(ttl=ttl)
        self.end = end
        self.watched = 0

    async def watch(self, feed: SnapshotListener) -> None:
        self.watched += 1
        at = time.monotonic()
        feed.update(await self.read(), at)
        if self.end is not None:
            raise self.end
