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
from typing import Any, Final, Self, get_args

from starlette.types import Scope

from ._changes import ChangeLog
from ._clients import Proxies
from ._closings import Closings
from ._fallbacks import Fallbacks
from ._fields import fields
from ._guests import Guests
from ._seconds import at_least_zero, positive
from .backends import BaseStateBackend
from .backends.base import WorkerRegistry, as_backend_error
from .bypass import Bypass
from .exceptions import BackendError, ConfigurationError
from .hooks import Hooks
from .in_flight import InFlight, Standing, current_admission
from .knowledge import Gate, Knowledge, Policy, Unreachable, decreed
from .registry import WAY_AROUND
from .responses import detail
from .snapshot import Reading
from .state import OFF, MaintenanceState
from .types import ChangeHook, ForwardedHeader
from .version import VERSION

__all__ = ["Gate", "MaintenanceMode", "Unreachable", "mode_at_hand", "running_loop"]

logger = logging.getLogger("fastapi_maintenance")

_MAX_UNROUTED: Final = 8
_MAX_PATH: Final = 100  # characters


@dataclass(eq=False)
class _Watch:
    """A running watch on one event loop."""

    loop: asyncio.AbstractEventLoop
    first: asyncio.Event = field(default_factory=asyncio.Event)  # something is known, or cannot be
    news: asyncio.Event = field(default_factory=asyncio.Event)  # the fallbacks have something to do
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # the hooks have, too
    turned: asyncio.Event = field(default_factory=asyncio.Event)  # and so has the one that is called once for all workers
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
    `close_websockets` seconds after a closing, open WebSockets are closed with code 1012; None lets them be. `close_streams`
    seconds after it, responses without a Content-Length that are still being sent are ended: the application sees an ordinary
    disconnect, the client an ordinary end.
    `trusted_proxies` are the networks whose X-Forwarded-For or, with `forwarded="forwarded"`, whose Forwarded (RFC 7239) counts where
    a state's `allow` names a network.
    `bypass` lets those through who have a token that the switch names.
    `on_change(old, new, source)` is called in each worker for each change, in order; `on_change_once` in one of all workers that
    share the backend, at least once. Both may be sync or async, never delay a request, and need the lifespan.
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
        close_streams: float | None = None,
        trusted_proxies: str | Sequence[str] = (),
        forwarded: ForwardedHeader = "x-forwarded-for",
        bypass: Bypass | None = None,
        on_change: ChangeHook | None = None,
        on_change_once: ChangeHook | None = None,
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
        given = {"websocket": ("close_websockets", close_websockets), "http": ("close_streams", close_streams)}
        self._grace = {kind: at_least_zero(name, value) for kind, (name, value) in given.items() if value is not None}
        self.guests = Guests(self.now, Proxies(trusted_proxies, forwarded), bypass)
        if self.stale_after < 1.5 * backend.ttl:
            raise ConfigurationError(
                f"stale_after must be at least 1.5 ttl, {1.5 * backend.ttl:g} s here: a healthy worker's knowledge is up to 1.2 ttl old."
            )
        self._fallbacks = Fallbacks(fallback)
        self._peeks = _can_be_asked_always(backend)
        self.knowledge = Knowledge(
            Policy(
                kind=backend.kind,
                enable_maintenance=enable_maintenance,
                on_unreachable=on_unreachable,
                stale_after=self.stale_after,
                ttl=backend.ttl,
                counts_from_registering=isinstance(backend, WorkerRegistry),
                asks_always=self._peeks,
            )
        )
        self._started = time.time()
        self._lock = threading.RLock()
        self._watches: dict[asyncio.AbstractEventLoop, _Watch] = {}
        self._closings = Closings()
        self.scopes: frozenset[str] = frozenset()
        self._log = ChangeLog(backend.describe())
        self._hooks = Hooks(self, on_change, on_change_once)
        self._decreed: MaintenanceState | None = None
        self.refused = 0  # requests, so far
        self.unrouted: tuple[str, ...] = ()  # paths that were answered without a route while closed
        self.propagation: float | None = None  # seconds from the last change that says when it was made
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
        loop = running_loop()
        if self.knowledge.begun_at == -math.inf:
            self.knowledge.begun_at = time.monotonic()
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
        if self._decreed is not None:
            return self.judge()
        if self._peeks:
            reading = self._peek()
            if reading is not None and reading is not self.knowledge.reading:
                self.update(reading, time.monotonic())
            elif time.monotonic() < self.knowledge.changes_at:
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
                tasks.create_task(self._hooks.serve(watch.changed))
                tasks.create_task(self._hooks.serve_once(watch.turned))
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
            if self.knowledge.known is None:
                await self._consult(watch)
            else:
                await self._fallbacks.mirror(self.knowledge.lasting(time.monotonic()))

    async def _clear_out(self, watch: _Watch, tasks: asyncio.TaskGroup) -> None:
        """After a closing, find out whom to wait for, and send the WebSockets away that need not be waited for long."""
        while True:
            await watch.closed.wait()
            watch.closed.clear()
            if self._standing_of is not None:
                await self.in_flight.classify(self._standing_of)
            self.in_flight_changed()
            for kind, after in self._grace.items():
                tasks.create_task(self._evict(kind, after, time.monotonic()))

    async def _evict(self, kind: str, after: float, began: float) -> None:
        await asyncio.sleep(after)
        gate = self.gate
        # All at once: what is sent to a client that reads nothing may wait until the server gives it up.
        await asyncio.gather(
            *(
                admission.evict(detail(closing.state))
                for admission in self.in_flight.concerned_by(gate)
                if admission.scope["type"] == kind
                and admission.evict
                and not admission.holding
                and (closing := self._closings.since_before(began, gate, admission.belongs_to))
            )
        )

    async def _consult(self, watch: _Watch) -> None:
        await self._fallbacks.consult()
        self.judge()
        watch.first.set()

    # -- feed: what the backend delivers, from any thread ----------------------------------------------------------------

    def update(self, reading: Reading, at: float) -> None:
        """Take a reading in, unless what is known is newer: learned while this one was on its way, and read later."""
        with self._lock:
            known, before = self.knowledge.reading, self.gate
            if not self.knowledge.learn(reading, at, time.monotonic()):
                return
            self._log.answered(reading)
            changed = self.judge().closing is not before.closing
            if changed and known is not None and reading.epoch > known.epoch:
                # The epoch is when it was written, on Redis' clock; a bare SET leaves none.
                self.propagation = max(0.0, self.now().timestamp() - reading.epoch / 1e6)
        for watch in list(self._watches.values()):
            watch.tell(watch.first, watch.news)

    def confirm(self, at: float) -> None:
        """What was delivered last still held at that time."""
        with self._lock:
            self.knowledge.confirm(at)
            self.judge()

    def fail(self, error: BackendError) -> None:
        """Note that the backend cannot be read just now."""
        with self._lock:
            what = "the last known state stays" if self.knowledge.known else "no state was ever known, asking the fallbacks"
            self._log.failed(f"{error}; {what}, on_unreachable={self.on_unreachable}")
        if self.knowledge.known is None:
            for watch in list(self._watches.values()):
                watch.tell(watch.news)

    def report(self) -> Mapping[str, Any]:
        """What this worker says of itself in the registry."""
        reading, gate = self.knowledge.reading, self.gate
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
            "version": VERSION,
            "applied": "" if reading is None else reading.fingerprint,
            "epoch": 0 if reading is None else reading.epoch,
            **self._standing(gate),
            "scopes": {name: self._standing(gate, name) for name in sorted(self.scopes)},
            "fence": self.stale_after if self.on_unreachable == "closed" else None,
            "unrouted": self.unrouted,
        }

    def _standing(self, gate: Gate, scope: str | None = None) -> dict[str, Any]:
        http, websockets = self.in_flight.count(gate, scope)
        closed = gate.of(scope).closing is not None
        return {"closed": closed, "drained": self.in_flight.is_drained(gate, scope), "http": http, "websockets": websockets}

    # -- scopes --------------------------------------------------------------------------------------------------------

    def follow_scopes(self, names: frozenset[str]) -> None:
        """Know of these scopes too, which this application's routes belong to. Raises `ConfigurationError` where they cannot be had."""
        if not names <= self.scopes:
            self.backend.follow_scopes(names)
            self.scopes |= names

    # -- requests in flight --------------------------------------------------------------------------------------------

    def classify_with(self, standing_of: Callable[[Scope], Awaitable[Standing]]) -> None:
        """Say how to find out what the precedence table asks of a request that was let in unasked."""
        self._standing_of = standing_of

    def note_unrouted(self, path: str) -> None:
        """Log and report, once for each path, that the application answered it without a route while it was closed."""
        path = path.encode("unicode_escape").decode()[:_MAX_PATH]
        if path not in self.unrouted and len(self.unrouted) < _MAX_UNROUTED:
            self.unrouted += (path,)
            logger.warning("%s %s", path, WAY_AROUND, extra=fields("unrouted", path=path))

    def in_flight_changed(self) -> None:
        """Let those who wait for this worker to drain know at once, if it has."""
        gate = self.gate
        if any(self.in_flight.is_drained(gate, scope) for scope in (None, *gate.scopes)):
            self.backend.nudge()

    def now(self) -> datetime:
        """The time on the clock that windows and leases are judged by."""
        return datetime.fromtimestamp(self.knowledge.backend_time(time.monotonic()), UTC)

    def confirmed_time(self) -> float:
        """When what is known was last known to be so, in seconds on that clock."""
        return self.knowledge.backend_time(self.knowledge.fresh_at)

    # -- what follows from it ------------------------------------------------------------------------------------------

    def decree(self, state: MaintenanceState | None) -> MaintenanceState | None:
        """Go by this state alone from now on, whatever is known and said elsewhere; by what is known again with None.

        Returns what was decreed before.
        """
        with self._lock:
            before, self._decreed = self._decreed, state
            gate = self.judge()
            if state is None:
                self.gate = replace(gate, until=-math.inf)  # whatever is known by now, the next request looks
        return before

    def judge(self) -> Gate:
        """Make the gate anew from what is known now."""
        with self._lock:
            before = self.gate
            fallback, source = self._fallbacks.reading, self._fallbacks.source
            if self._decreed is not None:
                gate = decreed(self._decreed, time.monotonic(), time.time())
            else:
                gate = self.knowledge.judge(time.monotonic(), fallback, source, watched=bool(self._watches))
            gate = _with_known_objects(gate, before)
            changed = gate.closing is not before.closing or gate.scopes is not before.scopes
            if changed:
                self._closings.note(gate, before, time.monotonic())
                problems = self.guests.arrange(gate)
            self.gate = gate
            if changed:
                self._hooks.note(before.closing, gate.closing, gate.source)  # within the lock, for their order counts
        if changed:
            self._log.changed(gate, before, problems)
            for watch in list(self._watches.values()):
                watch.tell(watch.changed, watch.turned, *([] if gate.is_open else [watch.closed]))
        return gate


def _with_known_objects(gate: Gate, before: Gate) -> Gate:
    """The same gate, with what is equal as the same object: so that its answer stays encoded."""
    closing = before.closing if gate.closing == before.closing else gate.closing
    if gate.scopes == before.scopes:
        return replace(gate, closing=closing, scopes=before.scopes)
    kept = {name: before.scopes[name] for name, verdict in gate.scopes.items() if before.scopes.get(name) == verdict}
    return replace(gate, closing=closing, scopes={**gate.scopes, **kept})


def _can_be_asked_always(backend: BaseStateBackend) -> bool:
    try:
        return backend.peek() is not None
    except Exception:  # it can, only not just now
        return True


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop. Raises `ConfigurationError` under trio and where there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "The event loop must be asyncio's, got none or another kind. Run the server on asyncio; "
            "with hypercorn, by --worker-class asyncio."
        ) from None


def mode_at_hand() -> MaintenanceMode | None:
    """That of the application whose request or lifespan the code runs in."""
    admission = current_admission.get()
    return None if admission is None else admission.mode
