"""Redis as the backend: one key is the switch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar, Final, Self, TypeVar, get_args
from urllib.parse import parse_qsl, urlencode, urlunsplit
from weakref import WeakSet

from redis.exceptions import ReadOnlyError, RedisError

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
from .connection import Command, NotSlotOwnerError, RedisConnection, Reply
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
_T = TypeVar("_T")
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
        return await NotificationClaim(self._keys.told, self._ask).notify_once(news, tell)

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
        return History(self._keys.history, self._ask, self.ttl)

    async def warnings(self) -> tuple[str, ...]:
        with suppress(BackendError):  # as where a proxy closes the connection
            return eviction_warnings(await self._ask(MEMORY))
        return ()

    # Commands are rare, so each opens a connection and closes it: nothing to share between loops,
    # threads and forks.

    async def read(self) -> Snapshot:
        try:
            return read_script(await self._run("read"), self._observer).reading
        except UnsupportedError:
            return await self._on_connection(self._read_plainly)

    async def write(self, state: MaintenanceState, *, expires_in: float | None = None) -> None:
        await self._write(state, expires_in)

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
        if isinstance(self._server, ClusterServer) and not self._keys.components_share_slot:
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
        await self._write(state, expires_in, component)

    async def write_replicated(
        self, state: MaintenanceState, *, within: float
    ) -> ReplicaAck | None:
        """Set the switch, then wait up to `within` seconds for the replicas (ROLE, WAIT).

        None where there are none or nothing is said.
        """
        return await self._write(state, replicated_within=within)

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
            answer = await self._step(*step, self._note(OFF if end_holds else state))
        except UnsupportedError:  # where scripts are forbidden, a time to live cannot be kept
            if keep_ttl or end_holds:
                raise
            return await super().compare_and_set(expected, state, component=component)
        return answer.verdict != "changed"

    async def clear(self) -> None:
        await self._step("clear", self._note(OFF))

    async def acquire(self, hold: Hold, lease: float) -> Hold:
        answer = await self._step("acquire", *_lease(hold, lease), self._note_of(hold))
        try:
            since = int(answer.verdict) / 1e6
        except (ValueError, OverflowError):
            raise BackendError(
                "Redis answered the script with something else than when the hold begins."
            ) from None
        return replace(hold, since=since, deadline=answer.reading.now + lease, lease=lease)

    async def renew(self, hold: Hold, lease: float) -> bool:
        taken = round(hold.since * 1e6)
        answer = await self._step("renew", *_lease(hold, lease), taken, self._note_of(hold))
        return answer.verdict != "revoked"

    async def release(self, hold: Hold, *, keep: MaintenanceState | None = None) -> None:
        if keep is not None and hold.component is not None:
            self.follow_components([hold.component])
        kept = "" if keep is None else keep.dump()
        notes = self._note_of(hold), self._note(keep)
        await self._step("release", hold.id, kept, hold.component or "", *notes)

    async def begin_barrier(self) -> RegistrySnapshot:
        return await self._call_roll("barrier")

    async def read_registry(self) -> RegistrySnapshot:
        return await self._call_roll("workers")

    async def _call_roll(self, step: str) -> RegistrySnapshot:
        at = time.monotonic()

        async def call_roll(connection: RedisConnection) -> RegistrySnapshot:
            confirmed = self._server.confirmed_at(connection.peer) >= at
            reply = await self._script.run(connection, step)
            roll = replace(read_registry(reply, self._observer), confirmed=confirmed)
            if gone := await proved_gone(roll.workers):  # this process may be near enough to tell
                await connection.call(("HDEL", self._keys.registry, *gone))
            workers = tuple(worker for worker in roll.workers if worker.id not in gone)
            settling = await self._server.takeover_time(connection)
            return replace(roll, workers=workers, settling=settling)

        return replace(await self._on_connection(call_roll), lifetime=self.ttl * LIFETIMES)

    async def forget(self, ids: Iterable[str]) -> None:
        if isinstance(done := await self._ask(("HDEL", self._keys.registry, *ids)), Exception):
            raise BackendError(f"{self.describe()} refused to forget workers: {done}") from done

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[RedisConnection]:
        try:
            connection = await self._server.connect(timeout=self._timeout, protocol=2)
        except (RedisError, OSError) as error:
            raise BackendUnavailableError(
                f"{self.describe()} cannot be reached: {error_text(error)}"
            ) from error
        async with RedisConnection(connection, within=self._timeout) as connected:
            yield connected

    async def _on_connection(self, work: Callable[[RedisConnection], Awaitable[_T]]) -> _T:
        """Do some work on a connection, and again on another one if this server cannot do it.

        It may be a replica, or a node of a cluster that is moving the switch to another one. Or a
        proxy closes the connection at scripts, which the work then has to do without.
        """
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                async with self._connected() as connection:
                    try:
                        return await work(connection)
                    except BackendError as error:
                        is_replica = isinstance(error.__cause__, ReadOnlyError)
                        if not (is_replica and self._server.leave(connection)):
                            raise
            except NotSlotOwnerError as error:
                if time.monotonic() > deadline:
                    raise BackendUnavailableError(f"{self.describe()}: {error}") from error
                await asyncio.sleep(_MOVE)
            except BackendUnavailableError:
                if not (self._script.is_suspect and await self._script_hangs_up()):
                    raise

    async def _script_hangs_up(self) -> bool:
        """Return whether the connection ends at a script again, on a server that answers."""
        with suppress(BackendUnavailableError):
            async with self._connected() as connection:
                await connection.call(("PING",))
                await self._script.run(connection, "read")
        return self._script.is_refused

    async def _ask(self, command: Command, blocks_for: float = 0.0) -> Reply:
        """Send one command, which may block for so many seconds."""
        async with self._connected() as connection:
            (reply,) = await connection.call(command, within=blocks_for + self._timeout)
        return reply

    async def _run(self, step: str, *args: str | int) -> object:
        return await self._on_connection(
            lambda connection: self._script.run(connection, step, *args)
        )

    async def _step(self, step: str, *args: str | int) -> ScriptReply:
        """Run a step and let this process' own workers see the outcome at once."""
        at = time.monotonic()
        return self._publish(await self._run(step, *args), at)

    def _publish(self, reply: object, at: float) -> ScriptReply:
        answer = read_script(reply, self._observer)
        self._gaps.tell(answer.unrecorded)
        self.publish(answer.reading, at)
        return answer

    def _note(self, state: MaintenanceState | None) -> str:
        return attribution_json(state, by=self._by)

    def _note_of(self, hold: Hold) -> str:
        return attribution_json(hold.state, by=self._by, component=hold.component)

    async def _write(
        self,
        state: MaintenanceState,
        expires_in: float | None = None,
        component: str | None = None,
        *,
        replicated_within: float | None = None,
    ) -> ReplicaAck | None:
        px = 0 if expires_in is None else _milliseconds(positive("expires_in", expires_in))
        value = "" if state == OFF else state.dump()
        step = "write", value, px, component or "", self._note(state)

        async def write(connection: RedisConnection) -> ReplicaAck | None:
            at = time.monotonic()
            try:
                reply = await self._script.run(connection, *step)
            except UnsupportedError:
                reading = await self._write_plainly(connection, value, px, component)
                self.publish(reading, at)
            else:
                reading = self._publish(reply, at).reading
            own = reading.for_component(component) if component else reading
            switch = OFF if own is None else own.switch
            if switch != state:
                raise BackendError(
                    f"{self.describe()} was written, but reads back as {switch or reading.error!r}."
                )
            if replicated_within is None:
                return None
            return await self._wait_for_replicas(connection, replicated_within)

        return await self._on_connection(write)

    async def _wait_for_replicas(
        self, connection: RedisConnection, within: float
    ) -> ReplicaAck | None:
        """Wait on the connection that wrote: WAIT is about its writes only."""
        try:
            (role,) = await connection.call(("ROLE",))
            connected = count_replicas(role)
            if connected == 0:
                return None
            (acknowledged,) = await connection.call(
                ("WAIT", connected or 1, _milliseconds(within)), within=within + self._timeout
            )
        except BackendUnavailableError:  # what was written is written
            return None
        if not isinstance(acknowledged, int) or (connected is None and acknowledged == 0):
            return None
        return ReplicaAck(acknowledged, None if connected is None else max(connected, acknowledged))

    async def _write_plainly(
        self, connection: RedisConnection, value: str, px: int, component: str | None
    ) -> Snapshot:
        """Write where scripts are forbidden."""
        key = self._keys.component(component) if component else self._keys.switch
        write = ("SET", key, value, *(("PX", px) if px else ())) if value else ("DEL", key)
        announce = "PUBLISH", self._keys.events, "0"
        done, _ = await connection.call(write, announce)
        if isinstance(done, Exception):
            raise BackendError(f"{self.describe()} refused to be written: {done}") from done
        return await self._read_plainly(connection)

    async def _read_plainly(self, connection: RedisConnection) -> Snapshot:
        """Read where scripts are forbidden."""
        components = sorted(self.components)
        commands = reads(self._keys, components, lambda key: ("GET", key))
        for _ in range(_MAX_TRIES):
            replies = await connection.call(*commands)
            answer = read_natively(replies, time.time(), components, self._observer)
            if answer is not None:
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
