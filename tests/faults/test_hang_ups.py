"""Proxies and services that end a connection at a command, where Redis would refuse the command."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import pytest

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.exceptions import BackendUnavailableError, UnsupportedError
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON
from tests.conftest import RedisServerFactory
from tests.support.servers import RedisServer
from tests.support.topologies import cluster
from tests.support.waiting import eventually

from .bounds import BACK, BY_POLL, BY_PUSH, PATIENT, SLACK
from .service import Service

TRACKING: Final = "CLIENT\r\n$8\r\nTRACKING"
HUNG_UP: Final = {
    ("HELLO",): "message",
    (TRACKING,): "message",
    ("CLIENT",): "message",
    ("CACHING",): "message",
    ("SETNAME",): "message",
    ("EVALSHA",): "tracking",
    ("HELLO", "CLIENT"): "message",
    (TRACKING, "SUBSCRIBE"): "polling",
    ("HELLO", "SUBSCRIBE"): "polling",
    ("HELLO", "CLIENT", "SUBSCRIBE", "EVALSHA"): "polling",
}


class Strict:
    """A proxy to a server that ends each connection at a command that it does not like."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.disliked: tuple[bytes, ...] = ()
        self.ended = 0
        self.on_hang_up: Callable[[], object] = int
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    @classmethod
    @contextmanager
    def before(cls, server: RedisServer, *disliked: str) -> Iterator[Strict]:
        proxy = cls(server)
        proxy.dislike(*disliked)
        accepting = threading.Thread(target=proxy._accept, daemon=True)
        accepting.start()
        try:
            yield proxy
        finally:
            _shut(proxy._listener)
            for each in proxy._sockets:
                _shut(each)
            accepting.join(10)

    def dislike(self, *commands: str) -> None:
        self.disliked = tuple(f"\r\n{command}\r\n".encode() for command in commands)

    def _accept(self) -> None:
        threads = []
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                try:
                    server = socket.create_connection(("127.0.0.1", self._server.port))
                except ConnectionRefusedError:
                    _shut(client)
                    continue
                self._sockets.append(server)
                for ways in ((client, server, True), (server, client, False)):
                    threads.append(threading.Thread(target=self._pass_on, args=ways, daemon=True))
                    threads[-1].start()
        for thread in threads:
            thread.join(10)

    def _pass_on(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if up and any(command in data for command in self.disliked):
                    self.ended += 1
                    self.on_hang_up()
                    break
                target.sendall(data)
        _shut(source)
        _shut(target)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


def delivery_of(backend: RedisBackend) -> str:
    (link,) = backend._links
    return str(link.status.delivery)


@pytest.mark.parametrize(
    "commands", HUNG_UP, ids=lambda names: "+".join(name.split()[-1] for name in names)
)
async def test_hang_up_at_a_command_leaves_a_lesser_delivery(
    redis_server: RedisServer, operator: Any, commands: tuple[str, ...]
) -> None:
    with Strict.before(redis_server, *commands) as proxy:
        backend = RedisBackend(proxy.url, ttl=PATIENT)
        async with Service(backend) as service:
            await eventually(lambda: service.mode.gate.source == "redis", within=BACK)
            await eventually(lambda: delivery_of(backend) == HUNG_UP[commands], within=BACK)
            await operator.set("maintenance", 1)
            await service.becomes(503, within=BY_POLL)
            ended, fresh_at = proxy.ended, service.mode.cache.fresh_at
            await eventually(lambda: service.mode.cache.fresh_at > fresh_at + 1, within=BY_POLL)
            assert proxy.ended - ended <= 2 * len(commands), "it is tried again seldom"


async def test_switch_is_set_without_scripts_after_a_hang_up(
    redis_server: RedisServer, operator: Any
) -> None:
    with Strict.before(redis_server, "EVALSHA", "EVAL") as proxy:
        backend = RedisBackend(proxy.url, ttl=PATIENT)
        async with Service(backend) as service:
            await backend.write(ON.replace(message="Back at noon"))
            await service.becomes(503, message="Back at noon", within=BY_PUSH)
            reading = await backend.read()
            assert await backend.compare_and_set(reading, OFF)
            await service.becomes(200, within=BY_PUSH)
            assert await operator.get("maintenance") is None


@pytest.mark.parametrize("step", ["hold", "barrier", "clear"])
async def test_step_after_a_hang_up_names_the_missing_scripts(
    redis_server: RedisServer, step: str
) -> None:
    with Strict.before(redis_server, "EVALSHA", "EVAL") as proxy:
        backend = RedisBackend(proxy.url)
        steps: dict[str, Callable[[], Awaitable[object]]] = {
            "hold": partial(backend.acquire, Hold("a", ON), 30.0),
            "barrier": backend.begin_barrier,
            "clear": backend.clear,
        }
        with pytest.raises(UnsupportedError) as caught:
            await steps[step]()
        assert str(caught.value) == (
            "A proxy closes the connection at EVALSHA. Holds, barriers and the history need "
            "scripts: connect to Redis itself, or let the proxy pass EVALSHA and EVAL."
        )


async def test_hang_up_of_a_killed_server_is_not_put_down_to_scripts(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    with Strict.before(server, "EVALSHA") as proxy:
        backend = RedisBackend(proxy.url)
        proxy.on_hang_up = server.kill
        with pytest.raises(BackendUnavailableError):
            await backend.acquire(Hold("a", ON), 30.0)


@pytest.mark.parametrize("commands", [("SSUBSCRIBE",), ("HELLO", "SSUBSCRIBE")], ids="+".join)
async def test_hang_up_at_ssubscribe_leaves_the_poll(
    commands: tuple[str, ...],
) -> None:
    with cluster() as nodes, Strict.before(nodes.owner, *commands) as proxy:
        # It names no nodes, so that nothing leads past the proxy.
        await nodes.owner.acli("ACL", "SETUSER", "default", "-cluster|slots")
        backend = RedisBackend(proxy.url.replace("redis", "redis+cluster"), ttl=PATIENT)
        async with Service(backend) as service:
            way = "message" if "HELLO" in commands else "tracking"
            await eventually(lambda: delivery_of(backend) == way, within=BACK)
            await nodes.owner.acli("SET", "maintenance", 1)
            await service.becomes(503, within=BY_POLL)


async def test_hang_up_that_passes_is_forgotten(redis_server: RedisServer) -> None:
    with Strict.before(redis_server, "HELLO", "EVALSHA") as proxy:
        backend = RedisBackend(proxy.url, ttl=0.2)
        async with Service(backend):
            await eventually(lambda: delivery_of(backend) == "message", within=BACK)
            proxy.dislike()
            await eventually(lambda: delivery_of(backend) == "tracking", within=2 * BACK)


async def test_server_killed_while_it_greets_is_tried_again_soon(
    own_redis_server: RedisServerFactory,
) -> None:
    """A hang-up, too; but what comes next is a refused connection."""
    server = own_redis_server()
    with Strict.before(server, "HELLO") as proxy:
        backend = RedisBackend(proxy.url, ttl=60.0)
        async with Service(backend) as service:
            await eventually(lambda: proxy.ended > 0, within=SLACK)
            server.kill()
            await eventually(lambda: delivery_of(backend) == "down", within=BACK)
            proxy.dislike()
            up = time.monotonic()
            await asyncio.to_thread(server.start)
            await service.is_back(since=up, within=BACK)
            await eventually(lambda: delivery_of(backend) == "tracking", within=BACK)
