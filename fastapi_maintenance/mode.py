"""MaintenanceMode: what one application knows of its backend, kept right, and what follows from it."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, Self, get_args

from starlette.types import Scope

from ._fallbacks import Fallbacks
from ._policy import Closing, closing
from .backends import BaseStateBackend
from .backends.base import WorkerRegistry, as_backend_error, at_least_zero, positive
from .exceptions import BackendError, ConfigurationError
from .in_flight import InFlight, Standing, current_admission
from .responses import DETAIL
from .snapshot import Effective, Reading, evaluate, fill_gaps, steady
from .state import OFF, MaintenanceState
from .version import VERSION

__all__ = ["Gate", "MaintenanceMode", "Unreachable", "mode_at_hand"]

logger = logging.getLogger("fastapi_maintenance")

Unreachable = Literal["last-known", "open", "closed"]

_FENCED: Final = MaintenanceState(enabled=True, reason="The backend cannot be reached, and on_unreachable is 'closed'.")


@dataclass(frozen=True, slots=True)
class Gate:
    """What a worker goes by: whether it is closed and by which rule, what the state is and where that comes from.

    It may say so until `until`, a local monotonic time; then it must be judged again.
    """

    closing: Closing | None
    state: MaintenanceState
    source: str
    until: float


@dataclass(eq=False)
class _Watch:
    """A running watch on one event loop."""

    loop: asyncio.AbstractEventLoop
    first: asyncio.Event = field(default_factory=asyncio.Event)  # something is known, or cannot be
    news: asyncio.Event = field(default_factory=asyncio.Event)  # the fallbacks have something to do
    closed: asyncio.Event = field(default_factory=asyncio.Event)  # the gate has closed, or closed otherwise
    task: asyncio.Task[None] | None = None

    def tell(self, *events: asyncio.Event) -> None:
        """Set events of this loop, from any thread."""
        for event in events:
            if not event.is_set():
                with suppress(RuntimeError):  # the loop was closed without ending its tasks
                    self.loop.call_soon_threadsafe(event.set)


class MaintenanceMode:
    """Owns a backend and the snapshot of it. `async with` it for as long as the application lives.

    `enable_maintenance` overrides the switch, but no hold. While the backend does not answer, the last known state
    stays; `stale_after` seconds (default 2 `ttl`) after it was last confirmed, `on_unreachable` decides: "last-known"
    keeps it, "open" lets everything through, "closed" nothing. Where no state was ever known, the `fallback` backends
    or URLs are asked, then the environment variable. A file among them is kept a copy of every confirmed state.
    `close_websockets` seconds after a closing, open WebSockets are closed with code 1012; None lets them be.
    Raises `ConfigurationError` for options that cannot be meant.
    """

    def __init__(
        self,
        backend: BaseStateBackend,
        *,
        enable_maintenance: bool | None = None,
        fallback: str | BaseStateBackend | Sequence[str | BaseStateBackend] = (),
        on_unreachable: Unreachable = "last-known",
        stale_after: float | None = None,
        close_websockets: float | None = None,
    ) -> None:
        if on_unreachable not in get_args(Unreachable):
            raise ConfigurationError(f"on_unreachable must be one of {', '.join(get_args(Unreachable))}, not {on_unreachable!r}.")
        if enable_maintenance not in (None, True, False):
            raise ConfigurationError(f"enable_maintenance must be True, False or None, not {enable_maintenance!r}.")
        self.backend = backend
        self.enable_maintenance = enable_maintenance
        self.on_unreachable = on_unreachable
        self.stale_after = positive("stale_after", 2 * backend.ttl if stale_after is None else stale_after)
        self.in_flight = InFlight()
        self._standing_of: Callable[[Scope], Awaitable[Standing]] | None = None
        self._close_websockets = close_websockets if close_websockets is None else at_least_zero("close_websockets", close_websockets)
        if self.stale_after < 1.5 * backend.ttl:
            raise ConfigurationError(
                f"stale_after must be at least 1.5 ttl, {1.5 * backend.ttl:g} s here: a healthy worker's knowledge is up to 1.2 ttl old."
            )
        self._fallbacks = Fallbacks(fallback)
        self._begun_at = -math.inf  # when anybody first wanted to know
        self._started = time.time()
        self._lock = threading.RLock()
        self._watches: dict[asyncio.AbstractEventLoop, _Watch] = {}
        self._reading: Reading | None = None
        self._learned_at = -math.inf

        self._fresh_at = -math.inf
        self._registered_at = -math.inf
        self._clock_offset = 0.0  # the backend's clock less our monotonic one
        self._changes_at = -math.inf
        self._failing = False
        self._problem = ""
        self._peeks = backend.peek() is not None
        self.gate = Gate(None, OFF, "default", -math.inf)
        backend.attach(self)

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Watch the backend on this event loop, and wait until something is known, at most `ttl` seconds."""
        loop = asyncio.get_running_loop()
        if self._begun_at == -math.inf:
            self._begun_at = time.monotonic()
        watch = self._watches.get(loop)
        if watch is None or watch.task is None or watch.task.done():
            for other in list(self._watches):
                if other.is_closed():  # without ending its tasks
                    self._watches.pop(other, None)
            watch = self._watches[loop] = _Watch(loop)
            watch.task = loop.create_task(self._watch(watch), name="fastapi_maintenance watch")
        if not watch.first.is_set():
            try:
                async with asyncio.timeout(self.backend.ttl):
                    await watch.first.wait()
            except TimeoutError:
                await self._consult(watch)

    async def stop(self) -> None:
        """Stop watching on this event loop."""
        watch = self._watches.pop(asyncio.get_running_loop(), None)
        if watch is not None and watch.task is not None:
            watch.task.cancel()
            await asyncio.wait([watch.task])

    async def refresh(self) -> Gate:
        """The gate as of now: without I/O where a watch runs on this event loop; else after starting one."""
        if self._peeks:
            reading = self._peek()
            if reading is not None and reading is not self._reading:
                self.update(reading, time.monotonic())
            elif time.monotonic() < self._changes_at:
                return self.gate
        else:
            await self.start()
        return self.judge()

    def _peek(self) -> Reading | None:
        try:
            return self.backend.peek()
        except Exception as error:  # a backend of a user's own may raise anything; no request may fail because of it
            self.fail(as_backend_error(error, self.backend))
            return None

    async def _watch(self, watch: _Watch) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_backend())
                tasks.create_task(self._serve_fallbacks(watch))
                tasks.create_task(self._clear_out(watch, tasks))
        finally:
            # Nobody confirms any more what the gate says: from now on it is a cached read.
            if self._watches.get(watch.loop) is watch:
                del self._watches[watch.loop]
            self.judge()

    async def _watch_backend(self) -> None:
        while True:
            try:
                await self.backend.watch(self)
            except Exception as error:  # a backend of a user's own may raise anything; none of it may end the application
                self.fail(as_backend_error(error, self.backend))
            await asyncio.sleep(self.backend.ttl)

    async def _serve_fallbacks(self, watch: _Watch) -> None:
        while True:
            await watch.news.wait()
            watch.news.clear()
            if self._known is None:
                await self._consult(watch)
            else:
                await self._fallbacks.mirror(self._lasting())

    async def _clear_out(self, watch: _Watch, tasks: asyncio.TaskGroup) -> None:
        """After a closing, find out whom to wait for, and send the WebSockets away that need not be waited for long."""
        while True:
            await watch.closed.wait()
            watch.closed.clear()
            if self._standing_of is not None:
                await self.in_flight.classify(self._standing_of)
            self.in_flight_changed()
            if self._close_websockets is not None:
                tasks.create_task(self._evict(self._close_websockets))

    async def _evict(self, after: float) -> None:
        await asyncio.sleep(after)
        if (closing := self.gate.closing) is not None:
            for admission in self.in_flight.concerned_by(closing):
                if admission.evict is not None:
                    await admission.evict(closing.state.message or DETAIL)

    async def _consult(self, watch: _Watch) -> None:
        await self._fallbacks.consult()
        self.judge()
        watch.first.set()

    # -- feed: what the backend delivers, from any thread ----------------------------------------------------------------

    def update(self, reading: Reading, at: float) -> None:
        """Take a reading in, unless what is known is newer: learned while this one was on its way, and read later."""
        with self._lock:
            old, arrived_at = self._reading, time.monotonic()
            if old is not None and at < self._learned_at and reading.now < old.now:
                return
            self._clock_offset = reading.now - (at + arrived_at) / 2
            self._reading = steady(fill_gaps(reading, old), old)
            self._learned_at = arrived_at
            self._fresh_at = max(self._fresh_at, at)
            if reading.registered:
                self._registered_at = max(self._registered_at, at)
            self._hear(reading.error)
            self.judge()
        for watch in list(self._watches.values()):
            watch.tell(watch.first, watch.news)

    def confirm(self, at: float) -> None:
        """What was delivered last still held at that time."""
        with self._lock:
            self._fresh_at = max(self._fresh_at, at)
            self.judge()

    def fail(self, error: BackendError) -> None:
        """Note that the backend cannot be read just now."""
        with self._lock:
            failing, self._failing = self._failing, True
        if not failing:
            what = "the last known state stays" if self._known else "no state was ever known, asking the fallbacks"
            logger.warning("%s; %s, on_unreachable=%s", error, what, self.on_unreachable)
        if self._known is None:
            for watch in list(self._watches.values()):
                watch.tell(watch.news)

    def report(self) -> Mapping[str, Any]:
        """What this worker says of itself in the registry."""
        reading, closing = self._reading, self.gate.closing
        http, websockets = self.in_flight.count(closing)
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
            "version": VERSION,
            "applied": "" if reading is None else reading.fingerprint,
            "epoch": 0 if reading is None else reading.epoch,
            "closed": closing is not None,
            "drained": self.in_flight.is_drained(closing),
            "http": http,
            "websockets": websockets,
            "fence": self.stale_after if self.on_unreachable == "closed" else None,
        }

    # -- requests in flight --------------------------------------------------------------------------------------------

    def classify_with(self, standing_of: Callable[[Scope], Awaitable[Standing]]) -> None:
        """Say how to find out what the precedence table asks of a request that was let in unasked."""
        self._standing_of = standing_of

    def in_flight_changed(self) -> None:
        """Let those who wait for this worker to drain know at once, if it has."""
        if self.in_flight.is_drained(self.gate.closing):
            self.backend.nudge()

    def _hear(self, problem: str | None) -> None:
        """Log what changed about the backend's readability, once."""
        if self._failing:
            self._failing = False
            logger.info("%s answers again", self.backend.describe())
        if problem and problem != self._problem:
            logger.error("%s: %s The last known state stays.", self.backend.describe(), problem)
        self._problem = problem or ""

    def now(self) -> datetime:
        """The time on the clock that windows and leases are judged by."""
        return datetime.fromtimestamp(time.monotonic() + self._clock_offset if self._known else time.time(), UTC)

    # -- what follows from it ------------------------------------------------------------------------------------------

    def judge(self) -> Gate:
        """Make the gate anew from what is known now."""
        with self._lock:
            before, gate = self.gate, self._make_gate(time.monotonic())
            if unchanged := gate.closing == before.closing:
                gate = replace(gate, closing=before.closing)  # the same object, so that its answer stays encoded
            self.gate = gate
        if not unchanged:
            _log_change(gate)
            if gate.closing is not None:
                for watch in list(self._watches.values()):
                    watch.tell(watch.closed)
        return gate

    def _make_gate(self, now: float) -> Gate:
        since = self._confirmed_at(now)
        fresh = self._peeks or now - since <= self.stale_after
        effective, backend_now, source = self._effective(now, fresh=fresh)
        self._changes_at = now + effective.until - backend_now
        if not fresh and self.on_unreachable != "last-known":
            hold = _FENCED if self.on_unreachable == "closed" else None
            refusal = closing(hold, self.enable_maintenance, OFF)
            return Gate(refusal, hold or OFF, f"unreachable-{self.on_unreachable}", self._horizon(now))
        refusal = closing(effective.hold, self.enable_maintenance, effective.switch)
        horizon = self._horizon(since) if fresh else self._horizon(now)
        source = source if fresh or self._known is None else "last-known"
        return Gate(refusal, effective.state, source, min(self._changes_at, horizon))

    def _confirmed_at(self, now: float) -> float:
        """From when on staleness counts."""
        if self.on_unreachable == "closed":
            # A fence must hold against the registry: it counts from where Redis began to count, and a worker that the
            # registry has never heard of is fenced from the start.
            return self._registered_at if isinstance(self.backend, WorkerRegistry) else self._fresh_at
        since = max(self._fresh_at, self._begun_at)
        return now if since == -math.inf else since

    def _horizon(self, since: float) -> float:
        """Until when a gate may speak that was confirmed, or judged without confirmation, at that time."""
        if self._peeks:
            return -math.inf  # asked at every request
        return since + (self.stale_after if self._watches else self.backend.ttl)

    def _effective(self, now: float, *, fresh: bool) -> tuple[Effective, float, str]:
        """What is known, else what a fallback knows, else off; on whose clock; and where it comes from."""
        if (known := self._known) is not None:
            backend_now, source = now + self._clock_offset, self.backend.kind
            if not fresh:
                known = _unending(known, self._fresh_at + self._clock_offset)
            return evaluate(known, backend_now), backend_now, source
        backend_now = time.time()
        reading = self._fallbacks.reading or Reading()
        if self._reading is not None:  # its switch is unreadable, its holds are not
            reading = replace(reading, holds=self._reading.holds)
        return evaluate(reading, backend_now), backend_now, self._fallbacks.source

    @property
    def _known(self) -> Reading | None:
        reading = self._reading
        return None if reading is None or reading.switch is None else reading

    def _lasting(self) -> MaintenanceState:
        """The state as a file can keep it: a standing hold, or the switch with its window and time to live."""
        reading, now = self._known or Reading(), time.monotonic() + self._clock_offset
        switch = reading.switch or OFF
        if (hold := evaluate(reading, now).hold) is not None:
            return hold
        if reading.expires_in is None:
            return switch
        # As it will be when its window begins: with the end that its time to live is.
        begins = now if switch.starts_at is None else switch.starts_at.timestamp()
        return evaluate(reading, max(now, begins)).switch


def _unending(reading: Reading, confirmed_at: float) -> Reading:
    """Without an end to the on holds that stood when last confirmed: whoever cannot see them renewed must not open under them."""
    holds = (
        replace(hold, deadline=math.inf) if hold.state.enabled and confirmed_at < hold.deadline else hold for hold in reading.holds or ()
    )
    return replace(reading, holds=tuple(holds))


def mode_at_hand() -> MaintenanceMode | None:
    """That of the application whose request or lifespan the code runs in."""
    admission = current_admission.get()
    return None if admission is None else admission.mode


def _log_change(gate: Gate) -> None:
    if gate.closing is None:
        logger.info("maintenance off (%s)", gate.source)
        return
    state = gate.state
    details = "".join(f", {name}: {value}" for name, value in (("by", state.by), ("reason", state.reason)) if value)
    logger.info("maintenance on (%s, %s%s)", state.mode, gate.source, details)
