"""The state of one application: watches the backend, caches its snapshot, derives the gate."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Self

from .._internal.logging import log_fields, one_line
from .._internal.validation import positive, require, require_choice
from .._internal.version import VERSION
from ..backends import BaseStateBackend
from ..backends.base import WorkerRegistry, as_backend_error
from ..exceptions import BackendError
from ..exemptions.granted import GrantedExemptions
from ..exemptions.proxies import Proxies
from ..model.snapshot import Snapshot
from ..model.state import OFF, MaintenanceState
from ..model.workers import WAY_AROUND
from .change_log import ChangeLog
from .eviction import Evictor
from .fallbacks import Fallbacks
from .gate import Gate, OutagePolicy, SnapshotCache, StalenessPolicy, overridden
from .hooks import ChangeHooks
from .options import MaintenanceOptions
from .requests import InFlightRequest, InFlightRequests
from .watches import Watch, Watches, running_loop

logger = logging.getLogger("fastapi_maintenance")

_MAX_UNROUTED: Final = 8
_MAX_PATH: Final = 100  # characters


@dataclass(eq=False, repr=False, match_args=False)
class MaintenanceMode(MaintenanceOptions):
    """The maintenance state of one application. Enter it with `async with` for its lifetime.

    `backend` is where the switch is stored. `enable_maintenance` overrides the switch, but no hold.
    `classifier` sets the route of a request that was admitted while the service was open, and
    whether the request is exempt. Raises `ConfigurationError` for an invalid option.
    """

    backend: BaseStateBackend
    enable_maintenance: bool | None = field(default=None, kw_only=True)
    classifier: Callable[[InFlightRequest], Awaitable[None]] | None = field(
        default=None, kw_only=True
    )

    def __post_init__(self) -> None:
        require_choice("on_unreachable", self.on_unreachable, OutagePolicy)
        rule = "enable_maintenance must be True, False or None"
        require(self.enable_maintenance in (None, True, False), rule, self.enable_maintenance)
        backend = self.backend
        stale_after = 2 * backend.ttl if self.stale_after is None else self.stale_after
        # A snapshot of a healthy worker is up to 1.2 ttl old.
        rule = f"stale_after must be at least 1.5 ttl, here {1.5 * backend.ttl:g} s"
        require(positive("stale_after", stale_after) >= 1.5 * backend.ttl, rule, stale_after)
        policy = StalenessPolicy(
            kind=backend.kind,
            enable_maintenance=self.enable_maintenance,
            on_unreachable=self.on_unreachable,
            stale_after=stale_after,
            ttl=backend.ttl,
            counts_from_registering=isinstance(backend, WorkerRegistry),
            asks_always=_can_read_nowait(backend),
        )
        self.cache = SnapshotCache(policy)
        self.requests = InFlightRequests()
        self._evictor = Evictor(self, self.close_websockets, self.close_streams)
        proxies = Proxies(self.trusted_proxies, self.forwarded)
        self.granted = GrantedExemptions(self.now, proxies, self.bypass)
        self._fallbacks = Fallbacks(self.fallback)
        self._started = time.time()
        self._lock = threading.RLock()
        self._watches = Watches()
        self.components: frozenset[str] = frozenset()
        self._log = ChangeLog(backend.describe())
        self._hooks = ChangeHooks(self.on_change, self.on_change_once)
        self._override: MaintenanceState | None = None
        self.refused_total = 0
        self.unrouted: tuple[str, ...] = ()  # paths answered without a route while closed
        self.propagation: float | None = None  # seconds that the last recorded change took
        self.gate = Gate(None, OFF, "default", -math.inf)
        backend.subscribe(self)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Watch the backend on this event loop. Wait at most `ttl` for the first state."""
        if self.cache.begun_at == -math.inf:
            self.cache.begun_at = time.monotonic()
        watch = self._watches.on_this_loop(self._watch)
        if not watch.ready.is_set():
            try:
                async with asyncio.timeout(self.backend.ttl):
                    await watch.ready.wait()
            except TimeoutError:
                await self._query_fallbacks(watch)

    async def stop(self) -> None:
        """Stop watching on this event loop."""
        await self._watches.stop()

    async def _watch(self, watch: Watch) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_backend())
                tasks.create_task(self._keep_time(watch))
                tasks.create_task(self._follow_fallbacks(watch))
                tasks.create_task(self._follow_closings(watch, tasks))
                if self.on_change is not None:
                    tasks.create_task(self._run_at_changes(self._hooks.run, watch.on_change))
                if self.on_change_once is not None:
                    tasks.create_task(self._run_at_changes(self._tell_once, watch.on_change_once))
        finally:
            # From now on nothing confirms the gate: it is a cached read.
            if self._watches.get(watch.loop) is watch:
                del self._watches[watch.loop]
            self.evaluate_gate()

    async def _watch_backend(self) -> None:
        while True:
            try:
                if isinstance(self.backend, WorkerRegistry):
                    await self.backend.watch(self, self.report)
                else:
                    await self.backend.watch(self)
            except Exception as error:  # a custom backend may raise anything
                self.fail(as_backend_error(error, self.backend))
            await asyncio.sleep(self.backend.ttl)

    async def _keep_time(self, watch: Watch) -> None:
        while True:
            watch.alive_at = time.monotonic()
            await asyncio.sleep(self.backend.ttl / 2)

    async def _follow_fallbacks(self, watch: Watch) -> None:
        while True:
            await watch.fallbacks.wait()
            watch.fallbacks.clear()
            if self.cache.known is None:
                await self._query_fallbacks(watch)
            else:
                await self._fallbacks.mirror(self.cache.persistent_state(time.monotonic()))

    async def _query_fallbacks(self, watch: Watch) -> None:
        await self._fallbacks.query()
        self.evaluate_gate()
        watch.ready.set()

    async def _follow_closings(self, watch: Watch, tasks: asyncio.TaskGroup) -> None:
        """After a closing, classify the requests in flight and schedule the evictions."""
        while True:
            await watch.closed.wait()
            watch.closed.clear()
            if self.classifier is not None:
                await self.requests.classify(self.classifier)
            self.drain_progressed()
            self._evictor.start(tasks)

    async def _run_at_changes(
        self, run: Callable[[], Awaitable[None]], changed: asyncio.Event
    ) -> None:
        """Run a hook now and at each change. Notice every `ttl` whether the snapshot is stale."""
        while True:
            await run()
            try:
                async with asyncio.timeout(self.backend.ttl):
                    await changed.wait()
            except TimeoutError:
                self.evaluate_gate()
            changed.clear()

    async def _tell_once(self) -> None:
        await self._hooks.run_once(self.evaluate_gate(), self.confirmed_time(), self.backend)

    def update(self, snapshot: Snapshot, at: float) -> Snapshot:
        """Store a snapshot and follow it, unless a newer one has arrived meanwhile.

        Returns the one that is stored now.
        """
        with self._lock:
            old, before = self.cache.snapshot, self.gate
            known, is_newer = self.cache.store(snapshot, at, time.monotonic())
            if not is_newer:
                return known
            gate = self._derive_gate()
            self._log.recovered(snapshot)
            self._publish(gate, before)
            closes_or_opens = gate.closure is not before.closure
            if closes_or_opens and old is not None and 0 < old.epoch < snapshot.epoch:
                # The epoch is the time of the write on Redis' clock; a bare SET leaves none. The
                # first epoch is the time of a registration.
                self.propagation = max(0.0, self.now().timestamp() - snapshot.epoch / 1e6)
        self._watches.notify("ready", "updated", "fallbacks")
        return known

    @property
    def changes_at(self) -> float:
        """The local monotonic time at which the state changes by itself."""
        return self.cache.changes_at

    def fail(self, error: BackendError) -> None:
        """Note that the backend cannot be read."""
        with self._lock:
            what = "the last known state stays"
            if self.cache.known is None:
                what = "no state was ever known, asking the fallbacks"
            reason = str(error).removesuffix(".")
            self._log.unreachable(f"{reason}; {what}, on_unreachable={self.on_unreachable}")
        if self.cache.known is None:
            self._watches.notify("fallbacks")

    def report(self) -> Mapping[str, Any]:
        """Return what this worker reports to the registry."""
        snapshot, gate = self.cache.snapshot, self.gate
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
            "version": VERSION,
            "applied": "" if snapshot is None else snapshot.fingerprint,
            "epoch": 0 if snapshot is None else snapshot.epoch,
            **self._counts(gate),
            "components": {name: self._counts(gate, name) for name in sorted(self.components)},
            "fence": self.cache.policy.stale_after if self.on_unreachable == "closed" else None,
            "unrouted": self.unrouted,
        }

    def _counts(self, gate: Gate, component: str | None = None) -> dict[str, Any]:
        http, websockets = self.requests.count(gate, component)
        closed = gate.for_component(component).closure is not None
        drained = closed and not http + websockets
        return {"closed": closed, "drained": drained, "http": http, "websockets": websockets}

    def follow_components(self, names: frozenset[str]) -> None:
        """Follow these components too. Raises `ConfigurationError` if the backend cannot."""
        if not names <= self.components:
            self.backend.follow_components(names)
            self.components |= names

    def note_unrouted(self, path: str) -> None:
        """Log and report, once for each path, an answer without a route while closed."""
        path = one_line(path)[:_MAX_PATH]
        if path not in self.unrouted and len(self.unrouted) < _MAX_UNROUTED:
            self.unrouted += (path,)
            logger.warning("%s %s", path, WAY_AROUND, extra=log_fields("unrouted", path=path))

    def drain_progressed(self) -> None:
        """Report at once if a drain has ended."""
        gate = self.gate
        if any(self.requests.is_drained(gate, name) for name in (None, *gate.components)):
            self.backend.request_sync()

    async def refresh(self) -> Gate:
        """Return a valid gate. This needs no I/O if a watch runs on this event loop."""
        if self._override is not None:
            return self.evaluate_gate()
        if self.cache.policy.asks_always:
            snapshot = self._read_nowait()
            if snapshot is not None and snapshot is not self.cache.snapshot:
                self.update(snapshot, time.monotonic())
            elif time.monotonic() < self.cache.changes_at:
                return self.gate
        else:
            await self.start()
        return self.evaluate_gate()

    def has_stood_still(self) -> bool:
        """Return whether this event loop has not run for a while, and starts just now."""
        watch = self._watches.get(running_loop()) if self._watches else None
        return watch is not None and time.monotonic() - watch.alive_at > self.backend.ttl

    async def catch_up(self) -> None:
        """Wait at most `ttl` until the backend was read, as the loop may stand still again."""
        watch, since = self._watches.on_this_loop(self._watch), time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.backend.ttl):
                while self.cache.confirmed_at(since) < since:
                    watch.updated.clear()
                    await watch.updated.wait()

    def _read_nowait(self) -> Snapshot | None:
        try:
            return self.backend.read_nowait()
        except Exception as error:  # a custom backend may raise anything
            self.fail(as_backend_error(error, self.backend))
            return None

    def evaluate_gate(self) -> Gate:
        """Derive the gate anew, and publish what has changed."""
        with self._lock:
            before = self.gate
            gate = self._derive_gate()
            self._publish(gate, before)
        return gate

    def _derive_gate(self) -> Gate:
        """Set the gate, under the lock."""
        fallback, source = self._fallbacks.snapshot, self._fallbacks.source
        now, watched = time.monotonic(), bool(self._watches)
        if self._override is not None:
            gate = overridden(self._override, now, time.time())
        else:
            gate = self.cache.evaluate_gate(now, fallback, source, watched=watched)
        self.gate = gate = gate.after(self.gate)
        return gate

    def _publish(self, gate: Gate, before: Gate) -> None:
        """Log a change of the gate and notify of it, under the lock, which keeps the order."""
        if gate.version == before.version:
            return
        self._evictor.note(gate, before, time.monotonic())
        errors = self.granted.load(gate.closed_states())
        if self.on_change is not None:
            self._hooks.enqueue(before.closure, gate.closure, gate.source)
        self._log.changed(gate, before, errors)
        closed = [] if gate.is_open else ["closed"]
        self._watches.notify("on_change", "on_change_once", *closed)

    def override(self, state: MaintenanceState | None) -> MaintenanceState | None:
        """Override the state and ignore the backend; None ends that. Returns the last override."""
        with self._lock:
            before, self._override = self._override, state
            gate = self.evaluate_gate()
            if state is None:
                self.gate = replace(gate, until=-math.inf)  # the next request evaluates it anew
        return before

    def now(self) -> datetime:
        """Return the time of the clock that windows and leases follow."""
        return datetime.fromtimestamp(self.cache.backend_time(time.monotonic()), UTC)

    def confirmed_time(self) -> float:
        """Return when the state was last confirmed, as a Unix time of that clock."""
        return self.cache.backend_time(self.cache.fresh_at)


def _can_read_nowait(backend: BaseStateBackend) -> bool:
    try:
        return backend.read_nowait() is not None
    except Exception:  # it can, just not now
        return True
