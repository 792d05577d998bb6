"""The ways to turn the switch that the check tries."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ..defaults import set_maintenance_mode
from ..responses import DETAIL
from .server import KEYS, RedisServer

__all__ = ["ByCommands", "ByLibrary", "RunningOut", "Turn", "all_turns"]

Command = tuple[str, ...]

_KEY: Final = KEYS.switch
_MESSAGE: Final = "Back at 04:00 UTC"
_BY_LUA: Final = "return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))"


class Turn(Protocol):
    """One way to turn the switch on, and off again."""

    @property
    def name(self) -> str:
        """How the table calls it."""

    @property
    def detail(self) -> str:
        """What a closed worker answers then."""

    async def make(self, redis: RedisServer, *, on: bool) -> float:
        """Turn it. Returns the monotonic time just before it changed."""


@dataclass(frozen=True, slots=True)
class ByCommands:
    """By what anybody with redis-cli can write; the last command of a sequence makes the change."""

    name: str
    on: Sequence[Command]
    off: Sequence[Command]
    detail: str = DETAIL

    async def make(self, redis: RedisServer, *, on: bool) -> float:
        *preparing, changing = self.on if on else self.off
        for command in preparing:
            await redis.run(*command)
        at = time.monotonic()
        await redis.run(*changing)
        return at


@dataclass(frozen=True, slots=True)
class ByLibrary:
    """As the command line and an application's own code do it."""

    name: str = "set_maintenance_mode(True), (False)"
    detail: str = DETAIL

    async def make(self, redis: RedisServer, *, on: bool) -> float:
        at = time.monotonic()
        await set_maintenance_mode(on, redis.url)
        return at


@dataclass(slots=True)
class RunningOut:
    """On for so many seconds; nobody writes to turn it off."""

    seconds: int
    detail: str = DETAIL
    _ends_at: float = 0.0

    @property
    def name(self) -> str:
        return f"SET {_KEY} 1 EX {self.seconds}, which runs out"

    async def make(self, redis: RedisServer, *, on: bool) -> float:
        if on:
            at = time.monotonic()
            await redis.run("SET", _KEY, "1", "EX", str(self.seconds))
            self._ends_at = at + self.seconds
            return at
        await asyncio.sleep(self._ends_at - time.monotonic())
        return self._ends_at


def all_turns(rounds: int) -> list[Turn]:
    """Every way, the plain one that many times; all leave the switch off."""
    off = [("DEL", _KEY)]
    plain = ByCommands(f"SET {_KEY} 1, DEL {_KEY}", [("SET", _KEY, "1")], off)
    details = json.dumps({"enabled": True, "message": _MESSAGE})
    others: list[Turn] = [
        ByCommands(f"SET {_KEY} on EX 600, SET {_KEY} off", [("SET", _KEY, "on", "EX", "600")], [("SET", _KEY, "off")]),
        ByCommands("SET with a JSON object, GETDEL", [("SET", _KEY, details)], [("GETDEL", _KEY)], _MESSAGE),
        ByCommands(
            "RENAME to it, and away", [("SET", f"{_KEY}:next", "1"), ("RENAME", f"{_KEY}:next", _KEY)], [("RENAME", _KEY, f"{_KEY}:old")]
        ),
        ByCommands("EVAL, a Lua script", [("EVAL", _BY_LUA, "1", _KEY, "SET", "1")], [("EVAL", _BY_LUA, "1", _KEY, "DEL")]),
        ByCommands("MULTI … EXEC", [("MULTI",), ("SET", _KEY, "1"), ("EXEC",)], [("MULTI",), *off, ("EXEC",)]),
        ByLibrary(),
        RunningOut(2),
    ]
    return [plain] * rounds + others
