"""The node of a cluster that owns the switch, also while its slot migrates."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeGuard

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AskError, ConnectionError, MovedError, RedisError, TryAgainError

from ..._internal.logging import error_text
from .connection import Command, RedisConnection, Reply, discard, request
from .keys import Keys
from .server import Address, Server, SingleServer

_HOPS: Final = 5


_NODE_TIMEOUT: Final = 15.0  # seconds; the default of Redis, for where it may not be read
_TRIES: Final = 3  # so many nodes that hang may be met before an attempt is given up


class ClusterServer(Server):
    """The owner of one slot, found by asking any node, which names the owner."""

    has_arbiters = True

    def __init__(self, nodes: Sequence[SingleServer], keys: Keys) -> None:
        self._node = nodes[0]
        self._given = [node.address for node in nodes]
        # What the cluster itself said last, for when the given ones are gone.
        self._known: list[Address] = []
        self._keys = keys
        self._node_timeout: float | None = None

    def describe(self) -> str:
        scheme, _, rest = self._node.describe().partition("://")
        hosts = ",".join(
            self._node.at(node).describe().partition("://")[2].partition("/")[0]
            for node in self._given
        )
        return f"{scheme}+cluster://{hosts}/{rest.rpartition('/')[2]}"

    async def connect(self, *, timeout: float, protocol: int = 3) -> AbstractConnection:
        # Never in the same order: the owner of yesterday may be the one that hangs, or that does
        # not know better.
        nodes = list(dict.fromkeys(self._given + self._known))
        problem: Exception | None = None
        async with asyncio.timeout(timeout):
            for node in random.sample(nodes, len(nodes)):
                try:
                    return await self._owner_as_told_by(node, timeout / _TRIES, protocol)
                except (RedisError, OSError) as error:
                    problem = error
        assert problem is not None
        raise ConnectionError(
            f"No node of the cluster leads to the switch: {error_text(problem)}"
        ) from problem

    async def connect_to(self, address: Address, *, timeout: float) -> AbstractConnection:
        return await self._node.connect_to(address, timeout=timeout)

    async def takeover_time(self, wire: RedisConnection, *, within: float) -> float:
        """Return the node timeout: a node that is cut off serves for so long."""
        if self._node_timeout is None:
            (reply,) = await wire.call(("CONFIG", "GET", "cluster-node-timeout"), within=within)
            try:
                self._node_timeout = int(reply[1].decode()) / 1000
            except (TypeError, ValueError, AttributeError):
                self._node_timeout = _NODE_TIMEOUT
        return self._node_timeout

    @asynccontextmanager
    async def follow(
        self, wire: RedisConnection, moved: Callable[[], None], *, every: float
    ) -> AsyncIterator[None]:
        # When the slot leaves, the node ends this subscription; that push causes a sync, and the
        # sync is told where to go. Redis before 7 knows no such thing. There the next poll is told.
        await wire.call(("SSUBSCRIBE", self._keys.events), within=every)
        yield

    async def _owner_as_told_by(
        self, node: Address, timeout: float, protocol: int
    ) -> AbstractConnection:
        for _ in range(_HOPS):
            connection = await self._node.at(node).connect(timeout=timeout, protocol=protocol)
            try:
                async with asyncio.timeout(timeout):
                    # EXISTS for its refusal, which says where to go: a value may be long.
                    answer, slots = await request(
                        connection, ("EXISTS", self._keys.switch), ("CLUSTER", "SLOTS")
                    )
                self._known = _nodes(slots, node[0]) or self._known
                if not isinstance(answer, MovedError):
                    return connection
                node = (answer.host or node[0], answer.port)  # without a host, it is this one
            except BaseException:
                await discard(connection)
                raise
            await discard(connection)
        raise ConnectionError("The nodes of the cluster send in circles.")


def _nodes(slots: Reply, host: str) -> list[Address]:
    """Every node that CLUSTER SLOTS tells of; none where it is not permitted.

    `host` is the one that was asked.
    """
    try:
        found = {
            ((name or b"").decode() or host, int(port))
            for _, _, *nodes in slots
            for name, port, *_ in nodes
        }
    except (TypeError, ValueError, AttributeError):
        return []
    # Which is how Redis calls what it does not know.
    return sorted(node for node in found if node[0] != "?")


def is_slot_migrating(reply: Reply) -> TypeGuard[AskError | TryAgainError]:
    """Return whether a node has handed over some keys, so that no script can run on all of them."""
    return isinstance(reply, AskError | TryAgainError)


async def resolved(
    server: Server,
    wire: RedisConnection,
    commands: Sequence[Command],
    replies: list[Reply],
    *,
    within: float,
) -> list[Reply]:
    """Read a migrating slot.

    Replies from the new node replace each ASK, as one of the two has the key.
    """
    sent_on = {number: reply for number, reply in enumerate(replies) if isinstance(reply, AskError)}
    if not sent_on:
        return replies
    asking: Command = ("ASKING",)
    address = _address(next(iter(sent_on.values())), wire)
    async with RedisConnection(await server.connect_to(address, timeout=within), _ignore) as other:
        answers = await other.call(
            *(command for number in sent_on for command in (asking, commands[number])),
            within=within,
        )
    replies = list(replies)
    for number, answer in zip(sent_on, answers[1::2], strict=True):
        replies[number] = answer
    return replies


def _address(ask: AskError, wire: RedisConnection) -> tuple[str, int]:
    host = wire.peer[0] if wire.peer else ""
    return ask.host or host, ask.port  # without a host, it is the same one


def _ignore() -> None:
    """Nobody waits for what is pushed on a connection for one question."""
