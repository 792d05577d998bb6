"""Runtime state of one application: watches the backend, caches its snapshot, and derives the gate."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Self, get_args

from .._internal.logging import log_fields
from .._internal.validation import positive
from .._internal.version import VERSION
from ..backends import BaseStateBackend
from ..backends.base import WorkerRegistry, as_backend_error
from ..exceptions import BackendError, ConfigurationError
from ..exemptions.bypass import Bypass
from ..exemptions.granted import GrantedExemptions
from ..exemptions.proxies import ForwardedHeader, Proxies
from ..model.snapshot import Snapshot
from ..model.state import OFF, MaintenanceState
from ..model.workers import WAY_AROUND
from .cache import OutagePolicy, SnapshotCache, StalenessPolicy
from .change_log import ChangeLog
from .eviction import Evictor
from .fallbacks import Fallbacks
from .gate import Gate, overridden
from .hooks import ChangeHook, ChangeHooks
from .requests import InFlightRequest, InFlightRequests
from .watches import Watch, Watches

__all__ = ["MaintenanceMode"]

logger = logging.getLogger("fastapi_maintenance")


_MAX_UNROUTED: Final = 8


_MAX_PATH: Final = 100  # characters


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
    `classifier` finds the route of a request that was let in while the service was open, and whether the request is exempt.
    Raises `ConfigurationError` for invalid options.
    """

    def __init__(
        self,
        backend: BaseStateBackend,
        *,
        enable_maintenance: bool | None = None,
        fallback: str | BaseStateBackend | Sequence[str | BaseStateBackend] = (),
        on_unreachable: OutagePolicy = "last-known",
        stale_after: float | None = None,
        close_websockets: float | None = None,
        close_streams: float | None = None,
        trusted_proxies: str | Sequence[str] = (),
        forwarded: ForwardedHeader = "x-forwarded-for",
        bypass: Bypass | None = None,
        on_change: ChangeHook | None = None,
        on_change_once: ChangeHook | None = None,
        classifier: Callable[[InFlightRequest], Awaitable[None]] | None = None,
    ) -> None:
        if on_unreachable not in get_args(OutagePolicy):
            raise ConfigurationError(
                f"on_unreachable must be one of {', '.join(get_args(OutagePolicy))}, not {on_unreachable!r}."
            )
        if enable_maintenance not in (None, True, False):
            raise ConfigurationError(
                f"enable_maintenance must be True, False or None, not {enable_maintenance!r}."
            )
        self.backend = backend
        self.enable_maintenance = enable_maintenance
        self.on_unreachable = on_unreachable
        self.stale_after = positive(
            "stale_after", 2 * backend.ttl if stale_after is None else stale_after
        )
        self.in_flight = InFlightRequests()
        self._classifier = classifier
        self._evictor = Evictor(close_websockets=close_websockets, close_streams=close_streams)
        self.granted = GrantedExemptions(self.now, Proxies(trusted_proxies, forwarded), bypass)
        self.is_exempt = self.granted.allows
        if self.stale_after < 1.5 * backend.ttl:
            raise ConfigurationError(
                f"stale_after must be at least 1.5 ttl, {1.5 * backend.ttl:g} s here: a healthy worker's knowledge is up to 1.2 ttl old."
            )
        self._fallbacks = Fallbacks(fallback)
        self._peeks = _can_be_asked_always(backend)
        self.cache = SnapshotCache(
            StalenessPolicy(
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
        self._watches = Watches()
        self.components: frozenset[str] = frozenset()
        self._log = ChangeLog(backend.describe())
        self._hooks = ChangeHooks(on_change, on_change_once)
        self._decreed: MaintenanceState | None = None
        self.refused_total = 0  # requests, so far
        self.unrouted: tuple[str, ...] = ()  # paths that were answered without a route while closed
        self.propagation: float | None = (
            None  # seconds from the last change that says when it was made
        )
        self.gate = Gate(None, OFF, "default", -math.inf)
        backend.subscribe(self)

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Watch the backend on this event loop, and wait until something is known, at most `ttl` seconds."""
        if self.cache.begun_at == -math.inf:
            self.cache.begun_at = time.monotonic()
        watch = self._watches.on_this_loop(self._watch)
        if not watch.ready.is_set():
            try:
                async with asyncio.timeout(self.backend.ttl):
                    await watch.ready.wait()
            except TimeoutError:
                await self._consult(watch)

    async def stop(self) -> None:
        """Stop watching on this event loop."""
        await self._watches.stop()

    async def refresh(self) -> Gate:
        """The gate as of now: without I/O where a watch runs on this event loop; else after starting one."""
        if self._decreed is not None:
            return self.judge()
        if self._peeks:
            reading = self._peek()
            if reading is not None and reading is not self.cache.reading:
                self.update(reading, time.monotonic())
            elif time.monotonic() < self.cache.changes_at:
                return self.gate
        else:
            await self.start()
        return self.judge()

    def _peek(self) -> Snapshot | None:
        try:
            return self.backend.read_nowait()
        except Exception as error:  # a backend of a user's own may raise anything; no request may fail because of it
            self.fail(as_backend_error(error, self.backend))
            return None

    async def _watch(self, watch: Watch) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_backend())
                tasks.create_task(self._serve_fallbacks(watch))
                tasks.create_task(self._follow_closings(watch, tasks))
                if self._hooks.on_change is not None:
                    tasks.create_task(self._run_on_change(watch.on_change))
                if self._hooks.on_change_once is not None:
                    tasks.create_task(self._run_on_change_once(watch.on_change_once))
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

    async def _serve_fallbacks(self, watch: Watch) -> None:
        while True:
            await watch.fallbacks.wait()
            watch.fallbacks.clear()
            if self.cache.known is None:
                await self._consult(watch)
            else:
                await self._fallbacks.mirror(self.cache.persistent_state(time.monotonic()))

    async def _follow_closings(self, watch: Watch, tasks: asyncio.TaskGroup) -> None:
        """After a closing, classify the requests in flight, and close WebSockets and streams in time."""
        while True:
            await watch.closed.wait()
            watch.closed.clear()
            if self._classifier is not None:
                await self.in_flight.classify(self._classifier)
            self.drain_progressed()
            self._evictor.start(tasks, self.in_flight, lambda: self.gate)

    async def _run_on_change(self, changed: asyncio.Event) -> None:
        while True:
            await self._hooks.run()
            await self._pause(changed)

    async def _run_on_change_once(self, changed: asyncio.Event) -> None:
        settled: MaintenanceState | None = None
        while True:
            settled = await self._hooks.run_once(
                settled, self.judge(), self.confirmed_time(), self.backend
            )
            await self._pause(changed)

    async def _pause(self, changed: asyncio.Event) -> None:
        """Wait for a change. Judge every `ttl` meanwhile, because knowledge also grows old where nobody asks."""
        try:
            async with asyncio.timeout(self.backend.ttl):
                await changed.wait()
        except TimeoutError:
            self.judge()
        changed.clear()

    async def _consult(self, watch: Watch) -> None:
        await self._fallbacks.query()
        self.judge()
        watch.ready.set()

    # -- feed: what the backend delivers, from any thread ----------------------------------------------------------------

    def update(self, reading: Snapshot, at: float) -> None:
        """Take a reading in, unless what is known is newer: learned while this one was on its way, and read later."""
        with self._lock:
            known, before = self.cache.reading, self.gate
            if not self.cache.store(reading, at, time.monotonic()):
                return
            self._log.recovered(reading)
            changed = self.judge().closure is not before.closure
            if changed and known is not None and reading.epoch > known.epoch:
                # The epoch is when it was written, on Redis' clock; a bare SET leaves none.
                self.propagation = max(0.0, self.now().timestamp() - reading.epoch / 1e6)
        self._watches.notify("ready", "fallbacks")

    def confirm(self, at: float) -> None:
        """What was delivered last still held at that time."""
        with self._lock:
            self.cache.touch(at)
            self.judge()

    def fail(self, error: BackendError) -> None:
        """Note that the backend cannot be read just now."""
        with self._lock:
            what = (
                "the last known state stays"
                if self.cache.known
                else "no state was ever known, asking the fallbacks"
            )
            self._log.unreachable(f"{error}; {what}, on_unreachable={self.on_unreachable}")
        if self.cache.known is None:
            self._watches.notify("fallbacks")

    def report(self) -> Mapping[str, Any]:
        """What this worker says of itself in the registry."""
        reading, gate = self.cache.reading, self.gate
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
            "version": VERSION,
            "applied": "" if reading is None else reading.fingerprint,
            "epoch": 0 if reading is None else reading.epoch,
            **self._standing(gate),
            "components": {name: self._standing(gate, name) for name in sorted(self.components)},
            "fence": self.stale_after if self.on_unreachable == "closed" else None,
            "unrouted": self.unrouted,
        }

    def _standing(self, gate: Gate, component: str | None = None) -> dict[str, Any]:
        http, websockets = self.in_flight.count(gate, component)
        closed = gate.for_component(component).closure is not None
        return {
            "closed": closed,
            "drained": closed and not http + websockets,
            "http": http,
            "websockets": websockets,
        }

    # -- components --------------------------------------------------------------------------------------------------------

    def follow_components(self, names: frozenset[str]) -> None:
        """Know of these components too, which this application's routes belong to. Raises `ConfigurationError` where they cannot be had."""
        if not names <= self.components:
            self.backend.follow_components(names)
            self.components |= names

    # -- requests in flight --------------------------------------------------------------------------------------------

    def note_unrouted(self, path: str) -> None:
        """Log and report, once for each path, that the application answered it without a route while it was closed."""
        path = path.encode("unicode_escape").decode()[:_MAX_PATH]
        if path not in self.unrouted and len(self.unrouted) < _MAX_UNROUTED:
            self.unrouted += (path,)
            logger.warning("%s %s", path, WAY_AROUND, extra=log_fields("unrouted", path=path))

    @property
    def switch(self) -> str:
        """The description of the backend."""
        return self.backend.describe()

    def drain_progressed(self) -> None:
        """Report at once that a drain has ended, if it has."""
        gate = self.gate
        if any(
            self.in_flight.is_drained(gate, component) for component in (None, *gate.components)
        ):
            self.backend.request_sync()

    def now(self) -> datetime:
        """The time on the clock that windows and leases are judged by."""
        return datetime.fromtimestamp(self.cache.backend_time(time.monotonic()), UTC)

    def confirmed_time(self) -> float:
        """When what is known was last known to be so, in seconds on that clock."""
        return self.cache.backend_time(self.cache.fresh_at)

    # -- what follows from it ------------------------------------------------------------------------------------------

    def override(self, state: MaintenanceState | None) -> MaintenanceState | None:
        """Go by this state alone from now on, whatever is known and said elsewhere; by what is known again with None.

        Returns what was decreed before.
        """
        with self._lock:
            before, self._decreed = self._decreed, state
            gate = self.judge()
            if state is None:
                self.gate = replace(
                    gate, until=-math.inf
                )  # whatever is known by now, the next request looks
        return before

    def judge(self) -> Gate:
        """Make the gate anew from what is known now."""
        with self._lock:
            before = self.gate
            fallback, source = self._fallbacks.reading, self._fallbacks.source
            if self._decreed is not None:
                gate = overridden(self._decreed, time.monotonic(), time.time())
            else:
                gate = self.cache.evaluate_gate(
                    time.monotonic(), fallback, source, watched=bool(self._watches)
                )
            gate = gate.after(before)
            changed = gate.version != before.version
            if changed:
                self._evictor.closed_since.note(gate, before, time.monotonic())
                problems = self.granted.load(gate.closed_states())
            self.gate = gate
            if changed:
                self._hooks.enqueue(
                    before.closure, gate.closure, gate.source
                )  # within the lock, for their order counts
        if changed:
            self._log.changed(gate, before, problems)
            self._watches.notify(
                "on_change", "on_change_once", *([] if gate.is_open else ["closed"])
            )
        return gate


def _can_be_asked_always(backend: BaseStateBackend) -> bool:
    try:
        return backend.read_nowait() is not None
    except Exception:  # it can, only not just now
        return True
