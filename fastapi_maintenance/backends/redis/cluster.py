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
from ...exceptions import BackendUnavailableError
from .connection import Command, HungUpError, RedisConnection, Reply, discard, request
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
        hosts = ",".join(self.at(node).netloc for node in self._given)
        return f"{self._node.scheme}+cluster://{hosts}/{self._node.database}"

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
        kind = HungUpError if isinstance(problem, HungUpError) else ConnectionError
        raise kind(
            f"No node of the cluster leads to the switch: {error_text(problem)}"
        ) from problem

    def at(self, address: Address) -> SingleServer:
        return self._node.at(address)

    async def takeover_time(self, connection: RedisConnection) -> float:
        """Return the node timeout: a node that is cut off serves for so long."""
        if self._node_timeout is None:
            ask = "CONFIG", "GET", "cluster-node-timeout"
            try:
                (reply,) = await connection.call(ask)
                self._node_timeout = int(reply[1].decode()) / 1000
            except (TypeError, ValueError, AttributeError, BackendUnavailableError):
                self._node_timeout = _NODE_TIMEOUT
        return self._node_timeout

    @asynccontextmanager
    async def follow(
        self, connection: RedisConnection, moved: Callable[[], None], *, every: float
    ) -> AsyncIterator[None]:
        # When the slot leaves, the node ends this subscription; that push causes a sync, and the
        # sync is told where to go. Redis before 7 knows no such thing. There the next poll is told.
        await connection.call(("SSUBSCRIBE", self._keys.events))
        yield

    async def _owner_as_told_by(
        self, node: Address, timeout: float, protocol: int
    ) -> AbstractConnection:
        for _ in range(_HOPS):
            connection = await self.at(node).connect(timeout=timeout, protocol=protocol)
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
    connection: RedisConnection,
    commands: Sequence[Command],
    replies: list[Reply],
    *,
    within: float,
) -> list[Reply]:
    """Read a migrating slot.

    Replies from the new node replace each ASK, as one of the two has the key.
    """
    moved = {number: reply for number, reply in enumerate(replies) if isinstance(reply, AskError)}
    if not moved:
        return replies
    ask = next(iter(moved.values()))
    here = connection.peer[0] if connection.peer else ""
    other = server.at((ask.host or here, ask.port))  # without a host, it is the same one
    commands = [word for number in moved for word in (("ASKING",), commands[number])]
    opened = await other.connect(timeout=within, protocol=2)
    async with RedisConnection(opened, within=within) as there:
        answers = iter((await there.call(*commands))[1::2])
    return [next(answers) if number in moved else reply for number, reply in enumerate(replies)]
