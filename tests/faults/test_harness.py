"""That the faults are faults, and that what watches the tests can fail."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from fastapi_maintenance.backends import RedisBackend
from tests.support.servers import RedisServer

from . import leaks
from .bounds import LOOP_LAG, SLACK, TTL
from .island import Island
from .leaks import nothing_left
from .proxy import Proxy
from .service import RequestWaited, Service
from .watchdog import Watchdog

# -- what watches ----------------------------------------------------------------------------------


async def block() -> None:
    time.sleep(2 * LOOP_LAG)


async def compute() -> None:
    until = time.thread_time() + 2 * LOOP_LAG
    while time.thread_time() < until:
        pass


@pytest.mark.parametrize("waste", [block, compute])
async def test_whoever_keeps_the_loop_to_himself_is_noticed(
    watchdog: Watchdog, waste: Callable[[], Awaitable[None]]
) -> None:
    watchdog.bound = SLACK  # the test's own
    another = Watchdog(bound=SLACK)
    with another:
        await asyncio.sleep(0)
        for _ in range(5):  # one is hidden if the machine stands still meanwhile
            await waste()
            await asyncio.sleep(0.02)
    another.bound = LOOP_LAG
    with pytest.raises(AssertionError, match="ms late"):
        another.check()


async def test_a_busy_machine_is_not_taken_for_a_late_loop() -> None:
    """Four processes for each processor, each of which wants one whole: this test's own watchdog
    lets it pass, though it must wait.
    """
    hogs = [
        await asyncio.to_thread(subprocess.Popen, [sys.executable, "-c", "while True: pass"])
        for _ in range(4 * (os.cpu_count() or 1))
    ]
    try:
        await asyncio.sleep(2)
    finally:
        for hog in hogs:
            hog.kill()
            await asyncio.to_thread(hog.wait)


async def test_what_is_left_behind_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "SLACK", 0.05)
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, name="left behind")
    watch = nothing_left()
    await watch.__aenter__()
    task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")
    thread.start()
    with socket.create_server(("127.0.0.1", 0)):
        with pytest.raises(AssertionError) as failure:
            await watch.__aexit__(None, None, None)
        task.cancel()
        ended.set()
        thread.join()
    assert all(
        word in str(failure.value)
        for word in ("task", "forgotten", "thread", "left behind'", "socket:")
    )


async def test_a_request_that_waits_is_noticed(redis_url: str) -> None:
    """As one must that comes before anything is known; but within a lifespan that is over."""
    service = Service(RedisBackend(redis_url, ttl=TTL))
    with pytest.raises(RequestWaited):
        service.ask()
    await service.mode.stop()


# -- the proxy -------------------------------------------------------------------------------------


@pytest.fixture
def peer(proxy: Proxy) -> Iterator[socket.socket]:
    """A client's side."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=SLACK) as peer:
        assert say(peer) == b"+PONG\r\n"
        yield peer


def say(peer: socket.socket) -> bytes:
    peer.sendall(b"PING\r\n")
    return peer.recv(100)


def test_what_stalls_comes_later(proxy: Proxy, peer: socket.socket) -> None:
    for way in ({"up": True}, {"down": True}):
        proxy.stall(**way)
        peer.settimeout(0.1)
        with pytest.raises(TimeoutError):
            say(peer)
        peer.settimeout(SLACK)
        proxy.flow()
        assert peer.recv(100) == b"+PONG\r\n"


def test_what_is_delayed_comes_when_it_should(proxy: Proxy, peer: socket.socket) -> None:
    proxy.delay(lambda: 0.1)
    began = time.monotonic()
    assert say(peer) == b"+PONG\r\n"
    assert time.monotonic() - began >= 0.1


def test_what_is_changed_arrives_so(proxy: Proxy, peer: socket.socket) -> None:
    proxy.edit(lambda data: data.lower())
    assert say(peer) == b"+pong\r\n"
    proxy.edit(lambda data: data.replace(b"PING", b"PONG"), up=True)
    assert say(peer).startswith(b"-err")


def test_what_is_cut_arrives_in_part_and_then_a_reset(proxy: Proxy, peer: socket.socket) -> None:
    proxy.cut(rb"\+PONG", 3)
    assert say(peer) == b"+PO"
    with pytest.raises(ConnectionResetError):
        peer.recv(100)


def test_a_reset_is_one(proxy: Proxy, peer: socket.socket) -> None:
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        peer.recv(100)


def test_a_half_closed_connection_says_no_more_and_still_listens(
    proxy: Proxy, peer: socket.socket
) -> None:
    proxy.half_close()
    assert peer.recv(100) == b""
    peer.sendall(b"PING\r\n")
    peer.sendall(b"PING\r\n")


def test_the_connections_of_a_server_that_is_gone_are_refused(free_port: int) -> None:
    with (
        Proxy(free_port) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=SLACK) as peer,
    ):
        assert peer.recv(100) == b""
        assert proxy.accepted == 1


# -- true loss -------------------------------------------------------------------------------------


def test_packets_lost_in_both_directions_are_noticed() -> None:
    with (
        Island() as island,
        RedisServer(
            host=island.address, launcher=island.launcher, config={"protected-mode": "no"}
        ) as server,
        socket.create_connection((server.host, server.port), timeout=SLACK) as peer,
    ):
        assert say(peer) == b"+PONG\r\n"
        for way in ({"there": True}, {"back": True}):
            island.lose(**way)
            peer.settimeout(0.3)
            with pytest.raises(TimeoutError):
                say(peer)
            island.heal()
            peer.settimeout(2 * SLACK)  # until the kernel sends it once more
            assert peer.recv(100) == b"+PONG\r\n"
