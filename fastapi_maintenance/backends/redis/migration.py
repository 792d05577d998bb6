"""Reading the switch while its slot is on the move between two nodes (Redis Cluster specification, "ASK redirection")."""

from __future__ import annotations

from typing import TypeGuard

from redis.exceptions import AskError, TryAgainError

from .keys import Keys
from .server import Server
from .wire import Command, Reply, Wire

__all__ = ["is_on_the_move", "read_on_the_move"]


def is_on_the_move(reply: Reply) -> TypeGuard[AskError | TryAgainError]:
    """Whether a node has given some keys of the slot away already, so that nobody can run a script on all of them."""
    return isinstance(reply, AskError | TryAgainError)


async def read_on_the_move(server: Server, wire: Wire, keys: Keys, *, within: float) -> list[Reply]:
    """Replies to GET, PTTL and TIME, from whichever of the two nodes has the switch; the new one also where it is absent."""
    get, pttl = ("GET", keys.switch), ("PTTL", keys.switch)
    replies = await wire.call(get, pttl, ("TIME",), within=within)
    if not isinstance(elsewhere := replies[0], AskError):
        return replies
    asking: Command = ("ASKING",)
    async with Wire(await server.connect_to(_address(elsewhere, wire), timeout=within), _ignore) as other:
        _, value, _, left, clock = await other.call(asking, get, asking, pttl, ("TIME",), within=within)
    return [value, left, clock]


def _address(ask: AskError, wire: Wire) -> tuple[str, int]:
    host = wire.peer[0] if wire.peer else ""
    return ask.host or host, ask.port  # without a host, it is the same one


def _ignore() -> None:
    """Nobody waits for what is pushed on a connection for one question."""
