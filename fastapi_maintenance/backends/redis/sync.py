"""One exchange with Redis: arm tracking, register this worker, read the truth.

With whatever the server permits.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Literal

from redis.exceptions import NoPermissionError, ReadOnlyError

from ..._internal.logging import log_fields
from ..._internal.threads import in_thread
from ...exceptions import BackendError, BackendUnavailableError
from ...model.evaluate import evaluate_all
from ...model.history import attribution_json
from ...model.snapshot import Snapshot, with_last_known
from ...model.state import OFF
from ...model.workers import FORMAT, Worker
from ..base import SnapshotListener
from .cluster import is_slot_migrating, resolved
from .connection import Command, NotSlotOwnerError, RedisConnection, Reply
from .history import HistoryGapLog
from .keys import Keys
from .process import Process, proved_gone
from .replies import HoldObserver, ScriptReply, pairs, read_natively, read_script, reads
from .script import Script, dump_hold, is_unknown
from .server import Server

logger = logging.getLogger("fastapi_maintenance")

_Marks = Mapping[str, tuple[int, str]]
DataLoss = Literal["restore", "follow"]

LIFETIMES: Final = 3  # a report lives this many ttl
_RETRY_AFTER: Final = 10  # after this many ttl, try again what was forbidden
_SOON: Final = 0.05  # seconds
_MAX_TRIES: Final = 5  # to read what does not change in between
# Of what a worker says of itself; the rest is in its reports.
_RECORDED: Final = ("host", "pid", "started", "version", "fence")


class Sync:
    """Reads snapshots, registers the worker, and restores the state after a data loss."""

    def __init__(
        self,
        server: Server,
        keys: Keys,
        feed: SnapshotListener,
        worker: str,
        *,
        ttl: float,
        on_data_loss: DataLoss,
        components: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._server = server
        self._keys = keys
        self._all_components = components
        self._scopes: list[str] = []  # those that this exchange is about
        self._script = Script(keys, lambda: self._scopes)
        self._feed = feed
        self._worker = worker
        self._ttl = ttl
        self._lifetime = ttl * LIFETIMES
        self._deadline = ttl / 2
        self._on_data_loss = on_data_loss
        self._observer = HoldObserver()
        self._last: ScriptReply | None = None
        self._acknowledged: tuple[object, ...] | None = None
        self._gaps = HistoryGapLog(server.describe())
        self._ranges = True  # GETRANGE is permitted
        self._process: Process | None = None
        self._last_at = 0.0
        self._begun_at = 0.0
        # Of the registration. The sequence numbers are those of reports.
        self._joined = False  # on this connection
        self._ever_joined = False
        self._has_record = False  # as far as this worker knows
        self._sequence = self._reported = 0  # the last report that was made, and that was accepted
        self._knows_since = 0  # the first report that was made with the switch that it knows
        self._generation = ""
        self._generation_since = 0.0
        self._noticed = 0
        self._vanished: bytes = b""
        self._beside: dict[bytes, Worker] = {}  # that vanished
        self._meets_earlier = self._is_regenerated = False
        self._must_notice = self._notice_later = False
        self._suspicious = False  # of a rollback that was noticed, and not restored yet
        self._pending: tuple[object, ...] | None = None
        self._refusal = ""  # why it is not registered
        self._told = ""
        self._retry_at = 0.0
        # Of the script: how often in a row the connection ended instead of a reply, and until when
        # it is not run then.
        self._hung_up, self._script_at = 0, 0.0

    def begin(self) -> None:
        """Forget what the previous connection's server permitted and knew."""
        self._joined = False
        self._ranges = True
        self._begun_at = self._generation_since = time.monotonic()
        self._retry_at = 0.0

    # -- the three exchanges -----------------------------------------------------------------------

    async def poll(self, wire: RedisConnection, *, arm: bool, rung: str) -> tuple[bool, float]:
        """Arm, register and read, in one round trip.

        Says whether arming was permitted, and when to read again at the latest.

        The order is what the proof stands on. A worker that a barrier does not find has registered
        after it, so it reads after it too. Raises `NotSlotOwnerError` if another server owns the
        switch.
        """
        if self._process is None or self._process.pid != os.getpid():
            self._process = await in_thread(Process.current)
        result = await self._exchange(wire, arm, rung)
        if self._last is not None and self._last.reading.registered:
            await self._serve_registry(wire, rung)
            self._must_notice |= self._notice_later
        return result

    async def read(self, wire: RedisConnection, *, arm: bool) -> tuple[bool, float]:
        """Read after a push, without registering."""
        return await self._exchange(wire, arm, None)

    async def report(self, wire: RedisConnection, rung: str) -> None:
        """Report what has been applied, and let the history record a noticed switch."""
        registering = self._registering(rung) if self._joined else []
        recorded: list[Command] = [("HGETALL", self._keys.recorded)] if self._must_notice else []
        if not registering and not recorded:
            return
        replies = await self._call(wire, *registering, *recorded)
        writable = not registering or self._accept(replies[:1])
        self._must_notice, self._notice_later = False, not writable and bool(recorded)
        if writable and recorded and self._is_unrecorded(replies[-1]):
            who = {name: self._feed.report().get(name) for name in ("host", "pid")}
            self._notice_later = await self._step(wire, "notice", json.dumps(who)) is None

    @property
    def has_read(self) -> bool:
        """Return whether this connection has been read from."""
        return self._last_at >= self._begun_at

    @property
    def is_due(self) -> bool:
        """Return whether components are due, or what is applied or drained has changed."""
        if self._scopes != sorted(self._all_components()) or self._must_notice:
            return True
        return self._acknowledged is not None and self._acknowledged != _acknowledgement(
            self._feed.report()
        )

    @property
    def must_join(self) -> bool:
        """Return whether the registry has lost this worker, which could register before."""
        return self._ever_joined and not (self._joined or self._refusal)

    @property
    def must_read(self) -> bool:
        """Return whether there are components to ask about."""
        return self._scopes != sorted(self._all_components())

    async def leave(self, wire: RedisConnection) -> None:
        """Take this worker out of the registry, if that is quickly done.

        Else others must prove that it is gone.
        """
        if not self._ever_joined:
            return
        with suppress(BackendError):
            await wire.call(
                ("HDEL", self._keys.registry, self._worker),
                ("DEL", self._keys.report(self._worker)),
                within=self._deadline,
            )
            if self._meets_earlier:
                await self._script.run(wire, "earlier", self._worker, "", 0, within=self._deadline)

    # -- reading and registering -------------------------------------------------------------------

    async def _exchange(
        self, wire: RedisConnection, arm: bool, rung: str | None
    ) -> tuple[bool, float]:
        self._scopes = sorted(self._all_components())
        switches = self._keys.switch, *map(self._keys.component, self._scopes)
        # EXISTS arms like any read and moves no value, however long.
        arming: list[Command] = (
            [("CLIENT", "CACHING", "YES"), ("EXISTS", *switches, self._keys.epoch)] if arm else []
        )
        registered, rolled_back = False, self._suspicious
        for _ in range(_MAX_TRIES):
            sent = time.monotonic()
            joining = (
                [] if rung is None or (registered and self._joined) else self._registering(rung)
            )
            evidence = self._evidence() if joining and not self._joined else []
            asking = reads(self._keys, self._scopes, self._get)
            fields_asked = self._worker, "#generation", "#noticed", "#vanished"
            place: list[Command] = [
                ("HMGET", self._keys.registry, *fields_asked),
                ("EXISTS", self._keys.workers),
            ]
            rest = await self._call(wire, *arming, *evidence, *joining, *place, *asking)
            armed = arm and not any(map(_is_refused, _take(rest, arming)))
            older, suspicious = self._compare(_take(rest, evidence))
            if joining:
                registered = self._accept(_take(rest, joining))
            found, earlier, *values = rest
            if self._ranges and isinstance(values[1], NoPermissionError):
                self._ranges = False
                continue
            answer = read_natively(values, time.time(), self._scopes, self._observer)
            if answer is None:
                continue
            self._meets_earlier = earlier == 1
            suspicious &= (
                self._last is not None and not self._last.marks.keys() <= answer.marks.keys()
            )
            rolled_back |= self._find_place(found) | older | suspicious
            if not registered or self._joined:
                break  # else the registry was lost
        else:
            raise BackendError("The switch changed too often to be read as a whole.")
        answer = replace(answer, is_rolled_back=rolled_back and self._last is not None)
        self._suspicious = False
        self._tell()
        before, after = self._last, await self._after_loss(wire, answer)
        recorded = isinstance(found, list) and found[0] is not None
        self._last, self._last_at = (
            after.with_reading(
                replace(
                    after.reading,
                    registered=registered or (recorded and self._server.has_arbiters),
                    confirmed_at=self._server.confirmed_at(wire.peer),
                )
            ),
            sent,
        )
        if before is None or _switches(before.reading) != _switches(after.reading):
            self._knows_since = self._sequence + 1
        self._must_notice |= self._joined and (
            before is None or _differ(before.marks, after.marks, ("", *self._scopes))
        )
        self._feed.update(self._last.reading, sent)
        return armed, sent + _changes_in(self._last.reading)

    def _get(self, key: str) -> Command:
        # One byte more than a value may have.
        return ("GETRANGE", key, 0, 65536) if self._ranges else ("GET", key)

    async def _call(self, wire: RedisConnection, *commands: Command) -> list[Reply]:
        replies = await wire.call(*commands, within=self._deadline)
        return await resolved(self._server, wire, commands, replies, within=self._deadline)

    def _registering(self, rung: str) -> list[Command]:
        """Return the commands that register this worker.

        `None` if registering is known to be forbidden.
        """
        report = self._feed.report()
        if not report or time.monotonic() < self._retry_at:
            self._acknowledged = None
            return []
        self._sequence += 1
        self._pending = _acknowledgement(report)
        known_for = round(time.monotonic() - self._generation_since, 3)
        said = {name: value for name, value in report.items() if name not in _RECORDED}
        said |= {"rung": rung, "generation": self._generation, "known_for": known_for}
        text = f"{self._sequence} {json.dumps(said)}"
        registering: list[Command] = [
            ("SET", self._keys.report(self._worker), text, "PX", round(self._lifetime * 1000))
        ]
        if not self._joined:
            registering += [
                ("HSETNX", self._keys.registry, "#generation", secrets.token_hex(6)),
                ("HSET", self._keys.registry, self._worker, self._record(report)),
            ]
        return registering

    def _record(self, report: Mapping[str, Any]) -> str:
        assert self._process is not None
        said = {name: report[name] for name in _RECORDED if name in report}
        return json.dumps(
            self._process._asdict() | said | {"lifetime": self._lifetime, "format": FORMAT}
        )

    def _evidence(self) -> list[Command]:
        """Return the evidence for rolled-back data, which works without writing."""
        if not self._has_record:
            return []
        return [
            ("GET", self._keys.report(self._worker)),
            ("HEXISTS", self._keys.registry, self._worker),
        ]

    def _compare(self, evidence: Sequence[Reply]) -> tuple[bool, bool]:
        """Return whether the record is missing, or a report newer than the last read.

        If it had made none yet, that is suspicious only where a switch is missing too. No report at
        all proves nothing: it may be over.
        """
        if not evidence:
            return False, False
        report, recorded = evidence
        number = report.partition(b" ")[0] if isinstance(report, bytes) else b""
        suspicious = number.isdigit() and int(number) < self._knows_since
        return recorded == 0 or (suspicious and int(number) < self._reported), suspicious

    def _accept(self, replies: Sequence[Reply]) -> bool:
        """Return whether the worker is registered."""
        refused = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if refused is not None:
            if isinstance(refused, ReadOnlyError) and self._ever_joined:
                error = NotSlotOwnerError if self._joined else BackendUnavailableError
                raise error(f"this server is not the primary any more: {refused}") from refused
            if (
                isinstance(refused, ReadOnlyError)
                and time.monotonic() > self._begun_at + _RETRY_AFTER * self._ttl
            ):
                raise NotSlotOwnerError(
                    "this server is a replica, and its name may lead to the primary by now"
                )
            if isinstance(refused, NoPermissionError) or is_unknown(refused):
                self._retry_at = time.monotonic() + _RETRY_AFTER * self._ttl
            self._acknowledged, self._refusal = None, str(refused)
            return False
        self._joined = self._ever_joined = self._has_record = True
        self._reported = self._sequence
        self._acknowledged, self._refusal = self._pending, ""
        return True

    def _find_place(self, found: Reply) -> bool:
        """Compare the registry with what it was; says whether it lost something."""
        if not isinstance(found, list):
            return False
        mine, generation, noticed, vanished = found
        self._is_regenerated = False
        generation = (generation or b"").decode(errors="replace")
        count = int(noticed) if noticed and noticed.isdigit() else 0
        lost = bool(self._generation) and (generation != self._generation or count < self._noticed)
        if mine is None and self._joined:
            self._joined = self._has_record = False
            lost = True
        if generation != self._generation:
            self._generation, self._generation_since = generation, time.monotonic()
            self._is_regenerated = True
        self._noticed, self._vanished = count, vanished or b""
        return lost

    def _tell(self) -> None:
        """Log whether this worker is registered, if that is new."""
        if self._refusal == self._told or (self._refusal and self._told):
            return
        self._told = self._refusal
        extra = log_fields(
            "rights", backend=self._server.describe(), depth="read" if self._refusal else "full"
        )
        if self._refusal:
            without = (
                "following the switch without registering, so no barrier can wait for this worker"
            )
            logger.warning(
                "Redis refuses to register this worker (%s); %s",
                self._refusal,
                without,
                extra=extra,
            )
        else:
            logger.info("Redis registers this worker again", extra=extra)

    # -- what the script is for --------------------------------------------------------------------

    async def _serve_registry(self, wire: RedisConnection, rung: str) -> None:
        """Begin the data's first life, end holds that are over, and prove workers gone.

        Each only where there is something to do.
        """
        assert self._last is not None
        if (
            self._last.whole
            and not self._last.born
            and (begun := await self._step(wire, "begin")) is not None
        ):
            self._last = replace(self._last, born=begun.born, parent=begun.parent)
        for hold, entry in list(self._observer.over.items()):
            await self._step(wire, "lapse", hold, entry.decode(errors="surrogateescape"))
        if self._meets_earlier:
            report = {
                **self._feed.report(),
                "rung": rung,
                "lifetime": self._lifetime,
                "format": FORMAT,
            }
            await self._step(
                wire, "earlier", self._worker, json.dumps(report), round(self._lifetime * 1000)
            )
        if self._vanished:
            await self._prove_gone(wire)

    async def _step(self, wire: RedisConnection, step: str, *args: str | int) -> ScriptReply | None:
        """Run a step that is tried again with the next poll if it is refused: then it says None."""
        if time.monotonic() < self._script_at:
            return None
        try:
            reply = await self._script.run(wire, step, *args, within=self._deadline)
            self._hung_up = 0
            answer = read_script(reply)
        except BackendUnavailableError:  # shows at the next exchange
            self._hung_up += 1
            if self._hung_up > 1:
                self._script_at = time.monotonic() + _RETRY_AFTER * self._ttl
            return None
        except BackendError:
            return None
        self._gaps.tell(answer.unrecorded)
        return answer

    async def _prove_gone(self, wire: RedisConnection) -> None:
        """Remove dead workers of this machine or container from the registry."""
        ids = self._vanished.split()[::2]
        unknown = [id for id in ids if id not in self._beside]
        if unknown:
            (records,) = await self._call(wire, ("HMGET", self._keys.registry, *unknown))
            if isinstance(records, Exception):
                return
            found = zip(unknown, records, strict=True)
            self._beside |= {
                id: Worker.parse(id.decode(errors="replace"), record or b"", None)
                for id, record in found
            }
        self._beside = {id: self._beside[id] for id in ids}
        process = self._process
        assert process is not None
        gone = await proved_gone(
            [worker for worker in self._beside.values() if process.concerns(worker)], process
        )
        if gone:
            await self._call(wire, ("HDEL", self._keys.registry, *gone))

    def _is_unrecorded(self, recorded: Reply) -> bool:
        """Return whether the history lacks a switch as it was read last.

        "end digest" of each component that has one.
        """
        if isinstance(recorded, Exception) or self._last is None:
            return True  # the script says why
        known = {}
        for name, mark in pairs(recorded):
            end, _, digest = mark.decode(errors="replace").partition(" ")
            known[name.decode(errors="replace")] = (int(end) if end.isdigit() else 0, digest)
        return _differ(known, self._last.marks, ("", *self._scopes))

    # -- what is known -----------------------------------------------------------------------------

    async def _after_loss(self, wire: RedisConnection, answer: ScriptReply) -> ScriptReply:
        """Return the reply to follow; restore the known state first if Redis has lost its data."""
        before = self._last
        if answer.is_rolled_back and not self._is_regenerated:
            # Other workers may be missing too. Barriers wait until each has had the time to come
            # back.
            generation = secrets.token_hex(6)
            done = await self._step(wire, "regenerate", self._generation, generation)
            if done is not None and done.verdict:
                self._generation, self._generation_since = generation, time.monotonic()
        if before is None:
            return answer
        if not answer.whole:
            # It knows of no epoch.
            answer = before.with_reading(replace(answer.reading, epoch=before.reading.epoch))
        elif before.is_lost_in(answer):
            if self._on_data_loss == "restore":
                answer = await self._restore(wire, before, answer)
            else:
                logger.warning(
                    "Redis lost its data; following it, as on_data_loss='follow' says",
                    extra=self._loss("followed"),
                )
                await self._step(wire, "lost", attribution_json())
        return answer.with_reading(with_last_known(answer.reading, before.reading))

    def _loss(self, outcome: str) -> dict[str, object]:
        return log_fields("data-lost", backend=self._server.describe(), outcome=outcome)

    async def _restore(
        self, wire: RedisConnection, before: ScriptReply, answer: ScriptReply
    ) -> ScriptReply:
        """Restore, and return the reply after it.

        If Redis refuses, `before` stays remembered for the next try.
        """
        # What was lost without a trace in the epoch counts as if it had moved it.
        away = time.monotonic() - self._last_at
        memory = _memory(before, away, epoch=before.reading.epoch + answer.is_rolled_back)
        try:
            restored = read_script(
                await self._script.run(wire, "restore", *memory, within=self._deadline),
                self._observer,
            )
        except BackendUnavailableError:
            raise  # the next connection will see the loss again
        except BackendError as error:
            self._suspicious = answer.is_rolled_back
            switch = answer.reading.switch if answer.reading.switch not in (None, OFF) else None
            problem = (
                "Redis lost its data, and the last known state cannot be written again yet: "
                f"{error}"
            )
            return before.with_reading(
                replace(
                    answer.reading,
                    switch=switch,
                    holds=None,
                    epoch=before.reading.epoch,
                    error=problem,
                )
            )
        self._gaps.tell(restored.unrecorded)
        logger.warning(
            "Redis lost its data; the last known state: %s",
            restored.verdict,
            extra=self._loss(restored.verdict),
        )
        return restored


