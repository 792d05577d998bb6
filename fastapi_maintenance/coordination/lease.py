"""Keep a hold alive: acquire it, renew its lease from a thread, release it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from .._internal.logging import error_text, log_fields
from ..backends.base import BaseStateBackend
from ..exceptions import LeaseLostError
from ..model.holds import Hold
from ..model.state import MaintenanceState

logger = logging.getLogger("fastapi_maintenance")

_RENEWALS: Final = 3  # per lease, at least
_MAX_RENEWAL_INTERVAL: Final = 1.0  # seconds; so soon a holder learns that its hold was ended
_RETRIES: Final = 10  # per lease, while the backend does not answer

OnLost = Callable[[LeaseLostError], object]


class HoldKeeper:
    """Acquires and releases a hold without a lease, on the event loop. It cannot be lost."""

    lost = ""
    """The reason why the hold ended before its block did, or empty."""

    def __init__(self, backend: BaseStateBackend, hold: Hold, seconds: float) -> None:
        self.backend, self.hold, self.seconds = backend, hold, seconds

    async def acquire(self) -> None:
        """Acquire the hold. After a cancellation it may be acquired, so release it."""
        await self.backend.acquire(self.hold, self.seconds)

    async def release(self, keep: MaintenanceState | None = None) -> None:
        """Release the hold, and turn the switch to `keep` if given."""
        await self.backend.release(self.hold, keep=keep)

    def check(self) -> None:
        """Raise `LeaseLostError` if the hold has ended, but not its block."""


class LeaseKeeper(HoldKeeper):
    """Keeps a hold alive from a daemon thread with an event loop of its own.

    A block that blocks its event loop, as migrations do, keeps its lease. A process that dies
    loses it.
    """

    def __init__(
        self, backend: BaseStateBackend, hold: Hold, seconds: float, on_lost: OnLost | None = None
    ) -> None:
        super().__init__(backend, hold, seconds)
        # A loss is reported this long before the hold can expire.
        self._margin = min(0.1 * seconds, 1.0)
        self._on_lost = on_lost
        self._acquired: Future[None] = Future()
        self._released: Future[None] = Future()
        self._to_release: Future[MaintenanceState | None] = Future()
        self._pid = os.getpid()
        self._revoked = False

    async def acquire(self) -> None:
        await asyncio.shield(asyncio.wrap_future(self.submit_acquire()))

    async def release(self, keep: MaintenanceState | None = None) -> None:
        # If this is cancelled, the thread still releases the hold.
        await asyncio.shield(asyncio.wrap_future(self.submit_release(keep)))

    def submit_acquire(self) -> Future[None]:
        """Start the thread. The future ends when the hold is taken, or with the error."""
        name = f"fastapi_maintenance lease {self.hold.id}"
        threading.Thread(target=self._run, name=name, daemon=True).start()
        return self._acquired

    def submit_release(self, keep: MaintenanceState | None = None) -> Future[None]:
        """Release the hold in the thread. The future ends when that is done, or with the error."""
        if os.getpid() != self._pid:
            # A forked child leaves the block, too. The hold and the thread are its parent's.
            done: Future[None] = Future()
            done.set_result(None)
            return done
        if not self._to_release.done():
            self._to_release.set_result(keep)
        return self._released

    def check(self) -> None:
        if self.lost:
            raise self._error()

    def _error(self) -> LeaseLostError:
        return LeaseLostError(
            f"The hold {self.hold.id} on {self.backend.describe()} was lost: {self.lost}"
        )

    # -- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._keep())
        except BaseException as error:
            (self._released if self._acquired.done() else self._acquired).set_exception(error)
        else:
            self._released.set_result(None)

    async def _keep(self) -> None:
        deadline = time.monotonic() + self.seconds
        try:
            self.hold = await self.backend.acquire(self.hold, self.seconds)
        except Exception as error:
            self._acquired.set_exception(error)
            await self.backend.release(self.hold)  # only the reply may be lost
            return
        self._acquired.set_result(None)
        release = asyncio.wrap_future(self._to_release)
        pause = min(self.seconds / _RENEWALS, _MAX_RENEWAL_INTERVAL)
        while not release.done():
            left = deadline - self._margin - time.monotonic()
            await asyncio.wait([release], timeout=min(pause, left) if left > 0 else pause)
            if not release.done():
                deadline, pause = await self._renew(deadline)
        if not self.lost:
            await self._renew(deadline)  # the hold may have been lost since the last renewal
        # An operator who ended it by force opened the service. The failed block must not undo that.
        keep = None if self._revoked else release.result()
        await self.backend.release(self.hold, keep=keep)

    async def _renew(self, deadline: float) -> tuple[float, float]:
        """Renew once. Returns the new deadline, counted from the request, and the next pause."""
        sent = time.monotonic()
        report_at, retry = deadline - self._margin, self.seconds / _RETRIES
        timeout = max(report_at - sent, self._margin / 2) if sent < deadline else retry
        try:
            async with asyncio.timeout(timeout):
                stands = await self.backend.renew(self.hold, self.seconds)
        except Exception as error:  # a custom backend may raise any, and renewals must go on
            if time.monotonic() >= report_at:
                self._lose(f"it could not be renewed in time ({error_text(error)})")
            return deadline, retry
        if not stands:
            self._revoked = True
            self._lose("an operator ended it by force")
        elif time.monotonic() >= deadline:
            self._lose("this process was suspended for longer than the lease")
        return sent + self.seconds, min(self.seconds / _RENEWALS, _MAX_RENEWAL_INTERVAL)

    def _lose(self, reason: str) -> None:
        if self.lost:
            return
        self.lost = reason
        id, backend = self.hold.id, self.backend.describe()
        extra = log_fields("hold-lost", hold=id, backend=backend)
        message = "lost the hold %s on %s while its block is running: %s"
        logger.critical(message, id, backend, reason, extra=extra)
        if self._on_lost is not None:
            try:
                self._on_lost(self._error())
            except Exception:  # a user's callback must not end the renewals
                logger.exception("on_lost raised", extra=extra)
