"""The contract between a backend and the rest: where the switch is kept, and how it is read, written and watched."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Self

from ..exceptions import BackendError, UnsupportedError
from ..model.components import check_component
from ..model.evaluate import evaluate
from ..model.history import Change
from ..model.holds import Hold
from ..model.snapshot import Snapshot
from ..model.state import MaintenanceState, parse_bool
from ..model.workers import RegistrySnapshot

__all__ = [
    "BaseStateBackend",
    "LinkStatus",
    "ReplicaAck",
    "SnapshotListener",
    "StateChange",
    "WorkerRegistry",
    "as_backend_error",
]


class SnapshotListener(Protocol):
    """Where a watching backend delivers what it learns."""

    def update(self, reading: Snapshot, at: float) -> None:
        """A reading; `at` is the local monotonic time at which it was *asked for*."""

    def confirm(self, at: float) -> None:
        """What was delivered last still held at the local monotonic time `at`."""

    def fail(self, error: BackendError) -> None:
        """The backend could not be read just now."""

    def report(self) -> Mapping[str, Any]:
        """What this worker says of itself in the registry, as JSON values; empty for one that serves nobody and is not in it."""


@dataclass(frozen=True, slots=True)
class ReplicaAck:
    """How many copies of the server have what was written, and of how many; None where it does not say."""

    acknowledged: int
    connected: int | None


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """How a worker hears of changes just now (its `rung`; `rungs` are all there are), and how often it has had to connect again."""

    rung: str
    rungs: tuple[str, ...]
    reconnects: int


@dataclass(frozen=True, slots=True)
class StateChange:
    """What a worker has to tell: the state that it saw before and that it sees now, as values of a switch.

    `at` is when it last knew that to be so, on the backend's clock.
    """

    before: str
    now: str
    at: float


class BaseStateBackend(ABC):
    """Keeps the switch. A backend of your own needs only `get_value` and `set_value`.

    Holds live in the memory of the process unless a backend keeps them where others see them.
    """

    ttl: float = 1.0
    """Seconds within which a change made elsewhere is noticed."""

    kind: ClassVar[str] = "custom"
    """Where a state comes from, in one word: redis, file, env or custom."""

    leased: ClassVar[bool] = False
    """Whether holds are leases that must be renewed, because they outlive the process that took them."""

    scoped: ClassVar[bool] = False
    """Whether components have switches of their own here. Holds can be of a component everywhere."""

    recorded: ClassVar[bool] = False
    """Whether changes are recorded, so that there is a history."""

    @abstractmethod
    async def get_value(self) -> bool:
        """Whether the switch is on."""

    @abstractmethod
    async def set_value(self, value: bool) -> None:
        """Turn the switch on or off. Raises `BackendError` if that did not happen."""

    def describe(self) -> str:
        """How this backend is called in messages; never with a password."""
        return type(self).__name__

    # -- the switch, with details ------------------------------------------------------------------------------------

    async def read(self) -> Snapshot:
        """Look at switch and holds. Raises `BackendError` if they cannot be had."""
        return self._local_reading(MaintenanceState(enabled=await self.get_value()))

    async def last_known(self) -> Snapshot | None:
        """As a fallback: what is known here, or None where nothing ever was."""
        return await self.read()

    async def write(self, state: MaintenanceState, *, expires_in: float | None = None) -> None:
        """Set the switch, for `expires_in` seconds where the backend can. Raises `BackendError` if that did not happen."""
        if state.has_details or expires_in is not None:
            raise UnsupportedError(
                f"{self.describe()} keeps only on or off, no details and no time to live."
            )
        await self.set_value(state.enabled)
        await self._announce()

    async def write_replicated(
        self, state: MaintenanceState, *, within: float
    ) -> ReplicaAck | None:
        """Set the switch, then wait up to `within` seconds for the server's replicas; None where there are none, as here."""
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
        """Set the switch, or that of a component, unless it differs from the expected one; then return False.

        `keep_ttl` keeps its time to live, which otherwise ends. `end_holds` clears everything, whatever `state` is. This default
        compares and writes in two steps, so that of two calls at the same instant the later one wins.
        Raises `BackendError` if it cannot be written.
        """
        if _switches(await self.read(), component) != _switches(expected, component):
            return False
        if end_holds:
            await self.clear()
        else:
            await (
                self.write(state) if component is None else self.write_component(component, state)
            )
        return True

    async def clear(self) -> None:
        """Turn the switch off and end every hold, whoever has it."""
        with self.__lock:
            self.__holds.clear()
        try:
            await self.write(MaintenanceState(enabled=False))
        except BaseException:
            await self._announce()  # the holds are over all the same
            raise

    # -- components --------------------------------------------------------------------------------------------------------

    @property
    def components(self) -> frozenset[str]:
        """The components whose switches a reading has, where they are there."""
        components: frozenset[str] = self.__dict__.get("_local_components", frozenset())
        return components

    def follow_components(self, names: Iterable[str]) -> None:
        """Read the switches of these components too, from now on. Raises `ConfigurationError` where they cannot be kept."""
        self.__dict__["_local_components"] = self.components | {
            check_component(name) for name in names
        }
        self.request_sync()

    async def write_component(
        self, component: str, state: MaintenanceState, *, expires_in: float | None = None
    ) -> None:
        """Set the switch of a component, as `write` does the general one; plainly off is none, so that the general one decides again."""
        raise self._no_components()

    def _no_components(self) -> UnsupportedError:
        return UnsupportedError(
            f"{self.describe()} keeps no switches of components; only Redis does. A hold can be of a component here, too."
        )

    # -- holds ---------------------------------------------------------------------------------------------------------

    async def acquire(self, hold: Hold, lease: float) -> Hold:
        """Let a hold stand for `lease` seconds from now, and return it as it stands."""
        standing = replace(hold, since=time.time())
        with self.__lock:
            self.__holds[hold.id] = standing
        await self._announce()
        return standing

    async def renew(self, hold: Hold, lease: float) -> bool:
        """Let it stand for `lease` seconds more; False if it was revoked."""
        with self.__lock:
            return hold.id in self.__holds

    async def release(self, hold: Hold, *, keep: MaintenanceState | None = None) -> None:
        """End a hold and, in the same step, write `keep` to the switch or to that of its component. Ending it twice does nothing."""
        try:
            if keep is not None:
                await (
                    self._write_kept(keep)
                    if hold.component is None
                    else self.write_component(hold.component, keep)
                )
        finally:  # a hold that has no lease to run out would stand for ever
            with self.__lock:
                self.__holds.pop(hold.id, None)
            await self._announce()

    async def _write_kept(self, state: MaintenanceState) -> None:
        """Keep as much of a state as this backend can."""
        try:
            await self.write(state)
        except UnsupportedError:
            await self.set_value(state.enabled)

    # -- history -------------------------------------------------------------------------------------------------------

    def as_operator(self, by: str | None) -> Self:
        """The same backend, for changes that this person makes: so a history names them, where what is written names nobody."""
        return self

    async def history(
        self, *, limit: int = 100, component: str | None = None
    ) -> tuple[Change, ...]:
        """The newest changes, oldest first; with a component, of that alone. Raises `UnsupportedError` where none are recorded."""
        raise UnsupportedError(f"{self.describe()} keeps no history; only Redis does.")

    def follow_history(self, after: str = "") -> AsyncIterator[Change]:
        """Changes as they come, from the one after that with this identifier, and again once an outage is over.

        Raises `UnsupportedError` where none are recorded.
        """
        raise UnsupportedError(f"{self.describe()} keeps no history; only Redis does.")

    # -- watching ------------------------------------------------------------------------------------------------------

    def read_nowait(self) -> Snapshot | None:
        """A reading without any I/O, for backends that can be asked at every request; else None."""
        return None

    async def watch(self, feed: SnapshotListener) -> None:
        """Deliver readings until cancelled; here by reading every `ttl`/2 seconds. Errors are delivered, not raised."""
        while True:
            at = time.monotonic()
            try:
                feed.update(reading := await self.read(), at)
            except Exception as error:
                # A backend of a user's own may raise anything; none of it may end the watch.
                feed.fail(as_backend_error(error, self))
                pause = self.ttl / 2
            else:
                pause = min(
                    self.ttl / 2, max(0.001, evaluate(reading, reading.now).until - reading.now)
                )
            await asyncio.sleep(pause)

    def subscribe(self, feed: SnapshotListener) -> None:
        """Let what this process itself changes reach `feed` at once. Held weakly."""
        self.__feeds.add(feed)

    def link_status(self, feed: SnapshotListener) -> LinkStatus | None:
        """How what is delivered to `feed` comes here, without any I/O; None where there is no link, or none yet."""
        return None

    def request_sync(self) -> None:  # noqa: B027 - nothing to do is the right default
        """What a worker of this process reports has changed in a way that others may wait for: register it now."""

    def publish(self, reading: Snapshot, at: float) -> None:
        """Hand a reading to the workers of this process; `at` as for `SnapshotListener.update`."""
        for feed in list(self.__feeds):
            feed.update(reading, at)

    async def notify_once(self, news: StateChange, tell: Callable[[str], Awaitable[None]]) -> bool:
        """Call `tell` with what was told last, unless that is the same; in one of the workers that share the switch. Here: of this process.

        Where nothing was ever told, `news.before` counts as told. Returns False if it has to be asked again a little later, because
        another worker is telling something, or knew something newer.
        """
        with self.__lock:
            before: str = self.__dict__.get("_local_told", news.before)
            self.__dict__["_local_told"] = news.now
        if before != news.now:
            await tell(before)
        return True

    async def _announce(self) -> None:
        """Deliver a change of the local holds, also while the switch itself cannot be read."""
        at = time.monotonic()
        try:
            reading = await self.read()
        except Exception as error:  # as in `watch`: a backend of a user's own may raise anything
            reading = self._local_reading(None, str(as_backend_error(error, self)))
        self.publish(reading, at)

    # -- for subclasses ------------------------------------------------------------------------------------------------

    def _local_reading(self, switch: MaintenanceState | None, error: str | None = None) -> Snapshot:
        with self.__lock:
            holds = tuple(self.__holds.values())
        return Snapshot(switch, holds, time.time(), error=error)

    @staticmethod
    def _bool_to_str(value: bool) -> str:
        return "1" if value else "0"

    @staticmethod
    def _str_to_bool(value: str) -> bool:
        return bool(value.strip()) and parse_bool(value)

    # A subclass written for another package does not call super().__init__, so these are made on first use.

    @property
    def __lock(self) -> threading.Lock:
        lock: threading.Lock = self.__dict__.setdefault("_local_lock", threading.Lock())
        return lock

    @property
    def __holds(self) -> dict[str, Hold]:
        holds: dict[str, Hold] = self.__dict__.setdefault("_local_holds", {})
        return holds

    @property
    def __feeds(self) -> weakref.WeakSet[SnapshotListener]:
        feeds: weakref.WeakSet[SnapshotListener] = self.__dict__.setdefault(
            "_local_feeds", weakref.WeakSet()
        )
        return feeds


class WorkerRegistry(ABC):
    """What a backend can also be: where workers that watch it register, so that a barrier can wait for them."""

    @abstractmethod
    async def begin_barrier(self) -> RegistrySnapshot:
        """Advance the epoch, and call the roll in the same atomic step."""

    @abstractmethod
    async def read_registry(self) -> RegistrySnapshot:
        """Look at switch, holds and registry in one atomic step."""

    @abstractmethod
    async def forget(self, ids: Iterable[str]) -> None:
        """Take workers out of the registry, as an operator's word that they are gone. Raises `BackendError` if that did not happen."""


def as_backend_error(error: Exception, backend: BaseStateBackend) -> BackendError:
    """Wrap what a backend raised, unless it is one of ours already."""
    if isinstance(error, BackendError):
        return error
    wrapped = BackendError(f"{backend.describe()} failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _switches(
    reading: Snapshot, component: str | None
) -> tuple[MaintenanceState | None, MaintenanceState | None]:
    own = reading.for_component(component)
    return reading.switch, None if own is None else own.switch