def _acknowledgement(report: Mapping[str, Any]) -> tuple[object, ...]:
    components: Mapping[str, Any] = report.get("components", {})
    standings = {
        name: (standing["closed"], standing["drained"]) for name, standing in components.items()
    }
    return *(report.get(name) for name in ("epoch", "applied", "drained")), standings


def _switches(reading: Snapshot) -> object:
    return reading.switch, {name: own.switch for name, own in (reading.components or {}).items()}


def _take(replies: list[Reply], commands: Sequence[Command]) -> list[Reply]:
    """Take the replies to these commands from the front of the list."""
    taken, replies[:] = replies[: len(commands)], replies[len(commands) :]
    return taken


def _is_refused(reply: Reply) -> bool:
    return isinstance(reply, Exception) and not is_slot_migrating(reply)


def _differ(some: _Marks, others: _Marks, components: Iterable[str]) -> bool:
    """Return whether a switch has changed, or its end by more than measuring explains."""
    for component in components:
        (end, digest), (other_end, other_digest) = (
            some.get(component, (0, "")),
            others.get(component, (0, "")),
        )
        if digest != other_digest or abs(end - other_end) > 1000:
            return True
    return False


def _changes_in(reading: Snapshot) -> float:
    """Seconds until the next look for what changes by itself.

    Redis' own push for that can come minutes late.

    Half the way before it, because it may be the deadline of a hold, whose renewal is not pushed
    and must not go unnoticed.
    """
    left = min(each.until for each in evaluate_all(reading, reading.now).values()) - reading.now
    return max(0.001, left + 0.001 if left < _SOON else left / 2)


def _memory(before: ScriptReply, away: float, *, epoch: int) -> list[str | int]:
    """Return the arguments of the restore step: the switch, its remaining life, the live holds."""
    reading = before.reading
    memory: list[str | int] = [*_remembered(reading, away), epoch, before.born, attribution_json()]
    for hold in reading.holds or ():
        if (left := hold.deadline - reading.now - away) > 0:
            memory += [hold.id, round(left * 1000), round(hold.since * 1e6), dump_hold(hold)]
    for component in reading.components or ():
        value, left = (
            _remembered(own, away) if (own := reading.for_component(component)) else ("", 0)
        )
        if value:
            memory += ["", component, value, left]
    return memory


def _remembered(reading: Snapshot, away: float) -> tuple[str, int]:
    """Return a switch and its remaining milliseconds, 0 for no end; empty if it has expired."""
    switch, left = reading.switch, 0
    if reading.expires_in is not None:
        left = round((reading.expires_in - away) * 1000)
    gone = (
        switch is None
        or not (switch.enabled or switch.has_details)
        or (reading.expires_in is not None and left <= 0)
    )
    return "" if gone or switch is None else switch.dump(), max(left, 0)
