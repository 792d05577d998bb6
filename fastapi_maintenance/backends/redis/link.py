"""The one connection of a worker: waits for pushes, reads the state, reports the worker.

Redis pushes an invalidation of the switch (CLIENT TRACKING) or a message; either causes a read.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from enum import StrEnum
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from ..._internal.logging import error_text, log_fields
from ..._internal.tasks import beside
from ...exceptions import BackendError, BackendUnavailableError
from ..base import LinkStatus, SnapshotListener
from .connection import HungUpError, NotSlotOwnerError, RedisConnection
from .eviction import EvictionCheck
from .keys import Keys
from .server import Server
from .sync import Sync

logger = logging.getLogger("fastapi_maintenance")

_BACKOFF_START: Final = 0.02  # seconds
_BACKOFF_CAP: Final = 1.0
_COURTESY: Final = 0.02
_GAP: Final = 0.01  # seconds between two reads that pushes cause, at least
_GAP_FACTOR: Final = 4  # or so many times as long as the last one took
_RETRY_AFTER: Final = 2.0  # seconds, until what a server hung up on is tried again
_RETRY_FACTOR: Final = 4  # each time it hangs up again
_MAX_RETRIES: Final = 5
_WRITE_TIMEOUT: Final = 10  # so many ttl, while writes are paused
_HELLO: Final = "HELLO"
_CLIENT: Final = "CLIENT"
_SUBSCRIBE: Final = "SUBSCRIBE"
_FOLLOW: Final = "SSUBSCRIBE"
_TRACK: Final = ("CLIENT", "TRACKING", "ON", "OPTIN")
# What a subscribed RESP2 connection is told about all other commands.
_CONFINED: Final = "allowed in this context"


class Delivery(StrEnum):
    """The ways in which a worker learns of the changes of other clients."""

    TRACKING = "tracking"  # pushed by Redis for any write to the key
    MESSAGE = "message"  # published by our own writers; the poll finds the rest
    POLLING = "polling"
    DOWN = "down"


class Link:
    """Keeps a listener current: reads after each push, and polls every `ttl`.

    A poll that is not answered within half a `ttl` ends the connection. Tracking is armed *before*
    the read on the same connection, so that a change is either in the reply or pushed after it.
    The `options` are those of `Sync`.
    """

    def __init__(
        self, server: Server, keys: Keys, listener: SnapshotListener, *, ttl: float, **options: Any
    ) -> None:
        worker = secrets.token_hex(6)
        self._server = server
        self._listener = listener
        self._ttl = ttl
        self._deadline = ttl / 2
        self._greeting = ("CLIENT", "SETNAME", f"fastapi-maintenance:{worker}")
        self._subscribe = ("SUBSCRIBE", keys.events)
        self._change_nothing = ("HDEL", keys.registry, "#")
        self._look = ("EXISTS", keys.switch)
        self._sync = Sync(server, keys, listener, worker, ttl=ttl, **options)
        self._eviction = EvictionCheck(server.describe())
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[None] = self._loop.create_future()
        self._heard = False
        self._report_at = math.inf
        self._delivery: Delivery | None = None
        self._failures = 0
        self._connected = 0  # so many times
        self._moved = False
        self._poll_at = 0.0
        self._is_paused = False  # writes are not answered, as before a planned failover
        self._trying = ""  # the command that the server may hang up on
        self._lacking: set[str] = set()  # those that it did hang up on
        self._lacked = 0  # so often in a row
        self._retry_at = math.inf

    async def run(self) -> None:
        """Connect, sync and reconnect until cancelled.

        What Redis does wrong is delivered to the listener, never raised.
        """
        while True:
            try:
                await self._session()
            except NotSlotOwnerError:
                pass  # no failure: the next connection goes where the switch is now
            except (RedisError, OSError, BackendError) as error:
                if self._steps_down(error):
                    continue
                self._is_paused |= isinstance(error.__cause__, TimeoutError)
                reason = f"{self._server.describe()}: {error_text(error)}"
                self._settle(Delivery.DOWN)
                self._listener.fail(BackendUnavailableError(reason))
            # Full jitter, so that the workers of a restarted server do not come back in step.
            await asyncio.sleep(
                random.uniform(0, min(_BACKOFF_CAP, _BACKOFF_START * 2**self._failures))
            )
            self._failures = min(self._failures + 1, 10)

    def _steps_down(self, error: Exception) -> bool:
        """Do without a command that the server hung up on, where it would refuse it.

        If the server was only killed at that moment, the next connection is refused, and what it
        has will be tried anew.
        """
        cause = error.__cause__ if isinstance(error, BackendUnavailableError) else error
        hung_up = isinstance(error, BackendUnavailableError | HungUpError)
        command, self._trying = self._trying, ""
        if self._sync.has_read:
            return False
        if not hung_up or isinstance(cause, TimeoutError) or not command:
            self._lacking.clear()
            return False
        if not self._lacking:
            self._retry_at = time.monotonic() + _RETRY_AFTER * _RETRY_FACTOR**self._lacked
            self._lacked = min(self._lacked + 1, _MAX_RETRIES)
        self._lacking.add(command)
        return True

    @property
    def _must_retry(self) -> bool:
        return bool(self._lacking) and time.monotonic() >= self._retry_at

    def nudge(self) -> None:
        """Sync soon if there is anything to say or to ask; from any thread."""
        with suppress(RuntimeError):  # the loop was closed without ending its tasks
            self._loop.call_soon_threadsafe(self._look_soon)

    def serves(self, listener: SnapshotListener) -> bool:
        """Return whether this link serves a listener."""
        return self._listener is listener

    @property
    def status(self) -> LinkStatus:
        """The current delivery, and the number of reconnections."""
        delivery, reconnects = self._delivery or Delivery.DOWN, max(0, self._connected - 1)
        return LinkStatus(delivery, tuple(Delivery), reconnects, self._eviction.warnings)

    async def _session(self) -> None:
        """One connection's life: until it fails, or until another server owns the switch."""
        self._sync.begin()
        self._moved = False
        if self._must_retry:
            self._lacking.clear()
        async with (
            self._open() as (connection, pushes, delivery),
            self._following(pushes),
            beside(self._wait_for_writes(), self._eviction.ask(connection, within=self._deadline)),
        ):
            self._connected += 1
            try:
                self._poll_at = 0.0
                while not (self._moved or self._must_retry):
                    pushes.check()
                    began = time.monotonic()
                    polls = began >= self._poll_at
                    delivery, changes_at = await self._sync_on(
                        connection, delivery, polls=polls and not self._is_paused
                    )
                    self._failures = 0
                    if self._sync.must_join and not polls and not self._is_paused:
                        self._poll_at = time.monotonic() + random.uniform(0, _COURTESY)
                    # A server under load answers later, and is asked again later.
                    rest_until = time.monotonic() + min(
                        self._deadline, max(_GAP, _GAP_FACTOR * (time.monotonic() - began))
                    )
                    if polls:
                        poll_at = began + self._ttl * random.uniform(0.8, 1.2)
                        self._poll_at = max(poll_at, rest_until)
                    until = min(
                        changes_at, self._poll_at, self._retry_at if self._lacking else math.inf
                    )
                    await self._listen(connection, pushes, delivery, until)
                    if self._heard and (rest := rest_until - time.monotonic()) > 0:
                        await asyncio.sleep(rest)
            except asyncio.CancelledError:
                await self._sync.leave(connection)
                raise

    @asynccontextmanager
    async def _following(self, pushes: RedisConnection) -> AsyncIterator[None]:
        """Follow the server of the switch, unless it hung up on that; then the polls must do."""
        async with AsyncExitStack() as stack:
            if _FOLLOW not in self._lacking:
                tried, self._trying = self._trying, _FOLLOW
                await stack.enter_async_context(
                    self._server.follow(pushes, self._move, every=self._ttl)
                )
                self._trying = tried
            yield

    async def _wait_for_writes(self) -> None:
        """End the pause, in which there are only reads, once the server answers a write.

        A write that waits holds up all that is sent on its connection after it, so that it needs
        one of its own.
        """
        while self._is_paused:
            with suppress(RedisError, OSError, BackendError):
                opened = await self._server.connect(timeout=self._ttl, protocol=2)
                within = _WRITE_TIMEOUT * self._ttl
                async with RedisConnection(opened, within=within) as connection:
                    await connection.call(self._change_nothing)
                self._is_paused, self._poll_at = False, 0.0
                self._hear()
                return
            await asyncio.sleep(self._ttl)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[RedisConnection, RedisConnection, Delivery]]:
        """Open a connection for commands and one for pushes; with RESP3 it is one for both."""
        async with AsyncExitStack() as stack:
            try:
                opened = await self._connect(protocol=3)
                connection = pushes = await stack.enter_async_context(opened)
                delivery = await self._track_on(connection)
            except ResponseError:
                # No RESP3. RESP2 lets a subscribed connection do nothing else, so the message needs
                # one of its own.
                await stack.aclose()
                connection = await stack.enter_async_context(await self._connect(protocol=2))
                pushes = await stack.enter_async_context(await self._connect(protocol=2))
                if _CLIENT not in self._lacking:
                    self._trying = _CLIENT
                    for each in (connection, pushes):
                        await each.call(self._greeting)
                delivery = await self._subscribe_on(pushes)
            yield connection, pushes, delivery

    async def _track_on(self, connection: RedisConnection) -> Delivery:
        if _CLIENT in self._lacking:
            return await self._subscribe_on(connection, resp3=True)
        self._trying = _CLIENT
        _, tracked = await connection.call(self._greeting, _TRACK)
        if isinstance(tracked, Exception):
            return await self._subscribe_on(connection, resp3=True)
        return Delivery.TRACKING

    async def _subscribe_on(self, connection: RedisConnection, *, resp3: bool = False) -> Delivery:
        """Subscribe to the changes of this package if the server refuses tracking."""
        if _SUBSCRIBE in self._lacking:
            return Delivery.POLLING
        self._trying = _SUBSCRIBE
        replies = await connection.call(self._subscribe, *([self._look] if resp3 else []))
        if _CONFINED in str(replies[-1]):  # half of RESP3, as fakeredis has
            raise ResponseError(str(replies[-1]))
        return Delivery.POLLING if isinstance(replies[0], Exception) else Delivery.MESSAGE

    async def _connect(self, *, protocol: int) -> RedisConnection:
        if protocol == 3:
            if _HELLO in self._lacking:
                raise ResponseError("the server hangs up on HELLO")
            self._trying = _HELLO
        opened = await self._server.connect(timeout=self._ttl, protocol=protocol)
        return RedisConnection(opened, self._hear, within=self._deadline)

    async def _sync_on(
        self, connection: RedisConnection, delivery: Delivery, *, polls: bool
    ) -> tuple[Delivery, float]:
        """Poll, or only read; what is pushed meanwhile causes one more.

        Says the delivery, lower if arming was refused, and the next time.
        """
        self._heard = False
        arm = delivery is Delivery.TRACKING
        armed, changes_at = await (
            self._sync.poll(connection, arm=arm, delivery=delivery)
            if polls
            else self._sync.read(connection, arm=arm, looks=self._is_paused)
        )
        if arm and not armed:
            delivery = await self._subscribe_on(connection, resp3=True)
        self._trying = ""
        if delivery is Delivery.TRACKING:
            self._lacked = 0
        if self._sync.is_due:
            self._report_soon()
        self._settle(delivery)
        return delivery, changes_at

    async def _listen(
        self, connection: RedisConnection, pushes: RedisConnection, delivery: Delivery, until: float
    ) -> None:
        """Wait for a push or for `until`.

        Meanwhile report what has been applied. A connection that only hears messages is checked by
        a PING after each silent `ttl`; any other by the polls.
        """
        while not self._heard and (now := time.monotonic()) < until:
            ping_at = math.inf if pushes is connection else pushes.last_received_at + self._ttl
            if now >= self._report_at:
                self._report_at = math.inf
                if not self._is_paused:
                    await self._sync.report(connection, delivery)
            elif now >= ping_at:
                await pushes.call(("PING",))
            else:
                self._woken = self._loop.create_future()
                delay = min(until, ping_at, self._report_at) - now
                timer = self._loop.call_later(delay, self._wake)
                try:
                    await self._woken
                finally:
                    timer.cancel()

    def _wake(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)

    def _hear(self) -> None:
        """Read again: something was pushed, or the connection has ended."""
        self._heard = True
        self._sync.disarm()
        self._wake()

    def _look_soon(self) -> None:
        if self._sync.find_components():
            self._hear()
        else:
            self._report_soon()

    def _report_soon(self) -> None:
        """Report before the next poll, as a barrier may wait; after the workers that still read."""
        if self._report_at == math.inf:
            self._report_at = time.monotonic() + random.uniform(0, _COURTESY)
            self._wake()

    def _move(self) -> None:
        self._moved = True
        self._hear()

    def _settle(self, delivery: Delivery) -> None:
        if delivery is self._delivery:
            return
        self._delivery = delivery
        if delivery is not Delivery.DOWN:
            backend = self._server.describe()
            logger.info(
                "link to %s: %s",
                backend,
                delivery,
                extra=log_fields("link", delivery=str(delivery), backend=backend),
            )
