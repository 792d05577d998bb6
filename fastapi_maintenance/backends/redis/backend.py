"""Redis as the backend: one key is the switch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar, Final, Self, get_args
from urllib.parse import parse_qsl, urlencode, urlunsplit
from weakref import WeakSet

from redis.exceptions import RedisError

from ..._internal.logging import error_text
from ..._internal.validation import positive
from ...exceptions import (
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    UnsupportedError,
)
from ...model.evaluate import evaluate
from ...model.history import Change, attribution_json
from ...model.holds import Hold
from ...model.snapshot import Snapshot
from ...model.state import OFF, ON, MaintenanceState
from ...model.workers import RegistrySnapshot
from ..base import (
    BaseStateBackend,
    LinkStatus,
    ReplicaAck,
    SnapshotListener,
    StateChange,
    SupportsComponents,
    SupportsHistory,
    SupportsLeases,
    WorkerRegistry,
    WorkerReporter,
)
from .claim import NotificationClaim
from .cluster import ClusterServer
from .connection import NotSlotOwnerError, RedisConnection
from .eviction import MEMORY, eviction_warnings
from .history import History, HistoryGapLog
from .keys import Keys
from .link import Link
from .process import proved_gone
from .recovery import DataLoss
from .registration import LIFETIMES
from .replies import (
    HoldObserver,
    ScriptReply,
    count_replicas,
    read_natively,
    read_registry,
    read_script,
    reads,
)
from .script import Script, dump_hold
from .topology import server_of_client, server_of_url, split_netloc

# Of a URL's query, beside those of redis-py.
_OPTIONS: Final = ("key", "ttl", "timeout", "on_data_loss")
_MAX_TRIES: Final = 5  # to read what does not change in between
_MOVE: Final = 0.05  # seconds between two tries while the switch is on the move


class RedisBackend(
    BaseStateBackend, SupportsLeases, SupportsComponents, SupportsHistory, WorkerRegistry
):
    """Keeps the switch in one Redis key, shared by every worker on every machine.

    Give a URL (`redis://`, `rediss://`, `unix://`, `redis+sentinel://` or `redis+cluster://`; its
    query may hold `key`, `ttl`, `timeout` and `on_data_loss`) or a client of `redis.asyncio`, which
    is never used nor closed: it only says how to connect. `ttl` is the most a worker's knowledge
    may age while Redis answers, in seconds (default 1). `timeout` limits each command that a caller
    waits for, in seconds (default 2). `on_data_loss` says what workers do when Redis comes back
    without its data: write the last known state again (`restore`, the default) or `follow`. Raises
    `ConfigurationError` for invalid options.
    """

    kind: ClassVar[str] = "redis"

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Any = None,
        key: str | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        on_data_loss: DataLoss | None = None,
    ) -> None:
        if (url is None) == (client is None):
            raise ConfigurationError("Give a Redis URL or a client, and not both.")
        options: dict[str, Any] = {}
        if url is not None:
            url, options = _split(url)
        given = {"key": key, "ttl": ttl, "timeout": timeout, "on_data_loss": on_data_loss}
        options |= {name: value for name, value in given.items() if value is not None}
        self._keys = Keys.of(options.get("key", "maintenance"))
        self._server = (
            server_of_client(client, self._keys) if url is None else server_of_url(url, self._keys)
        )
        self._script = Script(self._keys, lambda: self.components)
        self._observer = HoldObserver()
        self._links: WeakSet[Link] = WeakSet()
        self._by: str | None = None
        self._asked: frozenset[str] = frozenset()
        self._gaps = HistoryGapLog(self.describe())
        self.ttl = positive("ttl", _number("ttl", options.get("ttl", 1.0)))
        self._timeout = positive("timeout", _number("timeout", options.get("timeout", 2.0)))
        self._on_data_loss: DataLoss = options.get("on_data_loss", "restore")
        if self._on_data_loss not in get_args(DataLoss):
            raise ConfigurationError(
                f"on_data_loss must be restore or follow, not {self._on_data_loss!r}."
            )

    def describe(self) -> str:
        server = self._server.describe()
        key = urlencode({"key": self._keys.switch}, safe=":{}")
        return f"{server}{'&' if '?' in server else '?'}{key}"

    async def get_value(self) -> bool:
        reading = await self.read()
        if reading.switch is None:
            raise BackendError(f"{self.describe()}: {reading.error}")
        return evaluate(reading, reading.now).switch.enabled

    async def set_value(self, value: bool) -> None:
        await self.write(ON if value else OFF)

    def watch(
        self, listener: SnapshotListener, report: WorkerReporter | None = None
    ) -> Coroutine[Any, Any, None]:
        link = Link(
            self._server,
            self._keys,
            listener,
            report=report,
            ttl=self.ttl,
            on_data_loss=self._on_data_loss,
            components=lambda: self.components,
        )
        self._links.add(link)
        return link.run()

    def link_status(self, listener: SnapshotListener) -> LinkStatus | None:
        return next((link.status for link in list(self._links) if link.serves(listener)), None)

    def request_sync(self) -> None:
        for link in list(self._links):
            link.nudge()

    async def notify_once(self, news: StateChange, tell: Callable[[str], Awaitable[None]]) -> bool:
        return await NotificationClaim(self._keys.told, self._wire, self._timeout).notify_once(
            news, tell
        )

    def as_operator(self, by: str | None) -> Self:
        other = copy(self)
        other._by = by
        other._script = Script(self._keys, lambda: other.components)  # which it may follow itself
        return other

    async def history(
        self, *, limit: int = 100, component: str | None = None
    ) -> tuple[Change, ...]:
        if limit < 1:
            raise ConfigurationError(f"limit must be at least 1, not {limit!r}.")
        return await self._history.newest(limit, component)

    def follow_history(self, after: str = "") -> AsyncIterator[Change]:
        return self._history.follow(after)

    @property
    def _history(self) -> History:
        return History(self._keys.history, self._wire, self._timeout, self.ttl)

    async def warnings(self) -> tuple[str, ...]:
        with suppress(BackendError):  # as where a proxy closes the connection
            async with self._wire() as wire:
                return eviction_warnings(*await wire.call(MEMORY, within=self._timeout))
        return ()

    # Commands are rare, so each opens a connection and closes it: nothing to share between loops,
    # threads and forks.

    async def read(self) -> Snapshot:
        async with self._wire() as wire:
            try:
                return read_script(await self._run(wire, "read"), self._observer).reading
            except UnsupportedError:
                return await self._read_plainly(wire)

    async def write(self, state: MaintenanceState, *, expires_in: float | None = None) -> None:
        px = 0 if expires_in is None else _milliseconds(positive("expires_in", expires_in))
        async with self._wire() as wire:
            await self._write(wire, state, px)

    @property
    def components(self) -> frozenset[str]:
        return super().components | self._asked

    def with_component(self, name: str) -> Self:
        self._check_components()
        other = super().with_component(name).as_operator(self._by)
        other._asked = frozenset({name})
        return other

    def follow_components(self, names: Iterable[str]) -> None:
        self._check_components()
        super().follow_components(names)

    def _check_components(self) -> None:
        if isinstance(self._server, ClusterServer) and not self._keys.scopes_share_slot:
            raise ConfigurationError(
                "In a cluster, the switches of components must be in the slot of the key "
                f"{self._keys.switch!r}, which has no hash tag: "
                f"write key={{{self._keys.switch}}} or, say, "
                f"key={{shop}}:{self._keys.switch}, for all who use it."
            )

    async def write_component(
        self, component: str, state: MaintenanceState, *, expires_in: float | None = None
    ) -> None:
        self.follow_components([component])
        px = 0 if expires_in is None else _milliseconds(positive("expires_in", expires_in))
        async with self._wire() as wire:
            await self._write(wire, state, px, component)

    async def write_replicated(
        self, state: MaintenanceState, *, within: float
    ) -> ReplicaAck | None:
        """Set the switch, then wait up to `within` seconds for the replicas (ROLE, WAIT).

        None where there are none or nothing is said.
        """
        async with self._wire() as wire:
            await self._write(wire, state, px=0)
            try:
                return await self._wait_for_replicas(wire, within)
            except BackendUnavailableError:  # what was written is written
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
        if component is not None:
            self.follow_components([component])
        step = ["amend", state.dump(), expected.fingerprint, component or ""]
        if not keep_ttl:
            value = "" if state == OFF else state.dump()
            step = ["exchange", value, *step[2:], "1" if end_holds else ""]
        try:
            async with self._wire() as wire:
                answer = await self._step(wire, *step, self._note(OFF if end_holds else state))
        except UnsupportedError:  # where scripts are forbidden, a time to live cannot be kept
            if keep_ttl:
                raise
            return await super().compare_and_set(
                expected, state, component=component, end_holds=end_holds
            )
        return answer.verdict != "changed"

    async def clear(self) -> None:
        async with self._wire() as wire:
            await self._step(wire, "clear", self._note(OFF))

    async def acquire(self, hold: Hold, lease: float) -> Hold:
        async with self._wire() as wire:
            answer = await self._step(wire, "acquire", *_lease(hold, lease), self._note_of(hold))
        try:
            since = int(answer.verdict) / 1e6
        except (ValueError, OverflowError):
            raise BackendError(
                "Redis answered the script with something else than when the hold begins."
            ) from None
        return replace(hold, since=since, deadline=answer.reading.now + lease, lease=lease)

    async def renew(self, hold: Hold, lease: float) -> bool:
        async with self._wire() as wire:
            answer = await self._step(
                wire, "renew", *_lease(hold, lease), round(hold.since * 1e6), self._note_of(hold)
            )
        return answer.verdict != "revoked"

    async def release(self, hold: Hold, *, keep: MaintenanceState | None = None) -> None:
        if keep is not None and hold.component is not None:
            self.follow_components([hold.component])
        async with self._wire() as wire:
            kept = "" if keep is None else keep.dump()
            args = hold.id, kept, hold.component or "", self._note_of(hold), self._note(keep)
            await self._step(wire, "release", *args)

    async def begin_barrier(self) -> RegistrySnapshot:
        return await self._call_roll("barrier")

    async def read_registry(self) -> RegistrySnapshot:
        return await self._call_roll("workers")

    async def _call_roll(self, step: str) -> RegistrySnapshot:
        at = time.monotonic()
        async with self._wire() as wire:
            confirmed = self._server.confirmed_at(wire.peer) >= at
            settling = await self._server.takeover_time(wire, within=self._timeout)
            roll = read_registry(await self._run(wire, step), self._observer)
            if gone := await proved_gone(roll.workers):  # this process may be near enough to tell
                await wire.call(("HDEL", self._keys.registry, *gone), within=self._timeout)
        workers = tuple(worker for worker in roll.workers if worker.id not in gone)
        return replace(
            roll,
            workers=workers,
            lifetime=self.ttl * LIFETIMES,
            settling=settling,
            confirmed=confirmed,
        )

    async def forget(self, ids: Iterable[str]) -> None:
        async with self._wire() as wire:
            (done,) = await wire.call(("HDEL", self._keys.registry, *ids), within=self._timeout)
        if isinstance(done, Exception):
            raise BackendError(f"{self.describe()} refused to forget workers: {done}") from done

    @asynccontextmanager
    async def _wire(self) -> AsyncIterator[RedisConnection]:
        try:
            connection = await self._server.connect(timeout=self._timeout, protocol=2)
        except (RedisError, OSError) as error:
            raise BackendUnavailableError(
                f"{self.describe()} cannot be reached: {error_text(error)}"
            ) from error
        async with RedisConnection(connection, lambda: None) as wire:
            yield wire

    async def _step(self, wire: RedisConnection, step: str, *args: str | int) -> ScriptReply:
        """Run a step and let this process' own workers see the outcome at once."""
        at = time.monotonic()
        answer = read_script(await self._run(wire, step, *args), self._observer)
        self._gaps.tell(answer.unrecorded)
        self.publish(answer.reading, at)
        return answer

    def _note(self, state: MaintenanceState | None) -> str:
        return attribution_json(state, by=self._by)

    def _note_of(self, hold: Hold) -> str:
        return attribution_json(hold.state, by=self._by, component=hold.component)

    async def _run(self, wire: RedisConnection, step: str, *args: str | int) -> object:
        deadline = time.monotonic() + self._timeout
        try:
            return await self._script.run(wire, step, *args, within=self._timeout)
        except NotSlotOwnerError:
            return await self._run_elsewhere(deadline, step, *args)

    async def _run_elsewhere(self, deadline: float, step: str, *args: str | int) -> object:
        """Where a cluster is moving the switch: try until its new owner has all of its keys."""
        while True:
            await asyncio.sleep(_MOVE)
            try:
                async with self._wire() as wire:
                    return await self._script.run(wire, step, *args, within=self._timeout)
            except NotSlotOwnerError as error:
                if time.monotonic() > deadline:
                    raise BackendUnavailableError(f"{self.describe()}: {error}") from error

    async def _write(
        self, wire: RedisConnection, state: MaintenanceState, px: int, component: str | None = None
    ) -> None:
        value = "" if state == OFF else state.dump()
        try:
            reading = (
                await self._step(wire, "write", value, px, component or "", self._note(state))
            ).reading
        except UnsupportedError:
            reading = await self._write_plainly(wire, value, px, component)
        own = reading.for_component(component) if component else reading
        switch = OFF if own is None else own.switch
        if switch != state:
            raise BackendError(
                f"{self.describe()} was written, but reads back as {switch or reading.error!r}."
            )

    async def _wait_for_replicas(self, wire: RedisConnection, within: float) -> ReplicaAck | None:
        """Wait on the connection that wrote: WAIT is about its writes only."""
        (role,) = await wire.call(("ROLE",), within=self._timeout)
        connected = count_replicas(role)
        if connected == 0:
            return None
        (acknowledged,) = await wire.call(
            ("WAIT", connected or 1, _milliseconds(within)), within=within + self._timeout
        )
        if not isinstance(acknowledged, int) or (connected is None and acknowledged == 0):
            return None
        return ReplicaAck(acknowledged, None if connected is None else max(connected, acknowledged))

    async def _write_plainly(
        self, wire: RedisConnection, value: str, px: int, component: str | None
    ) -> Snapshot:
        """Write where scripts are forbidden."""
        key = self._keys.component(component) if component else self._keys.switch
        write = ("DEL", key) if not value else ("SET", key, value, *(("PX", px) if px else ()))
        done, _ = await wire.call(write, ("PUBLISH", self._keys.events, "0"), within=self._timeout)
        if isinstance(done, Exception):
            raise BackendError(f"{self.describe()} refused to be written: {done}") from done
        at = time.monotonic()
        reading = await self._read_plainly(wire)
        self.publish(reading, at)
        return reading

    async def _read_plainly(self, wire: RedisConnection) -> Snapshot:
        """Read where scripts are forbidden."""
        components = sorted(self.components)
        for _ in range(_MAX_TRIES):
            replies = await wire.call(
                *reads(self._keys, components, lambda key: ("GET", key)), within=self._timeout
            )
            if (
                answer := read_natively(replies, time.time(), components, self._observer)
            ) is not None:
                return answer.reading
        raise BackendError(f"{self.describe()} changed too often to be read as a whole.")


def _split(url: str) -> tuple[str, dict[str, str]]:
    """Take our own options out of a URL's query."""
    parts, netloc = split_netloc(url)
    fields = parts.query.split("&")
    ours = dict(
        pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] in _OPTIONS
    )
    # As it was written.
    rest = "&".join(field for field in fields if field.partition("=")[0] not in _OPTIONS)
    return urlunsplit(parts._replace(netloc=netloc, query=rest)), ours


def _lease(hold: Hold, seconds: float) -> tuple[str, str, int]:
    return hold.id, dump_hold(replace(hold, lease=seconds)), _milliseconds(seconds)


def _milliseconds(seconds: float) -> int:
    """Convert seconds for Redis, at least 1, because 0 would mean no end."""
    return max(1, round(seconds * 1000))


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name} must be a number of seconds, not {value!r}.") from None
