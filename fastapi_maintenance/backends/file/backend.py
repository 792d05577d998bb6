"""LocalFileBackend: the files of a switch, kept off the event loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Final, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread

from ..._internal.validation import positive
from ...exceptions import BackendError, ConfigurationError
from ...model.evaluate import evaluate
from ...model.holds import Hold
from ...model.snapshot import Snapshot
from ...model.state import MaintenanceState
from ..base import BaseStateBackend, SnapshotListener
from .store import SwitchFiles

__all__ = ["LocalFileBackend"]

_SOON: Final = 0.05

T = TypeVar("T")


class LocalFileBackend(BaseStateBackend):
    """Keeps the switch in a file, as a boolean word or JSON; where there is no file, it is off.

    Holds are leases in `<file_path>.holds`. Every change is made under a lock on `<file_path>.lock`. Other processes see a change
    within `ttl` seconds. A file that cannot be read changes nothing.
    """

    kind: ClassVar[str] = "file"
    leased: ClassVar[bool] = True

    def __init__(self, file_path: str | os.PathLike[str], *, ttl: float = 1.0) -> None:
        self.file_path = os.fspath(file_path)
        if not self.file_path or "\0" in self.file_path:
            raise ConfigurationError(
                f"{self.file_path!r} cannot name a file; write a path like maintenance.json."
            )
        self.ttl = positive("ttl", ttl)
        # Absolute, because a process may change its directory later.
        self._files = SwitchFiles(
            self.file_path
            if os.path.isabs(self.file_path)
            else os.path.join(os.getcwd(), self.file_path)
        )
        self._delivery = object()

    def describe(self) -> str:
        return f"file:{self.file_path}"

    async def get_value(self) -> bool:
        reading = await self.read()
        if reading.switch is None:
            raise BackendError(f"{self.describe()}: {reading.error}")
        return evaluate(reading, reading.now).switch.enabled

    async def set_value(self, value: bool) -> None:
        await self.write(MaintenanceState(enabled=value))

    async def read(self) -> Snapshot:
        """Read switch and holds. What cannot be read is None in it, and nothing is raised."""
        return (await _off_loop(self._files.read, abandon=True))[0]

    async def last_known(self) -> Snapshot | None:
        reading, exists = await _off_loop(self._files.read, abandon=True)
        return reading if exists else None

    async def write(self, state: MaintenanceState, *, expires_in: float | None = None) -> None:
        """Set the switch. `expires_in` becomes the state's `ends_at`. Raises `BackendError` if that did not happen."""
        if expires_in is not None:
            positive("expires_in", expires_in)
        await self._change(partial(self._files.write, state, expires_in))

    async def compare_and_set(
        self,
        expected: Snapshot,
        state: MaintenanceState,
        *,
        component: str | None = None,
        keep_ttl: bool = False,
        end_holds: bool = False,
    ) -> bool:
        if component is not None:
            raise self._no_components()
        return await self._change(
            partial(self._files.compare_and_set, expected.switch, state, end_holds=end_holds)
        )

    async def clear(self) -> None:
        await self._change(self._files.clear)

    async def acquire(self, hold: Hold, lease: float) -> Hold:
        return await self._change(partial(self._files.acquire, hold, positive("lease", lease)))

    async def renew(self, hold: Hold, lease: float) -> bool:
        """Let it stand for `lease` seconds more, also if its file was lost; False if it was revoked."""
        return await self._change(partial(self._files.renew, hold, positive("lease", lease)))

    async def release(self, hold: Hold, *, keep: MaintenanceState | None = None) -> None:
        await self._change(partial(self._files.release, hold, keep))
        if keep is not None and hold.component is not None:
            await self.write_component(hold.component, keep)

    async def watch(self, feed: SnapshotListener) -> None:
        """Deliver readings until cancelled. The files are read every `ttl`/2 seconds."""
        told, told_until, delivery = None, 0.0, self._delivery
        while True:
            at, latest = time.monotonic(), self._delivery
            reading = await self.read()
            # After a delivery by another way, `told` is no longer what a confirmation would be understood to confirm.
            if (
                told is None
                or latest is not delivery
                or reading.now >= told_until
                or _says_other(reading, told)
            ):
                feed.update(reading, at)
                told, told_until, delivery = reading, evaluate(reading, reading.now).until, latest
            else:
                feed.confirm(at)
            await anyio.sleep(_pause(told_until - reading.now, self.ttl))

    def publish(self, reading: Snapshot, at: float) -> None:
        self._delivery = object()
        super().publish(reading, at)

    async def _change(self, change: Callable[[], T]) -> T:
        """Make a change, and let the workers of this process know at once what is true after it."""

        def change_and_look() -> tuple[T, float, Snapshot]:
            result = change()
            at = time.monotonic()
            return result, at, self._files.read()[0]

        result, at, reading = await _off_loop(change_and_look)
        self.publish(reading, at)
        return result


async def _off_loop(function: Callable[[], T], *, abandon: bool = False) -> T:
    # A limiter of its own: an application that fills the shared thread pool, perhaps waiting for us, must not block this.
    return await to_thread.run_sync(function, abandon_on_cancel=abandon, limiter=CapacityLimiter(1))


def _says_other(new: Snapshot, old: Snapshot) -> bool:
    return (new.switch, new.holds, new.error) != (old.switch, old.holds, old.error)


def _pause(left: float, ttl: float) -> float:
    """Seconds until the next look: often enough, and at the next change, `left` seconds away.

    Half the way before that, because it may be a deadline that is moved in time, and then must not have its moment.
    """
    return min(ttl / 2, max(0.001, left if left < _SOON else left / 2))
