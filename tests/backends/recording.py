"""A feed that remembers what it was told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi_maintenance.backends import BaseStateBackend
from fastapi_maintenance.exceptions import BackendError
from fastapi_maintenance.model.evaluate import evaluate, evaluate_all
from fastapi_maintenance.model.snapshot import Snapshot, with_last_known
from fastapi_maintenance.model.state import MaintenanceState
from tests.support.waiting import eventually


@dataclass(eq=False)
class RecordingFeed:
    """Stands in for a worker."""

    readings: list[Snapshot] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)
    errors: list[BackendError] = field(default_factory=list)

    @property
    def changes_at(self) -> float:
        until = min(each.until for each in evaluate_all(self.last, self.last.now).values())
        return time.monotonic() + until - self.last.now

    def update(self, snapshot: Snapshot, at: float) -> Snapshot:
        assert at <= time.monotonic()
        known = with_last_known(snapshot, self.readings[-1] if self.readings else None)
        self.readings.append(known)
        self.asked_at.append(at)
        return known

    def fail(self, error: BackendError) -> None:
        self.errors.append(error)

    @property
    def last(self) -> Snapshot:
        return self.readings[-1]

    @property
    def state(self) -> MaintenanceState:
        """The effective state by the last reading, now: Redis runs on this machine, so its clock is
        ours.
        """
        return evaluate(self.last, time.time()).state

    def is_on(self) -> bool:
        return bool(self.readings) and self.state.enabled

    def is_off(self) -> bool:
        return bool(self.readings) and not self.state.enabled


@asynccontextmanager
async def watched(
    backend: BaseStateBackend, *, attach: bool = True
) -> AsyncIterator[RecordingFeed]:
    """Let a feed be told by a running watch, from its first reading on, and unless forbidden of
    this process' own changes.
    """
    feed = RecordingFeed()
    if attach:
        backend.subscribe(feed)
    watch = asyncio.create_task(backend.watch(feed))
    try:
        await eventually(lambda: feed.readings or feed.errors, within=30)
        yield feed
    finally:
        watch.cancel()
        await asyncio.wait([watch])
        assert watch.cancelled(), watch
