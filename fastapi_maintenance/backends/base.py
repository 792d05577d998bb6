"""The base of all backends, and what a backend may support beyond it."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Protocol, Self

from .._internal.validation import require
from ..exceptions import BackendError, UnsupportedError
from ..model.components import check_component
from ..model.evaluate import evaluate
from ..model.history import Change
from ..model.holds import Hold
from ..model.snapshot import Snapshot
from ..model.state import MaintenanceState, parse_bool
from ..model.workers import RegistrySnapshot

_MIN_HALVED_PAUSE: Final = 0.05  # seconds
_MAX_COMPONENTS: Final = 1_000


class SnapshotListener(Protocol):
    """A worker that receives what a watching backend reads."""

    @property
    def changes_at(self) -> float:
        """The local monotonic time at which the state changes by itself, as at an expiry."""

    def update(self, snapshot: Snapshot, at: float) -> Snapshot:
        """Take a snapshot, requested at the local monotonic time `at`.

        Returns the one that is known now, in which last known values replace unreadable ones.
        """

    def fail(self, error: BackendError) -> None:
        """Note that the backend cannot be read."""


WorkerReporter = Callable[[], Mapping[str, Any]]
"""Returns what the registry stores of a worker, as JSON values."""


@dataclass(frozen=True, slots=True)
class ReplicaAck:
    """The number of replicas that have a write, and that are connected (None if unknown)."""

    acknowledged: int
    connected: int | None


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """The delivery of changes (`delivery`, one of `deliveries`), and the number of reconnections.

    `warnings` are those of `BaseStateBackend.warnings`, as this worker knows them.
    """

    delivery: str
    deliveries: tuple[str, ...]
    reconnects: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change to notify of: the state before and now, as values of a switch.

    `at` is when the new state was last confirmed, on the backend's clock.
    """

    before: str
    now: str
    at: float


class _Local:
    """Data that a backend object keeps in this process; holds only if it stores none."""

    def __init__(self) -> None:
        self.holds: dict[str, Hold] = {}  # oldest first; each step is atomic
        self.listeners: weakref.WeakSet[SnapshotListener] = weakref.WeakSet()
        self.components: frozenset[str] = frozenset()
        self.notified: str | None = None
        self.lock = threading.Lock()


