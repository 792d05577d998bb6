"""Reading switches while their slot is on the move between two nodes (Redis Cluster specification, "ASK redirection")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from redis.exceptions import AskError, TryAgainError

from .server import Server
from .wire import Command, Reply, Wire

__all__ = ["is_on_the_move", "read_on_the_move"]


def is_on_the_move(reply: Reply) -> TypeGuard[AskError | TryAgainError]:
    """Whether a node has given some keys of the slot away already, so that nobody can run a script on all of them."""
    return isinstance(reply, AskError | TryAgainError)


async def read_on_the_move(server: Server, wire: Wire, reads: Sequence[Command], *, within: float) -> list[Reply]:
    """Replies to commands on one key each, from whichever of the two nodes has it; from the new one also where it is absent."""
    replies = await wire.call(*reads, within=within)
    sent_on = {number: reply for number, reply in enumerate(replies) if isinstance(reply, AskError)}
    if not sent_on:
        return replies
    asking: Command = ("ASKING",)
    address = _address(next(iter(sent_on.values())), wire)
    async with Wire(await server.connect_to(address, timeout=within), _ignore) as other:
        answers = await other.call(*(command for number in sent_on for command in (asking, reads[number])), within=within)
    for number, answer in zip(sent_on, answers[1::2], strict=True):
        replies[number] = answer
    return replies


def _address(ask: AskError, wire: Wire) -> tuple[str, int]:
    host = wire.peer[0] if wire.peer else ""
    return ask.host or host, ask.port  # without a host, it is the same one


def _ignore() -> None:
    """Nobody waits for what is pushed on a connection for one question."""
