"""One sync: arm tracking, read the truth, report this worker; with whatever the server permits."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from enum import IntEnum
from typing import Any, Final, Literal

from ..._internal.logging import log_fields
from ...exceptions import BackendError, BackendUnavailableError
from ...model.evaluate import evaluate_all
from ...model.history import attribution_json
from ...model.snapshot import Snapshot, with_last_known
from ...model.state import OFF
from ..base import SnapshotListener
from .cluster import is_slot_migrating, read_migrating_slot
from .connection import Command, RedisConnection, Reply
from .history import HistoryGapLog
from .keys import Keys
from .replies import ScriptReply, plain_reads, read_plain, read_script
from .script import Script, dump_hold, is_unknown_script
from .server import Server

__all__ = ["LIFETIMES", "DataLoss", "Sync"]

logger = logging.getLogger("fastapi_maintenance")

DataLoss = Literal["restore", "follow"]

LIFETIMES: Final = 3  # a registration lives this many ttl
_RETRY_AFTER: Final = 10  # after this many ttl, ask again for what was refused
_SOON: Final = 0.05  # seconds


class ScriptAccess(IntEnum):
    """How much of a sync the server permits."""

    PLAIN = 0  # GET and PTTL: no holds, no registration
    READ = 1  # the script without writes, as a replica or a full server demands
    FULL = 2


class Sync:
    """Reads into a feed, remembers what was read last, and puts it back where Redis lost it."""

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
        self._scopes: list[str] = []  # those that this sync is about
        self._script = Script(keys, lambda: self._scopes)
        self._feed = feed
        self._worker = worker
        self._ttl = ttl
        self._deadline = ttl / 2
        self._on_data_loss = on_data_loss
        self._depth = self._told = ScriptAccess.FULL
        self._loaded = False
        self._refusal = ""
        self._retry_at = 0.0
        self._last: ScriptReply | None = None
        self._acknowledged: tuple[object, ...] | None = None
        self._gaps = HistoryGapLog(server.describe())
        # In microseconds of Redis' clock: when it first registered with the switch that it knows, and when it last did.
        self._knows_since = self._registered_at = 0

    def begin(self) -> None:
        """Forget what the previous connection's server permitted."""
        self._depth = ScriptAccess.FULL
        self._loaded = False

    async def run(self, wire: RedisConnection, *, arm: bool, rung: str) -> tuple[bool, float]:
        """Arm, then read, in one round trip. Says whether arming was permitted, and when to sync again at the latest.

        Raises `NotSlotOwnerError` if another server owns the switch.
        """
        if self._depth < ScriptAccess.FULL and time.monotonic() >= self._retry_at:
            self._depth = ScriptAccess.FULL
        self._scopes = sorted(self._all_components())
        switches = self._keys.switch, *map(self._keys.component, self._scopes)
        # EXISTS arms like any read and moves no value, however long.
        arming: list[Command] = (
            [("CLIENT", "CACHING", "YES"), ("EXISTS", *switches, self._keys.epoch)] if arm else []
        )
        answer: ScriptReply | None = None
        while answer is None:
            sent = time.monotonic()
            replies = await wire.call(*arming, *self._commands(rung), within=self._deadline)
            armed = arm and not any(_is_refused(reply) for reply in replies[: len(arming)])
            answers = replies[len(arming) :]
            answer = (
                await self._on_the_move(wire)
                if is_slot_migrating(answers[0])
                else self._understand(answers)
            )
        self._tell()
        before, self._last = self._last, await self._after_loss(wire, answer)
        if self._last.reading.registered:
            self._registered_at = round(self._last.reading.now * 1e6)
            if (
                not self._knows_since
                or before is None
                or _switches(before.reading) != _switches(self._last.reading)
            ):
                self._knows_since = self._registered_at
        self._feed.update(self._last.reading, sent)
        return armed, sent + _changes_in(self._last.reading)

    @property
    def is_due(self) -> bool:
        """Whether there are components to ask about, or what others may be waiting for has changed: what is applied, and drained."""
        if self._scopes != sorted(self._all_components()):
            return True
        return self._acknowledged is not None and self._acknowledged != _acknowledgement(
            self._feed.report()
        )

    async def leave(self, wire: RedisConnection) -> None:
        """Take this worker out of the registry, if that is quickly done; else its registration runs out by itself."""
        if self._acknowledged is None:
            return
        with suppress(BackendError):
            await self._script.run(wire, "leave", self._worker, within=self._deadline)

    # -- with what the server permits ----------------------------------------------------------------------------------

    def _commands(self, rung: str) -> list[Command]:
        self._acknowledged = None
        if self._depth is ScriptAccess.PLAIN:
            return plain_reads(self._keys, self._scopes)
        run: Callable[..., Command] = self._script.by_digest if self._loaded else self._script.whole
        report, lifetime = self._feed.report(), self._ttl * LIFETIMES
        if self._depth is ScriptAccess.READ or not report:
            return [run("read")]
        self._acknowledged = _acknowledgement(report)
        registration = (
            self._worker,
            json.dumps({**report, "rung": rung, "lifetime": lifetime}),
            round(lifetime * 1000),
        )
        return [
            run(
                "sync",
                *registration,
                0 if self._last is None else self._last.born,
                self._knows_since,
                self._registered_at,
            )
        ]

    def _understand(self, replies: list[Reply]) -> ScriptReply | None:
        """What the replies say; None to ask once more, having stepped down as the refusal demands."""
        if self._depth is ScriptAccess.PLAIN:
            return ScriptReply(read_plain(replies, time.time(), self._scopes), whole=False)
        (reply,) = replies
        if self._loaded and is_unknown_script(reply):
            self._loaded = False
        elif isinstance(reply, Exception):
            self._depth, self._refusal = ScriptAccess(self._depth - 1), str(reply)
            self._retry_at = time.monotonic() + _RETRY_AFTER * self._ttl
        else:
            self._loaded = True
            answer = read_script(reply)
            if answer.is_rolled_back:
                self._acknowledged = None
            self._gaps.tell(answer.unrecorded)
            return answer.with_reading(
                replace(answer.reading, registered=self._acknowledged is not None)
            )
        return None

    async def _on_the_move(self, wire: RedisConnection) -> ScriptReply:
        """What can be had of switches that a cluster is moving to another node."""
        self._acknowledged = None
        reads = plain_reads(self._keys, self._scopes)
        replies = await read_migrating_slot(self._server, wire, reads, within=self._deadline)
        return ScriptReply(read_plain(replies, time.time(), self._scopes), whole=False)

    def _tell(self) -> None:
        """Log how deep this sync went, if that is new."""
        if self._depth is self._told:
            return
        self._told = self._depth
        extra = log_fields(
            "rights", backend=self._server.describe(), depth=self._depth.name.lower()
        )
        if self._depth is ScriptAccess.FULL:
            logger.info("Redis permits the sync script again", extra=extra)
        else:
            without = "registering" if self._depth is ScriptAccess.READ else "holds and registering"
            logger.warning(
                "Redis refuses the sync script (%s); following the switch without %s",
                self._refusal,
                without,
                extra=extra,
            )

    # -- what is known -------------------------------------------------------------------------------------------------

    async def _after_loss(self, wire: RedisConnection, answer: ScriptReply) -> ScriptReply:
        """The answer to go by; where it shows that Redis lost its data, first put back what was known."""
        before = self._last
        if before is None:
            return answer
        if not answer.whole:
            answer = before.with_reading(
                replace(answer.reading, epoch=before.reading.epoch)
            )  # it knows of no epoch
        elif before.is_lost_in(answer):
            if self._on_data_loss == "restore":
                answer = await self._restore(wire, before, answer)
            else:
                self._knows_since = self._registered_at = 0
                logger.warning(
                    "Redis lost its data; following it, as on_data_loss='follow' says",
                    extra=self._loss("followed"),
                )
                await self._record_loss(wire)
        elif answer.is_rolled_back:
            self._knows_since = self._registered_at = (
                0  # somebody else has begun anew, so there is nothing left to compare with
            )
        return answer.with_reading(with_last_known(answer.reading, before.reading))

    def _loss(self, outcome: str) -> dict[str, object]:
        return log_fields("data-lost", backend=self._server.describe(), outcome=outcome)

    async def _record_loss(self, wire: RedisConnection) -> None:
        with suppress(BackendError):  # a connection that has ended shows at the next sync
            self._gaps.tell(
                read_script(
                    await self._script.run(wire, "lost", attribution_json(), within=self._deadline)
                ).unrecorded
            )

    async def _restore(
        self, wire: RedisConnection, before: ScriptReply, answer: ScriptReply
    ) -> ScriptReply:
        """What there is after restoring. Where Redis refuses that, `before` stays what is remembered, to be tried again."""
        # What was lost without a trace in the epoch counts as if it had moved it.
        memory = _memory(
            before, answer.reading.now, epoch=before.reading.epoch + answer.is_rolled_back
        )
        try:
            restored = read_script(
                await self._script.run(wire, "restore", *memory, within=self._deadline)
            )
        except BackendUnavailableError:
            raise  # the next connection will see the loss again
        except BackendError as error:
            switch = answer.reading.switch if answer.reading.switch not in (None, OFF) else None
            problem = f"Redis lost its data, and the last known state cannot be written again yet: {error}"
            return before.with_reading(
                replace(
                    answer.reading,
                    switch=switch,
                    holds=None,
                    epoch=before.reading.epoch,
                    error=problem,
                )
            )
        self._knows_since = self._registered_at = 0
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


