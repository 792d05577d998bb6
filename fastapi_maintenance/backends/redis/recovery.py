"""Restores the last known state after Redis has lost its data."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Literal

from ..._internal.logging import log_fields
from ...exceptions import BackendError, BackendUnavailableError
from ...model.history import attribution_json
from ...model.snapshot import Snapshot
from ...model.state import OFF
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
        # What was lost without a trace in the epoch counts as if it had moved it.
        memory = _memory(before, away, epoch=before.reading.epoch + reply.is_rolled_back)
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
            return before.with_reading(replace(kept, epoch=before.reading.epoch))
        verdict = restored.verdict
        extra = log_fields("data-lost", backend=self._backend, outcome=verdict)
        logger.warning("Redis lost its data; the last known state: %s", verdict, extra=extra)
        return restored


def _memory(before: ScriptReply, away: float, *, epoch: int) -> list[str | int]:
    """Return the arguments of the restore step: the switch, its remaining life, the live holds."""
    snapshot = before.reading
    memory: list[str | int] = [*_remembered(snapshot, away), epoch]
    memory += [before.incarnation, attribution_json()]
    for hold in snapshot.holds or ():
        if (left := hold.deadline - snapshot.now - away) > 0:
            memory += [hold.id, round(left * 1000), round(hold.since * 1e6), dump_hold(hold)]
    for component in snapshot.components or ():
        value, left = (
            _remembered(own, away) if (own := snapshot.for_component(component)) else ("", 0)
        )
        if value:
            memory += ["", component, value, left]
    return memory


def _remembered(snapshot: Snapshot, away: float) -> tuple[str, int]:
    """Return a switch and its remaining milliseconds, 0 for no end; empty if it has expired."""
    switch, left = snapshot.switch, 0
    if snapshot.expires_in is not None:
        left = round((snapshot.expires_in - away) * 1000)
    gone = (
        switch is None
        or not (switch.enabled or switch.has_details)
        or (snapshot.expires_in is not None and left <= 0)
    )
    return "" if gone or switch is None else switch.dump(), max(left, 0)
