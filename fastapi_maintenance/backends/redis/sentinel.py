"""Redis behind Sentinels: the master that they name owns the switch."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final, NamedTuple

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, RedisError

from ..._internal.logging import error_text
from ..._internal.tasks import beside
from ...exceptions import BackendError
from .connection import RedisConnection, Reply, discard, request
from .server import Address, Server, SingleServer

# seconds; Sentinels tell each other of a failover every 2 (Redis documentation, "Sentinel")
_AGREED_WITHIN: Final = 10.0
_EVENT: Final = "+switch-master"


class _Vote(NamedTuple):
    """The answer of one Sentinel. The epoch grows with every failover: the highest is newest."""

    epoch: int
    master: Address


class SentinelServer(Server):
    """The master of one name, as its Sentinels know it.

    They are all asked at once, and of what a majority answers the newest counts: after a failover
    some of them still name the old master, which for some seconds more answers as if nothing had
    happened.
    """

    has_arbiters = True

    def __init__(self, sentinels: Sequence[SingleServer], name: str, master: SingleServer) -> None:
        self._sentinels = sentinels
        self._name = name
        self._master = master
        self._newest = _Vote(-1, ("", 0))
        self._newest_at = 0.0
        # What each Sentinel named last, and when it was asked.
        self._named: dict[SingleServer, tuple[Address, float]] = {}

    def describe(self) -> str:
        hosts = ",".join(sentinel.netloc for sentinel in self._sentinels)
        return f"{self._master.scheme}+sentinel://{hosts}/{self._name}/{self._master.database}"

    async def connect(self, *, timeout: float, protocol: int = 3) -> AbstractConnection:
        async with asyncio.timeout(timeout):
            master = await self._resolve(timeout)
            connection = await self._master.at(master).connect(timeout=timeout, protocol=protocol)
            try:
                await _expect_master(connection)
            except BaseException:
                await discard(connection)
                raise
        return connection

    def at(self, address: Address) -> SingleServer:
        return self._master.at(address)

    def follow(
        self, connection: RedisConnection, moved: Callable[[], None], *, every: float
    ) -> AbstractAsyncContextManager[None]:
        def hear(vote: _Vote) -> None:
            if self._learn(vote).master != connection.peer:
                moved()

        return beside(*(self._monitor(each, hear, every / 2) for each in self._sentinels))

    async def _resolve(self, timeout: float) -> Address:
        """Find the master that the newest of a majority's answers names, or of those in time."""
        asked = [
            asyncio.create_task(self._ask_once(sentinel, timeout / 2))
            for sentinel in self._sentinels
        ]
        problem, votes = "", 0
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    self._learn(await answer)
                except (RedisError, OSError, BackendError) as error:
                    problem = error_text(error)
                else:
                    votes += 1
                if votes > len(asked) / 2:
                    break
        finally:
            for task in asked:
                task.cancel()
            await asyncio.wait(asked)
        if not votes:
            raise ConnectionError(
                f"None of {len(asked)} Sentinels knows where {self._name!r} is: {problem}"
            )
        return self._newest.master

    def confirmed_at(self, peer: Address | None) -> float:
        """Return since when no majority of Sentinels has named this master."""
        times = sorted((at for named, at in self._named.values() if named == peer), reverse=True)
        majority = len(self._sentinels) // 2 + 1
        return times[majority - 1] if len(times) >= majority else -math.inf

    def _learn(self, vote: _Vote) -> _Vote:
        """Return the newest vote, this one included.

        A Sentinel that is behind has some seconds to follow.
        """
        now = time.monotonic()
        if vote.epoch >= self._newest.epoch or now - self._newest_at > _AGREED_WITHIN:
            self._newest, self._newest_at = vote, now
        return self._newest

    async def _ask_once(self, sentinel: SingleServer, timeout: float) -> _Vote:
        opened = await sentinel.connect(timeout=timeout, protocol=2)
        async with RedisConnection(opened, within=timeout) as connection:
            return await self._ask(sentinel, connection)

    async def _ask(self, sentinel: SingleServer, connection: RedisConnection) -> _Vote:
        at = time.monotonic()
        (reply,) = await connection.call(("SENTINEL", "MASTER", self._name))
        vote = _read(reply)
        self._named[sentinel] = vote.master, at
        return vote

    async def _monitor(
        self, sentinel: SingleServer, hear: Callable[[_Vote], None], every: float
    ) -> None:
        """Ask one Sentinel again and again, and at once when it speaks of a failover."""
        while True:
            # Then the others must do, until it is back.
            with suppress(RedisError, OSError, BackendError):
                notified = asyncio.Event()
                opened = await sentinel.connect(timeout=every)
                async with RedisConnection(opened, notified.set, within=every) as connection:
                    await connection.call(("SUBSCRIBE", _EVENT))
                    while True:
                        notified.clear()
                        hear(await self._ask(sentinel, connection))
                        with suppress(TimeoutError):
                            async with asyncio.timeout(every):
                                await notified.wait()
            await asyncio.sleep(every)


def _read(reply: Reply) -> _Vote:
    """Read what SENTINEL MASTER answers: a map, or with RESP2 the same flattened."""
    if isinstance(reply, Exception):
        raise BackendError(f"A Sentinel answered: {reply}") from reply
    try:
        fields: dict[Any, Any] = (
            reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
        )
        # The Sentinel that conducts a failover counts it before it names the new master.
        conducts = b"failover_in_progress" in fields.get(b"flags", b"").split(b",")
        address = fields[b"ip"].decode(), int(fields[b"port"])
        return _Vote(int(fields[b"config-epoch"]) - conducts, address)
    except (TypeError, ValueError, KeyError, AttributeError):
        raise BackendError("A Sentinel answered with something else than a master.") from None


async def _expect_master(connection: AbstractConnection) -> None:
    """Raise `ConnectionError` if it is a replica, as a master is that has just been demoted."""
    (role,) = await request(connection, ("ROLE",))
    if isinstance(role, Exception):
        return  # not permitted to ask
    if not (isinstance(role, list) and role and role[0] == b"master"):
        raise ConnectionError("The Sentinels name a server as master that is a replica.")
