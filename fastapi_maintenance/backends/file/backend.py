"""LocalFileBackend: the switch is a file, read and written in threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar, TypeVar

from anyio import CapacityLimiter, to_thread

from ..._internal.validation import positive, require
from ...exceptions import BackendError
from ...model.evaluate import evaluate
from ...model.holds import Hold
from ...model.snapshot import Snapshot
from ...model.state import MaintenanceState
from ..base import BaseStateBackend, SupportsLeases
from .store import SwitchFiles

T = TypeVar("T")


class LocalFileBackend(BaseStateBackend, SupportsLeases):
    """Stores the switch in a file, as a boolean word or JSON. A missing file is off.

    Holds are leases in `<file_path>.holds`. Every change takes a lock on `<file_path>.lock`.
    Other processes see a change within `ttl` seconds. An invalid file changes nothing.
    """

    kind: ClassVar[str] = "file"

    def __init__(self, file_path: str | os.PathLike[str], *, ttl: float = 1.0) -> None:
        self.file_path = os.fspath(file_path)
        valid = self.file_path and "\0" not in self.file_path
        require(valid, "file_path must be a path like maintenance.json", self.file_path)
        self.ttl = positive("ttl", ttl)
        # Absolute, because a process may change its directory later.
        relative = not os.path.isabs(self.file_path)
        path = os.path.join(os.getcwd(), self.file_path) if relative else self.file_path
        self._files = SwitchFiles(path)

    def describe(self) -> str:
        return f"file:{self.file_path}"

    async def get_value(self) -> bool:
        snapshot = await self.read()
        if snapshot.switch is None:
            raise BackendError(f"{self.describe()}: {snapshot.error}")
        return evaluate(snapshot, snapshot.now).switch.enabled

    async def set_value(self, value: bool) -> None:
        await self.write(MaintenanceState(enabled=value))

    async def read(self) -> Snapshot:
        """Read switch and holds. An invalid file is None in the snapshot, and raises nothing."""
        return (await _off_loop(self._files.read, abandon=True))[0]

    async def last_known(self) -> Snapshot | None:
        snapshot, exists = await _off_loop(self._files.read, abandon=True)
        return snapshot if exists else None

    async def write(self, state: MaintenanceState, *, expires_in: float | None = None) -> None:
        """Set the switch; `expires_in` becomes its `ends_at`. Raises `BackendError` on failure."""
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
        """Extend a hold, also if its file was lost; return False if it was revoked."""
        return await self._change(partial(self._files.renew, hold, positive("lease", lease)))

    async def release(self, hold: Hold, *, keep: MaintenanceState | None = None) -> None:
        await self._change(partial(self._files.release, hold, keep))
        if keep is not None and hold.component is not None:
            await self.write_component(hold.component, keep)

    async def _change(self, change: Callable[[], T]) -> T:
        """Make a change under the lock, and publish the result to the workers of this process."""

        def change_and_read() -> tuple[T, float, Snapshot]:
            with self._files.locked():
                result = change()
            at = time.monotonic()
            return result, at, self._files.read()[0]

        result, at, snapshot = await _off_loop(change_and_read)
        self.publish(snapshot, at)
        return result


async def _off_loop(function: Callable[[], T], *, abandon: bool = False) -> T:
    # A limiter of its own: the shared thread pool may be full of threads that wait for this.
    return await to_thread.run_sync(function, abandon_on_cancel=abandon, limiter=CapacityLimiter(1))
