"""What is under the soak: a Redis with a network before it, workers, their load, and everybody who
flips.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

from redis.asyncio import Redis

from fastapi_maintenance import MaintenanceState
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.model.holds import Hold

from ..checker.crew import Nursery, Worker
from ..faults.proxy import Proxy
from ..support.servers import RedisServer
from .load import Load
from .truth import Flip, Truth

KEY: Final = "maintenance"
PATIENCE: Final = 20.0  # seconds for what is no fault: a process that starts, a server that answers
_USERS: Final = "user default on nopass ~* &* +@all\nuser worker on nopass ~* &* +@all\n"
# What a killed process has written stays written; only a machine that loses power would need the
# disk to be waited for.
_CONFIG: Final = {
    "appendonly": "yes",
    "appendfsync": "no",
    "save": "",
    "enable-debug-command": "yes",
}

Write = Callable[[], Awaitable[object]]


class Site:
    """Everything, running. `ttl` is the workers'; `bound_ttl` what the soak believes it to be."""

    def __init__(
        self,
        chance: random.Random,
        *,
        workers: int,
        rate: int,
        ttl: float,
        bound_ttl: float,
        slack: float,
    ) -> None:
        self.chance = chance
        self.ttl = bound_ttl
        self.truth = Truth(time.monotonic(), slack)
        self.excused: set[int] = set()  # workers whose connections may end
        self.workers: dict[int, Worker] = {}
        self._worker_ttl = ttl
        self._count = workers
        self._next = 0
        self._stack = AsyncExitStack()
        self.load = Load(rate, workers)

    async def __aenter__(self) -> Self:
        stack = self._stack
        try:
            self._home = Path(stack.enter_context(TemporaryDirectory(prefix="soak-")))
            users = self._home / "users.acl"
            users.write_text(_USERS)
            self.server = RedisServer(config=_CONFIG, users=users, patience=PATIENCE)
            stack.callback(self.server.close)
            await asyncio.to_thread(self.server.start)
            self.network = stack.enter_context(Proxy(self.server.port))
            client = Redis(port=self.server.port, socket_timeout=PATIENCE, decode_responses=True)
            self.operator: Any = await stack.enter_async_context(client)
            self.backend = RedisBackend(self.server.url, timeout=PATIENCE)
            self._nursery = await stack.enter_async_context(Nursery())
            await stack.enter_async_context(self.load)
            stack.callback(self._dismiss)
            for _ in range(self._count):
                await self.hire()
        except BaseException:
            await stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    # -- workers -----------------------------------------------------------------------------------

    async def hire(self) -> int:
        """Start a worker, wait until it serves, and put it under load."""
        number, self._next = self._next, self._next + 1
        socket = self._home / f"{number}.sock"
        url = f"redis://worker@127.0.0.1:{self.network.port}/0?ttl={self._worker_ttl}"
        order = {
            "url": url,
            "policy": "last-known",
            "stale_after": 2 * self._worker_ttl,
            "variant": "",
            "log": os.devnull,
            "socket": str(socket),
        }
        started = time.monotonic()
        self.workers[number] = Worker(await self._nursery.fork(order), socket, started)
        await _serving(socket)
        self.load.add(number, socket)
        return number

    def fire(self, number: int) -> None:
        """Kill a worker as a crash does."""
        self.excused.add(number)
        self.workers.pop(number).signal(signal.SIGKILL)
        self.load.drop(number)

    def pick(self) -> int:
        """A worker to be hurt; the first two live for the whole run, so that their memory can be
        watched.
        """
        return self.chance.choice(sorted(self.workers)[2:])

    def veterans(self) -> list[int]:
        """Process ids of those two."""
        return [self.workers[number].pid for number in sorted(self.workers)[:2]]

    def _dismiss(self) -> None:
        for worker in self.workers.values():
            worker.signal(signal.SIGKILL)

    # -- flips -------------------------------------------------------------------------------------

    async def flip(self, *, bound: float | None = None) -> Flip:
        """Open what is closed and close what is open, in one of the ways in which that is done.

        Every worker must follow within `bound` seconds (default `ttl`) of the reply.
        """
        flip = self.truth.begin(not self.truth.closed, time.monotonic())
        await self._write(flip.closed)()
        self.settle(flip, bound=bound)
        return flip

    def settle(self, flip: Flip, *, bound: float | None = None) -> None:
        """From now on every worker can follow it, and must within the bound."""
        flip.reference = time.monotonic()
        flip.bound = self.ttl if bound is None else bound

    def _write(self, closed: bool) -> Write:
        client = self.operator
        if not closed:
            return self.chance.choice(
                [
                    lambda: client.delete(KEY),
                    lambda: client.set(KEY, "off"),
                    lambda: client.set(KEY, '{"enabled": false}'),
                    lambda: client.unlink(KEY),
                    lambda: client.rename(KEY, "elsewhere"),
                    lambda: client.expire(KEY, 0),
                    lambda: self.backend.set_value(False),
                    lambda: client.eval("return redis.call('DEL', KEYS[1])", 1, KEY),
                ]
            )
        window = {
            "enabled": True,
            "message": "back soon",
            "ends_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        }
        return self.chance.choice(
            [
                lambda: client.set(KEY, "1"),
                lambda: client.set(KEY, "on", ex=3600),
                lambda: client.set(KEY, json.dumps(window)),
                lambda: client.getset(KEY, "yes"),
                lambda: client.set(KEY, " TRUE "),
                lambda: client.mset({KEY: "1"}),
                lambda: self.backend.write(
                    MaintenanceState(enabled=True, reason="soak"), expires_in=3600
                ),
                lambda: client.eval("return redis.call('SET', KEYS[1], 't')", 1, KEY),
                lambda: client.pipeline(transaction=True).set(KEY, "0").set(KEY, "1").execute(),
            ]
        )

    async def close(self) -> None:
        """Have it closed, and give every worker the time to follow."""
        if not self.truth.closed:
            await self.flip()
            await asyncio.sleep(self.ttl + 0.3)

    async def open(self) -> None:
        """Have it open, and give every worker the time to follow."""
        if self.truth.closed:
            await self.flip()
            await asyncio.sleep(self.ttl)

    async def hold(self, closed: bool) -> Hold:
        """Take a hold that outlives the fault."""
        hold = Hold(os.urandom(4).hex(), MaintenanceState(enabled=closed))
        return await self.backend.acquire(hold, 600.0)

    async def command(self, *words: str | int | bytes) -> Any:
        """A bare client's command."""
        return await self.operator.execute_command(*words)


async def _serving(socket: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(str(socket))
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"no worker serves {socket}") from None
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return
