"""A worker that serves nobody: it follows a backend as workers do, and shows what they know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from ..backends import BaseStateBackend
from ..exceptions import BackendError, why
from ..mode import MaintenanceMode
from ..report import Report
from ..snapshot import Reading

__all__ = ["Observer", "Sight"]

_TICK: Final = 0.5  # seconds; how often an age on a terminal grows, and a closed pipe is noticed
_PATIENCE: Final = 5.0  # seconds until it is news that nothing was heard, neither good nor bad


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known at one moment, where that comes from, and how many seconds ago it was confirmed; None for never."""

    report: Report
    source: str
    age: float | None

    @property
    def key(self) -> Hashable:
        """Equal as long as nothing has changed but the time."""
        report = self.report
        holds = None if report.holds is None else tuple((hold.id, hold.state) for hold in report.holds)
        return report.state, report.decided_by, report.switch, holds, report.reading.error, self.source

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values, always with the same keys."""
        return self.report.to_json() | {"source": self.source, "age": self.age}


class Observer(MaintenanceMode):
    """Follows a backend by push. `async with` it, which waits for the first news, then `look` and `wait` in turn until `ended`."""

    def __init__(self, backend: BaseStateBackend) -> None:
        super().__init__(backend)
        self.ended = False
        self._news = asyncio.Event()
        self._trouble = "nothing has been heard of it yet"

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.wait(_PATIENCE)
        return self

    def end(self) -> None:
        """Let the current `wait` be the last."""
        self.ended = True
        self._news.set()

    async def wait(self, seconds: float = _TICK) -> None:
        """Wait for a change, or long enough that the time itself is news."""
        alarm = asyncio.get_running_loop().call_later(seconds, self._news.set)
        try:
            await self._news.wait()
        finally:
            alarm.cancel()

    async def look(self) -> Sight:
        """What is known now."""
        source = (await self.refresh()).source
        self._news.clear()
        reading, now = self.knowledge.reading, time.monotonic()
        if reading is None:
            unread = Reading(None, None, time.time(), error=self._trouble)
            return Sight(Report.of(self.backend, unread), "nowhere", None)
        # An unreadable switch is not replaced by a fallback's here: no worker need have the same fallbacks.
        source = self.backend.kind if reading.switch is None else source
        return Sight(Report.of(self.backend, reading, self.knowledge.backend_time(now)), source, now - self.knowledge.fresh_at)

    # -- feed ------------------------------------------------------------------------------------------------------------

    def update(self, reading: Reading, at: float) -> None:
        super().update(reading, at)
        self._news.set()

    def fail(self, error: BackendError) -> None:
        super().fail(error)
        self._trouble = why(error)
        self._news.set()

    def report(self) -> Mapping[str, Any]:
        """Nothing: it serves nobody, and no barrier may wait for a terminal that somebody suspended."""
        return {}
