"""One exchange with Redis: arm tracking, register this worker, read the truth."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from redis.exceptions import AskError, NoPermissionError, ReadOnlyError

from ..._internal.validation import is_number
from ...exceptions import BackendError, BackendUnavailableError
from ...model.snapshot import Snapshot
from ..base import SnapshotListener, WorkerReporter
from .cluster import is_slot_migrating, resolved
from .connection import Batch, Command, NotSlotOwnerError, RedisConnection, Reply
from .history import HistoryGapLog
from .keys import Keys
from .recovery import DataLoss, Recovery
from .registration import Registration
from .replies import HoldObserver, ScriptReply, pairs, read_natively, read_script, reads
from .script import Script
from .server import Server

_Marks = Mapping[str, tuple[int, str]]
_Read = tuple[bool, float]  # whether arming is permitted, and when to read again at the latest

_SOON: Final = 0.05  # seconds
_MAX_TRIES: Final = 5  # to read what does not change in between
_EARLIER_EVERY: Final = 10  # polls between two looks for workers of versions before 1.0


class Sync:
    """Reads snapshots, registers the worker, and restores the state after a data loss.

    Tracking is armed on a connection's first exchange and after each push; until the next push, the
    keys stay armed. The order of an exchange is what the proof stands on: arm, register, read.
    A worker that a barrier does not find has registered after it, so it reads after it too.
    """

    def __init__(
        self,
        server: Server,
        keys: Keys,
        listener: SnapshotListener,
        worker: str,
        *,
        ttl: float,
        on_data_loss: DataLoss,
        report: WorkerReporter | None = None,
        components: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._server = server
        self._keys = keys
        self._listener = listener
        self._worker = worker
        self._deadline = ttl / 2
        self._all_components = components
        self._components: list[str] = []  # those that the exchanges are about
        self._script = Script(keys, lambda: self._components)
        self._registration = Registration(server.describe(), keys, worker, report, ttl=ttl)
        self._recovery = Recovery(server.describe(), on_data_loss, self._run, self._attempt)
        self._observer = HoldObserver()
        self._gaps = HistoryGapLog(server.describe())
        self._last: ScriptReply | None = None
        self._last_at = 0.0
        self._ranges = True  # GETRANGE is permitted
        self._prepare()
        self._is_armed = False
        self._polls = 0
        self._meets_earlier = False
        self._must_notice = self._notice_later = False

    def begin(self) -> None:
        """Forget what the previous connection's server permitted and knew."""
        self._registration.begin()
        self._is_armed = False
        self._polls = 0
        if not self._ranges:
            self._ranges = True
            self._prepare()

    def disarm(self) -> None:
        """Note a push: the keys must be armed again."""
        self._is_armed = False

    async def poll(self, connection: RedisConnection, *, arm: bool, delivery: str) -> _Read:
        """Arm, register and read, in one round trip.

        Raises `NotSlotOwnerError` if another server owns the switch.
        """
        self.find_components()
        await self._registration.find_process()
        result = await self._exchange(connection, arm, delivery)
        if self._last is not None and self._last.reading.registered:
            await self._serve_registry(connection, delivery)
            self._must_notice |= self._notice_later
        return result

    async def read(self, connection: RedisConnection, *, arm: bool, looks: bool = False) -> _Read:
        """Read after a push, without registering; with `looks`, look into the registry too."""
        return await self._exchange(connection, arm, None, looks=looks)

    async def report(self, connection: RedisConnection, delivery: str) -> None:
        """Report what has been applied, and let the history record a noticed switch."""
        registration = self._registration
        changed = not self._must_notice  # which also finds out whether the server takes writes
        registering = (
            registration.commands(delivery, changed=changed) if registration.joined else []
        )
        recorded: list[Command] = [("HGETALL", self._keys.recorded)] if self._must_notice else []
        if not registering and not recorded:
            return
        replies = await self._send(connection, *registering, *recorded)
        writable = not registering or self._accept(connection, replies[:1])
        self._must_notice, self._notice_later = False, not writable and bool(recorded)
        if writable and recorded and self._is_unrecorded(replies[-1]):
            who = {name: registration.said().get(name) for name in ("host", "pid")}
            self._notice_later = await self._attempt(connection, "notice", json.dumps(who)) is None

    @property
    def has_read(self) -> bool:
        """Return whether this connection has been read from."""
        return self._last_at >= self._registration.begun_at

    @property
    def is_due(self) -> bool:
        """Return whether Redis does not know yet what has been applied."""
        last = self._last
        return self._must_notice or (last is not None and self._registration.lacks(last.reading))

    @property
    def must_join(self) -> bool:
        """Return whether the registry has lost this worker, which could register before."""
        registration = self._registration
        return registration.ever_joined and not (registration.joined or registration.refusal)

    def find_components(self) -> bool:
        """Follow the components of the backend; return whether others have come."""
        components = sorted(self._all_components())
        if components == self._components:
            return False
        self._components = components
        self._prepare()
        self.disarm()
        return True

    async def leave(self, connection: RedisConnection) -> None:
        """Take this worker out of the registry, if that is quickly done.

        Else others must prove that it is gone.
        """
        if not self._registration.ever_joined:
            return
        with suppress(BackendError):
            await connection.call(
                ("HDEL", self._keys.registry, self._worker),
                ("DEL", self._keys.report(self._worker)),
            )
            if self._meets_earlier:
                await self._script.run(connection, "earlier", self._worker, "", 0)

    def _prepare(self) -> None:
        """Pack the commands that stay the same from exchange to exchange."""
        switches = self._keys.switch, *map(self._keys.component, self._components)
        # EXISTS arms like any read and moves no value, however long.
        exists = ("EXISTS", *switches, self._keys.epoch)
        self._arming = Batch.of(("CLIENT", "CACHING", "YES"), exists)
        fields = self._worker, "#generation", "#noticed", "#vanished", "#restored"
        self._place = Batch.of(("HMGET", self._keys.registry, *fields))
        self._reading = Batch.of(*reads(self._keys, self._components, self._get))

    async def _exchange(
        self, connection: RedisConnection, arm: bool, delivery: str | None, *, looks: bool = True
    ) -> _Read:
        registration, recovery = self._registration, self._recovery
        permitted, registered, rolled_back = True, False, recovery.is_suspected
        older = suspicious = False
        registration.is_regenerated = False
        for _ in range(_MAX_TRIES):
            sent = time.monotonic()
            arming = arm and not self._is_armed
            self._is_armed |= arming  # from now on; a push that comes meanwhile says otherwise
            joins = delivery is not None and not (registered and registration.joined)
            joining = registration.commands(delivery) if joins and delivery is not None else []
            evidence = registration.evidence() if joining else []
            self._polls += delivery is not None
            meets = delivery is not None and self._polls % _EARLIER_EVERY == 1
            seldom: list[Command] = [("EXISTS", self._keys.workers)] if meets else []
            batches = [self._arming] if arming else []
            if evidence or joining or seldom:
                batches.append(Batch.of(*evidence, *joining, *seldom))
            if looks:
                batches.append(self._place)
            rest = await self._send_batches(connection, *batches, self._reading)
            if arming and any(map(_is_refused, _take(rest, 2))):
                permitted = self._is_armed = False
            if evidence:
                last_epoch = self._last.reading.epoch if self._last is not None else 0
                older, suspicious = registration.compare(_take(rest, len(evidence)), last_epoch)
            if joining:
                registered = self._accept(connection, _take(rest, len(joining)))
            if seldom:
                self._meets_earlier = _take(rest, 1)[0] == 1
            found = _take(rest, 1)[0] if looks else None
            if looks:
                rolled_back |= registration.find_place(found) | older
            if self._ranges and isinstance(rest[1], NoPermissionError):
                self._ranges = False
                self._prepare()
                continue
            known = registration.noticed, registration.restored
            answer = read_natively(rest, time.time(), self._components, self._observer, *known)
            if answer is None:
                continue
            if (
                not looks
                and (last := self._last) is not None
                and (last.is_lost_in(answer) or last.incarnation != answer.incarnation)
            ):
                looks = True  # what the registry has lost belongs to the same loss
                continue
            if looks:
                rolled_back |= suspicious and not (
                    self._last is None or self._last.marks.keys() <= answer.marks.keys()
                )
            if not registered or registration.joined:
                break  # else the registry was lost
        else:
            raise BackendError("The switch changed too often to be read as a whole.")
        # While writes are paused, a server that Sentinels confirm need not be written to.
        recorded = isinstance(found, list) and found[0] is not None
        registered |= recorded and self._server.has_arbiters
        if rolled_back and self._last is not None:
            answer = replace(answer, is_rolled_back=True)
        await self._apply(connection, answer, registered, sent)
        return permitted, self._next_read(sent)

    def _accept(self, connection: RedisConnection, replies: list[Reply]) -> bool:
        """Return whether the worker is registered.

        Raises `BackendUnavailableError` if another server must be the primary by now.
        """
        registration = self._registration
        if registration.accept(replies):
            return True
        refused = next(reply for reply in replies if isinstance(reply, Exception))
        if isinstance(refused, ReadOnlyError):
            elsewhere, was_primary = self._server.leave(connection), registration.ever_joined
            if elsewhere or was_primary or registration.is_stale:
                is_new = elsewhere or registration.joined or not was_primary
                error = NotSlotOwnerError if is_new else BackendUnavailableError
                raise error(f"this server is a replica, not the primary: {refused}") from refused
        return False

    async def _apply(
        self, connection: RedisConnection, answer: ScriptReply, registered: bool, sent: float
    ) -> None:
        """Hand a snapshot to the listener, which fills in what could not be read."""
        before, registration = self._last, self._registration
        after = answer
        if before is None or answer.is_rolled_back or not answer.whole or before.is_lost_in(answer):
            after = await self._recovery.follow(
                connection, before, answer, registration, self._last_at
            )
        snapshot = after.reading
        if registered:
            confirmed_at = self._server.confirmed_at(connection.peer)
            snapshot = replace(snapshot, registered=True, confirmed_at=confirmed_at)
        known = self._listener.update(snapshot, sent)
        self._last, self._last_at = after.with_reading(known), sent
        if before is None or _switches(before.reading) != _switches(known):
            registration.knows_since = registration.sequence + 1  # the next report
        if registration.refusal or registered:
            registration.log()
        self._must_notice |= registration.joined and (
            before is None or _differ(before.marks, after.marks, ("", *self._components))
        )

    def _next_read(self, sent: float) -> float:
        """Return when to look for what changes by itself; Redis' own push can come minutes late.

        That is half-way before it, because it may be the deadline of a hold, whose renewal is not
        pushed and must not go unnoticed.
        """
        left = self._listener.changes_at - time.monotonic()
        return sent + max(0.001, left + 0.001 if left < _SOON else left / 2)

    def _get(self, key: str) -> Command:
        # One byte more than a value may have.
        return ("GETRANGE", key, 0, 65536) if self._ranges else ("GET", key)

    async def _send(self, connection: RedisConnection, *commands: Command) -> list[Reply]:
        return await self._send_batches(connection, Batch.of(*commands))

    async def _send_batches(self, connection: RedisConnection, *batches: Batch) -> list[Reply]:
        replies = await connection.send(*batches)
        if any(isinstance(reply, AskError) for reply in replies):
            commands = [command for batch in batches for command in batch.commands]
            return await resolved(
                self._server, connection, commands, replies, within=self._deadline
            )
        return replies

    async def _serve_registry(self, connection: RedisConnection, delivery: str) -> None:
        """Begin the first incarnation of the data, end holds that are over, prove workers gone.

        Each only if there is something to do.
        """
        assert self._last is not None
        if (
            self._last.whole
            and not self._last.incarnation
            and (begun := await self._attempt(connection, "begin")) is not None
        ):
            self._last = replace(
                self._last, incarnation=begun.incarnation, restored_from=begun.restored_from
            )
        for hold, entry in list(self._observer.over.items()):
            await self._attempt(connection, "lapse", hold, entry.decode(errors="surrogateescape"))
        if self._meets_earlier:
            report = self._registration.earlier_report(delivery)
            await self._attempt(connection, "earlier", self._worker, *report)
        if self._registration.vanished:
            await self._registration.prove_gone(lambda *commands: self._send(connection, *commands))

    async def _run(self, connection: RedisConnection, step: str, *args: str | int) -> ScriptReply:
        reply = await self._script.run(connection, step, *args)
        answer = read_script(reply, self._observer)
        self._gaps.tell(answer.unrecorded)
        return answer

    async def _attempt(
        self, connection: RedisConnection, step: str, *args: str | int
    ) -> ScriptReply | None:
        try:
            return await self._run(connection, step, *args)
        except BackendError:  # that of a connection that has ended shows at the next exchange
            return None

    def _is_unrecorded(self, recorded: Reply) -> bool:
        """Return whether the history lacks a switch as it was read last.

        It has "end digest" of each component that has a switch.
        """
        if isinstance(recorded, Exception) or self._last is None:
            return True  # the script says why
        known = {}
        for name, mark in pairs(recorded):
            end, _, digest = mark.decode(errors="replace").partition(" ")
            known[name.decode(errors="replace")] = (int(end) if is_number(end) else 0, digest)
        return _differ(known, self._last.marks, ("", *self._components))


def _switches(snapshot: Snapshot) -> object:
    return snapshot.switch, {n: own.switch for n, own in (snapshot.components or {}).items()}


def _take(replies: list[Reply], count: int) -> list[Reply]:
    """Take so many replies from the front of the list."""
    taken, replies[:] = replies[:count], replies[count:]
    return taken


def _is_refused(reply: Reply) -> bool:
    return isinstance(reply, Exception) and not is_slot_migrating(reply)


def _differ(some: _Marks, others: _Marks, components: Iterable[str]) -> bool:
    """Return whether a switch has changed, or its end by more than measuring explains."""
    for component in components:
        end, digest = some.get(component, (0, ""))
        other_end, other_digest = others.get(component, (0, ""))
        if digest != other_digest or abs(end - other_end) > 1000:
            return True
    return False