class BaseStateBackend(ABC):
    """The base of all backends. A custom backend needs only `get_value` and `set_value`.

    Everything else has a default: holds live in the memory of the process, and an unsupported
    operation raises `UnsupportedError`. A backend that can do more also inherits `SupportsLeases`,
    `SupportsComponents`, `SupportsHistory` or `WorkerRegistry`.
    """

    ttl: float = 1.0
    """Seconds within which a change by another process is noticed."""

    kind: ClassVar[str] = "custom"
    """The source of a state, in one word: redis, file, env or custom."""

    @abstractmethod
    async def get_value(self) -> bool:
        """Return whether the switch is on."""

    @abstractmethod
    async def set_value(self, value: bool) -> None:
        """Turn the switch on or off. Raises `BackendError` if that fails."""

    def describe(self) -> str:
        """Return the name of this backend for messages, without a password."""
        return type(self).__name__

    async def warnings(self) -> tuple[str, ...]:
        """Return a sentence for each setting of the backend that may lose the switch."""
        return ()

    # -- the switch, with details ------------------------------------------------------------------

    async def read(self) -> Snapshot:
        """Read switch and holds. Raises `BackendError` if that fails."""
        return self._local_reading(MaintenanceState(enabled=await self.get_value()))

    async def last_known(self) -> Snapshot | None:
        """Return the state for a worker that uses this as a fallback; None if there is none."""
        return await self.read()

    async def write(self, state: MaintenanceState, *, expires_in: float | None = None) -> None:
        """Set the switch, for `expires_in` seconds if given. Raises `BackendError` on failure."""
        if state.has_details or expires_in is not None:
            raise UnsupportedError(
                f"{self.describe()} keeps only on or off, no details and no time to live."
            )
        await self.set_value(state.enabled)
        await self._announce()

    async def write_replicated(
        self, state: MaintenanceState, *, within: float
    ) -> ReplicaAck | None:
        """Set the switch, and wait up to `within` seconds for replicas; None if there are none."""
        await self.write(state)
        return None

    async def compare_and_set(
        self,
        expected: Snapshot,
        state: MaintenanceState,
        *,
        component: str | None = None,
        keep_ttl: bool = False,
        end_holds: bool = False,
    ) -> bool:
        """Set the switch, or that of a component, if it is as expected; otherwise return False.

        `keep_ttl` keeps its time to live, which otherwise ends. `end_holds` clears everything,
        whatever `state` is. This default compares and writes in two steps, so of two calls at the
        same instant the later one wins. Raises `BackendError` if the write fails.
        """
        stored = await self.read()
        if stored.switches(component) != expected.switches(component):
            return False
        if end_holds:
            await self.clear()
        elif component is None:
            await self.write(state)
        else:
            await self.write_component(component, state)
        return True

    async def clear(self) -> None:
        """Turn the switch off and end every hold."""
        self._local.holds.clear()
        try:
            await self.write(MaintenanceState(enabled=False))
        except BaseException:
            await self._announce()  # the holds have ended all the same
            raise

    # -- components --------------------------------------------------------------------------------

    @property
    def components(self) -> frozenset[str]:
        """The components whose switches a snapshot has."""
        return self._local.components

    def follow_components(self, names: Iterable[str]) -> None:
        """Also read the switches of these components. Raises `ConfigurationError` if invalid."""
        local = self._local
        components = local.components | {check_component(name) for name in names}
        requirement = f"The routes must have at most {_MAX_COMPONENTS:,} components"
        require(len(components) <= _MAX_COMPONENTS, requirement, len(components))
        local.components = components
        self.request_sync()

    def with_component(self, name: str) -> Self:
        """Return this backend for reads that include a component, without following it.

        Raises `ConfigurationError` if the name is invalid.
        """
        check_component(name)
        return self

    async def write_component(
        self, component: str, state: MaintenanceState, *, expires_in: float | None = None
    ) -> None:
        """Set a component's switch. A plain off removes it, and the general switch applies."""
        raise self._no_components()

    def _no_components(self) -> UnsupportedError:
        return UnsupportedError(
            f"{self.describe()} keeps no switches of components; only Redis does. "
            "Holds of components are supported."
        )

    # -- holds -------------------------------------------------------------------------------------

    async def acquire(self, hold: Hold, lease: float) -> Hold:
        """Store a hold for `lease` seconds, and return it as stored."""
        taken = replace(hold, since=time.time())
        self._local.holds[hold.id] = taken
        await self._announce()
        return taken

    async def renew(self, hold: Hold, lease: float) -> bool:
        """Extend a hold to `lease` seconds from now; return False if it was revoked."""
        return hold.id in self._local.holds

    async def release(self, hold: Hold, *, keep: MaintenanceState | None = None) -> None:
        """End a hold, and in the same step write `keep` to the switch, or to its component's.

        Releasing a hold twice does nothing.
        """
        try:
            if keep is not None and hold.component is not None:
                await self.write_component(hold.component, keep)
            elif keep is not None:
                await self._write_kept(keep)
        finally:  # without a lease, the hold would never end
            self._local.holds.pop(hold.id, None)
            await self._announce()

    async def _write_kept(self, state: MaintenanceState) -> None:
        """Write as much of a state as this backend supports."""
        try:
            await self.write(state)
        except UnsupportedError:
            await self.set_value(state.enabled)

    # -- history -----------------------------------------------------------------------------------

    def as_operator(self, by: str | None) -> Self:
        """Return this backend for changes by that operator, whom the history names."""
        return self

    async def history(
        self, *, limit: int = 100, component: str | None = None
    ) -> tuple[Change, ...]:
        """Return the newest changes, of everything or of a component, oldest first.

        Raises `UnsupportedError` if the backend records none.
        """
        raise UnsupportedError(f"{self.describe()} keeps no history; only Redis does.")

    def follow_history(self, after: str = "") -> AsyncIterator[Change]:
        """Yield changes as they come, after the one with that id, and continue after outages.

        Raises `UnsupportedError` if the backend records none.
        """
        raise UnsupportedError(f"{self.describe()} keeps no history; only Redis does.")

    # -- watching ----------------------------------------------------------------------------------

    def read_nowait(self) -> Snapshot | None:
        """Return a snapshot without I/O, if this backend can be read in every request."""
        return None

    async def watch(self, listener: SnapshotListener) -> None:
        """Pass snapshots and errors to the listener until cancelled, here every `ttl`/2 seconds."""
        while True:
            at, pause = time.monotonic(), self.ttl / 2
            try:
                listener.update(snapshot := await self.read(), at)
            except Exception as error:  # a custom backend may raise anything
                listener.fail(as_backend_error(error, self))
            else:
                # Half of the time before a change: a lease that is renewed must not seem to end.
                left = evaluate(snapshot, snapshot.now).until - snapshot.now
                pause = min(pause, max(0.001, left if left < _MIN_HALVED_PAUSE else left / 2))
            await asyncio.sleep(pause)

    def subscribe(self, listener: SnapshotListener) -> None:
        """Pass what this process changes to the listener at once. The reference is weak."""
        self._local.listeners.add(listener)

    def link_status(self, listener: SnapshotListener) -> LinkStatus | None:
        """Return how the listener learns of changes, without I/O; None without a link."""
        return None

    def request_sync(self) -> None:  # noqa: B027 - doing nothing is the right default
        """Register a changed report of a worker of this process now; a barrier may wait for it."""

    def publish(self, snapshot: Snapshot, at: float) -> None:
        """Pass a snapshot to the workers of this process; `at` as in `SnapshotListener.update`."""
        for listener in list(self._local.listeners):
            listener.update(snapshot, at)

    async def notify_once(
        self, change: StateChange, notify: Callable[[str], Awaitable[None]]
    ) -> bool:
        """Call `notify` with the state last notified of, if that is another one.

        Of all workers that share the switch, one does; here, of this process. If there was no
        notification yet, `change.before` counts. Return False to be called again later, because
        another worker is notifying or has a newer state.
        """
        with self._local.lock:
            before = change.before if self._local.notified is None else self._local.notified
            self._local.notified = change.now
        if before != change.now:
            await notify(before)
        return True

    async def _announce(self) -> None:
        """Publish a change of the local holds, also if the switch cannot be read."""
        at = time.monotonic()
        try:
            snapshot = await self.read()
        except Exception as error:  # a custom backend may raise anything
            snapshot = self._local_reading(None, str(as_backend_error(error, self)))
        self.publish(snapshot, at)

    # -- for subclasses ----------------------------------------------------------------------------

    def _local_reading(self, switch: MaintenanceState | None, error: str | None = None) -> Snapshot:
        return Snapshot(switch, tuple(self._local.holds.values()), time.time(), error=error)

    @staticmethod
    def _bool_to_str(value: bool) -> str:
        return "1" if value else "0"

    @staticmethod
    def _str_to_bool(value: str) -> bool:
        return bool(value.strip()) and parse_bool(value)

    @property
    def _local(self) -> _Local:
        # Made on first use: a backend for the modelled package does not call super().__init__().
        local: _Local | None = self.__dict__.get("_local_state")
        return local or self.__dict__.setdefault("_local_state", _Local())


class SupportsLeases:
    """A backend whose holds are leases: other processes see them, and they expire."""


class SupportsComponents:
    """A backend that stores a switch for each component."""


class SupportsHistory:
    """A backend that records changes."""


class WorkerRegistry(ABC):
    """A backend in which workers register, so that a barrier can wait for them."""

    @abstractmethod
    async def watch(self, listener: SnapshotListener, report: WorkerReporter | None = None) -> None:
        """Watch as in `BaseStateBackend`, and register the worker that `report` describes."""

    @abstractmethod
    async def begin_barrier(self) -> RegistrySnapshot:
        """Advance the epoch, and read the registry in the same atomic step."""

    @abstractmethod
    async def read_registry(self) -> RegistrySnapshot:
        """Read switch, holds and registry in one atomic step."""

    @abstractmethod
    async def forget(self, ids: Iterable[str]) -> None:
        """Remove workers from the registry because an operator says that they are gone.

        Raises `BackendError` if that did not happen.
        """


def as_backend_error(error: Exception, backend: BaseStateBackend) -> BackendError:
    """Return the error of a backend as a `BackendError`."""
    if isinstance(error, BackendError):
        return error
    wrapped = BackendError(f"{backend.describe()} failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
