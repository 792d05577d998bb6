"""Leases: a hold that is acquired, renewed from a thread of its own, and released."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

from .._internal.logging import error_text, log_fields
from ..backends.base import BaseStateBackend, SupportsLeases
from ..exceptions import LeaseLostError
from ..model.holds import Hold
from ..model.state import MaintenanceState

__all__ = ["LeaseKeeper", "LocalLease", "OnLost"]

logger = logging.getLogger("fastapi_maintenance")

_RENEWALS: Final = 3  # per lease, at least
_LONGEST_PAUSE: Final = (
    1.0  # seconds; within these a holder is told that somebody ended its hold by force
)
_RETRIES: Final = 10  # per lease, while the backend does not answer
_RELEASE_TIMEOUT: Final = 2.0  # seconds, for a block that was cancelled while its hold was taken

OnLost = Callable[[LeaseLostError], object]


class LeaseKeeper:
    """Keeps one hold standing from a daemon thread with an event loop of its own.

    So a block that blocks its event loop, as migrations do, keeps its lease; and a process that dies loses it.
    """

    def __init__(
        self, backend: BaseStateBackend, hold: Hold, seconds: float, on_lost: OnLost | None = None
    ) -> None:
        self.backend = backend
        self._hold = hold
        self._seconds = seconds
        self._margin = min(
            0.1 * seconds, 1.0
        )  # so much before its hold can end, a holder that is cut off is told
        self._on_lost = on_lost
        self._taken: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._release: Future[MaintenanceState | None] = Future()
        self._pid = os.getpid()
        self._revoked = False
        self.lost = ""

    async def acquire(self) -> None:
        """Take the hold. If this is cancelled, the thread releases it again."""
        try:
            await asyncio.shield(asyncio.wrap_future(self.begin()))
        except asyncio.CancelledError:
            # The process may be about to end, so wait for the release, too.
            with suppress(Exception):
                await asyncio.wait_for(self.release(), _RELEASE_TIMEOUT)
            raise

    async def release(self, keep: MaintenanceState | None = None) -> None:
        """Release the hold. If this is cancelled, the thread does it all the same."""
        await asyncio.shield(asyncio.wrap_future(self.end(keep)))

    def begin(self) -> Future[None]:
        """Start; the future ends when the hold stands, or with the error because of which it does not."""
        threading.Thread(
            target=self._run, name=f"fastapi_maintenance lease {self._hold.id}", daemon=True
        ).start()
        return self._taken

    def end(self, keep: MaintenanceState | None = None) -> Future[None]:
        """Release; the future ends when that is done, or with the error because of which the lease must run out instead."""
        if os.getpid() != self._pid:
            # A forked child leaves the block too. The hold is its parent's, and so is the thread that would release it.
            done: Future[None] = Future()
            done.set_result(None)
            return done
        if not self._release.done():
            self._release.set_result(keep)
        return self._ended

    def check(self) -> None:
        """Raise `LeaseLostError` if the hold ended before its block."""
        if self.lost:
            raise self._error()

    def _error(self) -> LeaseLostError:
        return LeaseLostError(
            f"The hold {self._hold.id} on {self.backend.describe()} was lost: {self.lost}"
        )

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._keep())
        except BaseException as error:
            (self._ended if self._taken.done() else self._taken).set_exception(error)
        else:
            self._ended.set_result(None)

    async def _keep(self) -> None:
        deadline = time.monotonic() + self._seconds
        try:
            self._hold = await self.backend.acquire(self._hold, self._seconds)
        except Exception as error:
            self._taken.set_exception(error)
            await self.backend.release(
                self._hold
            )  # it may stand all the same, only the reply being lost
            return
        self._taken.set_result(None)
        release = asyncio.wrap_future(self._release)
        pause = min(self._seconds / _RENEWALS, _LONGEST_PAUSE)
        while not release.done():
            left = deadline - self._margin - time.monotonic()
            await asyncio.wait([release], timeout=min(pause, left) if left > 0 else pause)
            if not release.done():
                deadline, pause = await self._renew(deadline)
        if not self.lost:
            await self._renew(
                deadline
            )  # it may have been lost since the last renewal, and the block must not believe otherwise
        # Whoever ended it by force has decided that the service opens; a block that fails because of that must not undo it.
        await _let_go(self.backend, self._hold, None if self._revoked else release.result())

    async def _renew(self, deadline: float) -> tuple[float, float]:
        """Renew once. Returns until when the hold surely stands, counted from when that was asked for, and the next pause."""
        sent = time.monotonic()
        tell_at, retry = deadline - self._margin, self._seconds / _RETRIES
        patience = max(tell_at - sent, self._margin / 2) if sent < deadline else retry
        try:
            standing = await asyncio.wait_for(
                self.backend.renew(self._hold, self._seconds), patience
            )
        except (
            Exception
        ) as error:  # a backend of a user's own may raise anything; none of it may end the renewals
            if time.monotonic() >= tell_at:
                self._lose(f"it could not be renewed in time ({error_text(error)})")
            return deadline, retry
        if not standing:
            self._revoked = True
            self._lose("somebody ended it by force")
        elif time.monotonic() >= deadline:
            self._lose("this process was away for longer than the lease")
        return sent + self._seconds, min(self._seconds / _RENEWALS, _LONGEST_PAUSE)

    def _lose(self, reason: str) -> None:
        if self.lost:
            return
        self.lost = reason
        id, backend = self._hold.id, self.backend.describe()
        extra = log_fields("hold-lost", hold=id, backend=backend)
        logger.critical(
            "lost the hold %s on %s while its block is running: %s",
            id,
            backend,
            reason,
            extra=extra,
        )
        if self._on_lost is not None:
            try:
                self._on_lost(self._error())
            except Exception:  # a callback of the user's must not end the renewals
                logger.exception("on_lost raised", extra=extra)


class LocalLease:
    """The same for a backend whose holds have no lease: taken and released on the event loop, and never lost."""

    lost = ""

    def __init__(self, backend: BaseStateBackend, hold: Hold, seconds: float) -> None:
        self.backend = backend
        self._hold = hold
        self._seconds = seconds

    async def acquire(self) -> None:
        """Take the hold."""
        try:
            await self.backend.acquire(self._hold, self._seconds)
        except BaseException:
            await _drop(
                self.backend, self._hold
            )  # cancelled after it was taken, and before that was told
            raise

    async def release(self, keep: MaintenanceState | None = None) -> None:
        """Release it."""
        await _let_go(self.backend, self._hold, keep)

    def check(self) -> None:
        """Raise nothing: only a lease can be lost."""


async def _let_go(
    backend: BaseStateBackend, hold: Hold, keep: MaintenanceState | None = None
) -> None:
    """Release a hold. Where that fails, a hold that has no lease to run out is dropped: it would stand for ever."""
    try:
        await backend.release(hold, keep=keep)
    except BaseException:
        if not isinstance(backend, SupportsLeases):
            await _drop(backend, hold)
        raise


async def _drop(backend: BaseStateBackend, hold: Hold) -> None:
    """End a hold that is known to this process only, even if the backend cannot be asked what that makes of the state."""
    with suppress(Exception):
        async with asyncio.timeout(backend.ttl):
            await backend.release(hold)
