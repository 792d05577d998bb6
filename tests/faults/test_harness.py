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
        await asyncio.sleep(0.6)
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


def assert_silent(peer: socket.socket, seconds: float) -> None:
    peer.settimeout(seconds)
    with pytest.raises(TimeoutError):
        say(peer)
    peer.settimeout(SLACK)


def test_faults_of_the_proxy_are_felt(proxy: Proxy, peer: socket.socket) -> None:
    for way in ({"up": True}, {"down": True}):
        proxy.stall(**way)
        assert_silent(peer, 0.1)
        proxy.flow()
        assert peer.recv(100) == b"+PONG\r\n"
    proxy.edit(lambda data: data.lower())
    assert say(peer) == b"+pong\r\n"
    proxy.edit(lambda data: data.replace(b"PING", b"PONG"), up=True)
    assert say(peer).startswith(b"-err")


def test_what_is_cut_arrives_in_part_and_then_a_reset(proxy: Proxy, peer: socket.socket) -> None:
    proxy.cut(rb"\+PONG", 3)
    assert say(peer) == b"+PO"
    with pytest.raises(ConnectionResetError):
        peer.recv(100)


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
            assert_silent(peer, 0.3)
            island.heal()
            peer.settimeout(2 * SLACK)  # until the kernel sends it once more
            assert peer.recv(100) == b"+PONG\r\n"