def _is_refused(reply: Reply) -> bool:
    return isinstance(reply, Exception) and not is_slot_migrating(reply)


def _changes_in(reading: Snapshot) -> float:
    """Seconds until the next look for what changes by itself: Redis' own push for that can come minutes late.

    Half the way before it, because it may be the deadline of a hold, whose renewal is not pushed and must not go unnoticed.
    """
    left = min(each.until for each in evaluate_all(reading, reading.now).values()) - reading.now
    return max(0.001, left + 0.001 if left < _SOON else left / 2)


def _memory(before: ScriptReply, now: float, *, epoch: int) -> list[str | int]:
    """Arguments of the restore step: the switch with what is left of its life, then the live holds."""
    reading = before.reading
    memory: list[str | int] = [*_remembered(reading, now), epoch, before.born, attribution_json()]
    for hold in reading.holds or ():
        memory += [hold.id, round(hold.deadline * 1e6), round(hold.since * 1e6), dump_hold(hold)]
    for component in reading.components or ():
        value, left = (
            _remembered(own, now) if (own := reading.for_component(component)) else ("", 0)
        )
        if value:
            memory += ["", component, value, left]
    return memory


def _remembered(reading: Snapshot, now: float) -> tuple[str, int]:
    """A switch and what is left of its life in milliseconds, 0 for no end; empty where nothing of it is left."""
    switch, left = reading.switch, 0
    if reading.expires_in is not None:
        left = round((reading.expires_at - now) * 1000)
    gone = (
        switch is None
        or not (switch.enabled or switch.has_details)
        or (reading.expires_in is not None and left <= 0)
    )
    return "" if gone or switch is None else switch.dump(), max(left, 0)
