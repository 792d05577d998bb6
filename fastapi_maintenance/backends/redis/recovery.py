"""Restores the last known state after Redis has lost its data."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Literal

from ..._internal.logging import log_fields
from ...exceptions import BackendError, BackendUnavailableError
from ...model.history import attribution_json
from ...model.snapshot import Snapshot
from ...model.state import OFF, MaintenanceState
from .connection import RedisConnection
from .registration import Registration
from .replies import ScriptReply
from .script import dump_hold

logger = logging.getLogger("fastapi_maintenance")

DataLoss = Literal["restore", "follow"]
Run = Callable[..., Awaitable[ScriptReply]]
Attempt = Callable[..., Awaitable[ScriptReply | None]]


class Recovery:
    """Compares each reply with the last one, and reacts to a loss as `on_data_loss` says.

    `run` runs a step of the script. `attempt` does too, and returns None if it is refused.
    """

    def __init__(self, backend: str, on_data_loss: DataLoss, run: Run, attempt: Attempt) -> None:
        self._backend = backend
        self._on_data_loss = on_data_loss
        self._run = run
        self._attempt = attempt
        self.is_suspected = False  # a rollback that was noticed, and not restored yet

    async def follow(
        self,
        wire: RedisConnection,
        before: ScriptReply | None,
        reply: ScriptReply,
        place: Registration,
        since: float,
    ) -> ScriptReply:
        """Return the reply to follow; restore the state before it if Redis has lost its data.

        `before` was requested at the monotonic time `since`.
        """
        self.is_suspected = False
        if reply.is_rolled_back and not place.is_regenerated:
            # Other workers may be missing too. Barriers wait until each has had the time to come
            # back.
            generation = secrets.token_hex(6)
            done = await self._attempt(wire, "regenerate", place.generation, generation)
            if done is not None and done.verdict:
                place.renew_generation(generation)
        if before is None:
            return reply
        if not reply.whole:  # it knows of no epoch
            return before.with_reading(replace(reply.reading, epoch=before.reading.epoch))
        if not before.is_lost_in(reply):
            return reply
        if self._on_data_loss == "restore":
            return await self._restore(wire, before, reply, time.monotonic() - since)
        if reply.is_restored_since(before):
            return reply  # another worker has logged the loss
        logger.warning(
            "Redis lost its data; following it, as on_data_loss='follow' says",
            extra=log_fields("data-lost", backend=self._backend, outcome="followed"),
        )
        await self._attempt(wire, "lost", attribution_json())
        return reply

    async def _restore(
        self, wire: RedisConnection, before: ScriptReply, reply: ScriptReply, away: float
    ) -> ScriptReply:
        """Restore, and return the reply after it.

        If Redis refuses, the caller remembers `before` for the next attempt.
        """
        memory = _memory(before, away, is_rolled_back=reply.is_rolled_back)
        try:
            restored = await self._run(wire, "restore", *memory)
        except BackendUnavailableError:
            raise  # the next connection will see the loss again
        except BackendError as error:
            self.is_suspected = reply.is_rolled_back
            switch = reply.reading.switch if reply.reading.switch not in (None, OFF) else None
            problem = (
                "Redis lost its data, and the last known state cannot be written again yet: "
                f"{error}"
            )
            kept = replace(reply.reading, switch=switch, holds=None, error=problem)
            epoch, fingerprint = before.reading.epoch, before.reading.fingerprint
            return before.with_reading(replace(kept, epoch=epoch, fingerprint=fingerprint))
        verdict = restored.verdict
        restored = replace(
            restored, components=reply.components, noticed=reply.noticed, restored=reply.restored
        )
        if verdict == "superseded" and reply.is_restored_since(before):
            return restored
        extra = log_fields("data-lost", backend=self._backend, outcome=verdict)
        logger.warning("Redis lost its data; the last known state: %s", verdict, extra=extra)
        return restored


def _memory(before: ScriptReply, away: float, *, is_rolled_back: bool) -> Iterator[str | int]:
    """Yield the arguments of the restore step: what was known, each switch, each active hold."""
    snapshot = before.reading
    yield from (attribution_json(), before.incarnation, snapshot.epoch, before.noticed)
    yield from (round(snapshot.now * 1e6), int(is_rolled_back))
    for component in (None, *before.components):
        own = snapshot if component is None else snapshot.for_component(component) or Snapshot()
        if own.switch is not None:
            yield from ("", component or "", *_remembered(own.switch, own.expires_in, away))
    for hold in snapshot.holds or ():
        if (left := hold.deadline - snapshot.now - away) > 0:
            yield from (hold.id, round(left * 1000), round(hold.since * 1e6), dump_hold(hold))


def _remembered(switch: MaintenanceState, expires_in: float | None, away: float) -> tuple[str, int]:
    """Return a switch and its remaining milliseconds, 0 for no end; empty if off or expired."""
    left = 0 if expires_in is None else round((expires_in - away) * 1000)
    expired = expires_in is not None and left <= 0
    if expired or not (switch.enabled or switch.has_details):
        return "", 0
    return switch.dump(), left
