"""Elect one worker to send a notification, by an expiring claim in Redis.

A claim in Redis that ends by itself if its worker dies.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.resources import files
from typing import Final

from ..._internal.tasks import beside
from ...exceptions import BackendError
from ..base import StateChange
from .connection import Ask

_SOURCE: Final = files(__package__).joinpath("claim.lua").read_bytes()
_LEASE: Final = 10.0  # seconds; then another worker notifies in place of one that died


class NotificationClaim:
    """One attempt of one worker to tell of something."""

    def __init__(self, key: str, ask: Ask, lease: float = _LEASE) -> None:
        self._key = key
        self._ask = ask
        self._lease = lease
        self._milliseconds = round(lease * 1000)
        # Of this attempt: workers that were forked share everything else.
        self._id = secrets.token_hex(6)

    async def notify_once(self, news: StateChange, tell: Callable[[str], Awaitable[None]]) -> bool:
        """As `BaseStateBackend.notify_once`."""
        verdict, before = await self._step(
            "claim", news.before, news.now, round(news.at * 1e6), self._milliseconds
        )
        if verdict == "tell":
            async with beside(self._renew()):
                await tell(before)
            await self._settle()
        return verdict != "wait"

    async def _settle(self) -> None:
        """Note that it is told, also if this worker is ending; at worst it will be told again."""
        noting = asyncio.ensure_future(self._step("done"))
        try:
            await asyncio.shield(noting)
        except asyncio.CancelledError:
            await asyncio.wait([noting])
            raise
        except BackendError:
            pass

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            with suppress(BackendError):
                await self._step("renew", self._milliseconds)

    async def _step(self, step: str, *args: str | int) -> tuple[str, str]:
        reply = await self._ask(("EVAL", _SOURCE, 1, self._key, step, self._id, *args), 0.0)
        match reply:
            case [bytes(verdict), bytes(before)]:
                return verdict.decode(), before.decode(errors="replace")
        raise BackendError(f"Redis cannot say who is to tell of a change: {reply!r}")
