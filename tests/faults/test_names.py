"""Names of servers that resolve slowly, never, or to several addresses of which some are dead."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.model.state import OFF, ON
from tests.conftest import RedisServerFactory
from tests.support.ports import free_port
from tests.support.servers import RedisServer
from tests.support.waiting import eventually, eventually_sync

from .bounds import BOOT, SLACK, TTL, UNREACHABLE
from .service import Service
from .test_hang_ups import Strict

NAME: Final = "redis.test"
URLS: Final = (
    f"redis://{NAME}:6379/0",
    f"redis+sentinel://{NAME}:1,{NAME}:2,{NAME}:3/mymaster/0",
    f"redis+cluster://{NAME}:1,{NAME}:2/0",
)
HANGING: Final = f"""
import socket, time
known = socket.getaddrinfo
def getaddrinfo(host, *args, **kwargs):
    if host == {NAME!r}:
        time.sleep(600)
    return known(host, *args, **kwargs)
socket.getaddrinfo = getaddrinfo
"""
APP: Final = f"""
import asyncio
from fastapi import FastAPI
from fastapi_maintenance import MaintenanceModeMiddleware
app = FastAPI()
@app.get("/")
async def index() -> str:
    return await asyncio.to_thread(lambda: "open")
app.add_middleware(MaintenanceModeMiddleware, backend="redis://{NAME}:6379/0?ttl=0.2")
"""


class Names:
    """Stands for the resolver of the system: knows one name's addresses, or hangs."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.asked = 0
        self.answers = threading.Event()
        self._known = socket.getaddrinfo

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != NAME:
            return self._known(host, port, *args, **options)
        self.asked += 1
        self.answers.wait(60)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        kind = socket.AF_INET, socket.SOCK_STREAM, 6, ""
        return [(*kind, (address, port)) for address in self.addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    yield names
    names.answers.set()


# -- names that hang ----------


@pytest.mark.parametrize("url", URLS)
async def test_name_that_hangs_leaves_the_default_executor_free(names: Names, url: str) -> None:
    workers = (os.cpu_count() or 1) + 4
    try:
        async with Service(RedisBackend(url, ttl=0.1)) as service:
            until = time.monotonic() + min(32, workers) * 0.3 + 1
            while time.monotonic() < until:
                async with asyncio.timeout(SLACK):
                    await asyncio.to_thread(int)
                assert service.ask() == 200
                await asyncio.sleep(0.05)
            assert names.asked <= 3, "a lookup that hangs must not be begun anew"
    finally:
        names.answers.set()


async def test_name_that_is_slow_is_resolved_in_the_end(
    names: Names, redis_server: RedisServer
) -> None:
    """A lookup that takes longer than one attempt may last is not begun anew by each."""
    names.addresses = ["127.0.0.1"]
    await redis_server.acli("SET", "maintenance", 1)
    async with Service(RedisBackend(f"redis://{NAME}:{redis_server.port}/0", ttl=0.2)) as service:
        await asyncio.sleep(1.0)
        assert names.asked == 1
        names.answers.set()
        await service.becomes(503, within=SLACK)


async def test_name_that_hangs_is_named_in_the_error(names: Names) -> None:
    backend = RedisBackend(f"redis://{NAME}", timeout=0.2)
    with pytest.raises(Exception, match=rf"{NAME}.* was not resolved within 0\.2 s"):
        await backend.read()
    names.answers.set()
    await eventually(lambda: _error_of(backend), within=SLACK)


async def _error_of(backend: RedisBackend) -> bool:
    try:
        await backend.read()
    except Exception as error:
        return f"{NAME!r} cannot be resolved" in str(error)
    return False


@pytest.fixture
def hanging(tmp_path: Path) -> dict[str, str]:
    """The environment of processes in which the name hangs in the resolver."""
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    (tmp_path / "service.py").write_text(APP)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}


def test_status_gives_up_a_name_that_hangs(hanging: dict[str, str]) -> None:
    command = [sys.executable, "-m", "fastapi_maintenance", "status"]
    done = subprocess.run(
        [*command, "--backend", f"redis://{NAME}"],
        env=hanging,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert f"{NAME} was not resolved within 2 s" in " ".join(done.stderr.split())


def test_server_with_a_name_that_hangs_answers_and_stops(hanging: dict[str, str]) -> None:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port)]
    with subprocess.Popen(command, env=hanging, stderr=subprocess.DEVNULL) as server:
        try:
            eventually_sync(lambda: _answer(port), within=BOOT)
            until = time.monotonic() + 6
            while time.monotonic() < until:
                assert _answer(port).endswith(b'"open"')
                time.sleep(0.2)
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        finally:
            server.kill()


def _answer(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b"".join(iter(lambda: client.recv(65536), b""))
    except ConnectionRefusedError:
        return b""


# -- names with several addresses ----------


async def test_every_address_of_a_name_is_tried_within_ttl(
    names: Names, redis_server: RedisServer
) -> None:
    """One is silent, one drops what is sent to it before it accepts, one refuses."""
    names.addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1"]
    names.answers.set()
    await redis_server.acli("SET", "maintenance", 1)
    with (
        socket.create_server(("127.0.0.2", redis_server.port)),
        socket.create_server(("127.0.0.3", redis_server.port), backlog=0) as full,
        socket.create_connection(full.getsockname()),
    ):
        url = f"redis://{NAME}:{redis_server.port}/0"
        async with Service(RedisBackend(url, ttl=4 * TTL), on_unreachable="closed") as service:
            assert service.mode.gate.source == "redis", "the start waits for a ttl"
        assert (await RedisBackend(url, timeout=1.0).read()).switch is not None


async def test_name_that_leads_elsewhere_is_followed(
    names: Names, redis_server: RedisServer
) -> None:
    """The first address falls silent, and the name has another by then."""
    names.addresses = ["127.0.0.1"]
    names.answers.set()
    async with Service(RedisBackend(f"redis://{NAME}:{redis_server.port}/0", ttl=TTL)) as service:
        asked = names.asked
        await redis_server.acli("CLIENT", "KILL", "TYPE", "normal")
        await eventually(lambda: names.asked > asked, within=UNREACHABLE)
        await redis_server.acli("SET", "maintenance", 1)
        await service.becomes(503, within=SLACK)


@pytest.mark.parametrize("policy", ["last-known", "closed"])
async def test_demoted_primary_is_left_for_where_its_name_leads(
    names: Names, own_redis_server: RedisServerFactory, policy: str
) -> None:
    """Behind one name, as of a virtual address or a Kubernetes Service."""
    old = own_redis_server()
    new = own_redis_server(host="127.0.0.2", port=old.port, config={"protected-mode": "no"})
    names.addresses = ["127.0.0.1"]
    names.answers.set()
    backend = RedisBackend(f"redis://{NAME}:{old.port}/0", ttl=TTL)
    async with Service(backend, on_unreachable=policy) as service:
        await service.becomes(200, within=SLACK)
        names.addresses = ["127.0.0.2"]
        await old.acli("REPLICAOF", "127.0.0.2", new.port)
        await new.acli("SET", "maintenance", '{"enabled": true, "message": "new"}')
        await service.becomes(503, message="new", within=UNREACHABLE)
        await new.acli("DEL", "maintenance")
        await service.becomes(200, within=SLACK)


@pytest.mark.parametrize("rights", ["+role", "-role"])
async def test_replica_among_the_addresses_is_left_for_the_primary(
    names: Names, own_redis_server: RedisServerFactory, rights: str
) -> None:
    """As behind a headless Kubernetes Service, which names every server in any order."""
    primary, replica = await pair(own_redis_server, names)
    for server in (primary, replica):
        await server.acli("ACL", "SETUSER", "default", rights)
    url = f"redis://{NAME}:{primary.port}/0"
    async with Service(RedisBackend(url, ttl=TTL)) as service:
        await eventually(lambda: primary.acli("HKEYS", "{maintenance}:registry"), within=SLACK)
        await RedisBackend(url, timeout=SLACK).write(ON)
        await service.becomes(503, within=SLACK)
        assert await primary.acli("GET", "maintenance") == "1"


@pytest.mark.parametrize("rights", ["+role", "-role"])
async def test_primary_that_swaps_with_its_replica_is_followed(
    names: Names, own_redis_server: RedisServerFactory, rights: str
) -> None:
    primary, replica = await pair(own_redis_server, names)
    names.addresses.reverse()
    for server in (primary, replica):
        await server.acli("ACL", "SETUSER", "default", rights)
    url = f"redis://{NAME}:{primary.port}/0"
    async with Service(RedisBackend(url, ttl=TTL)) as service:
        await eventually(lambda: replica.acli("GET", "{maintenance}:epoch"), within=SLACK)
        await replica.acli("REPLICAOF", "NO", "ONE")
        await primary.acli("REPLICAOF", replica.host, replica.port)
        await replica.acli("SET", "maintenance", '{"enabled": true, "message": "new"}')
        await service.becomes(503, message="new", within=UNREACHABLE)
        # It may have read that from the old primary, whose last reports the new one lacks.
        await eventually(lambda: is_followed(replica), within=UNREACHABLE)
        await service.is_back(since=time.monotonic(), within=SLACK)
        await replica.acli("DEL", "maintenance")
        await service.becomes(200, within=SLACK)


async def is_followed(server: RedisServer) -> bool:
    return "name=fastapi-maintenance" in await server.acli("CLIENT", "LIST", "TYPE", "normal")


async def pair(start: RedisServerFactory, names: Names) -> tuple[RedisServer, RedisServer]:
    """A primary and its replica behind one name, the replica first."""
    config = {"protected-mode": "no", "repl-diskless-sync-delay": "0"}
    replica = start(config=config)
    primary = start(host="127.0.0.2", port=replica.port, config=config)
    await replica.acli("REPLICAOF", primary.host, primary.port)
    await eventually(lambda: replica_is_up(replica), within=SLACK)
    names.addresses = [replica.host, primary.host]
    names.answers.set()
    return primary, replica


async def replica_is_up(replica: RedisServer) -> bool:
    return "master_link_status:up" in await replica.acli("INFO", "replication")


async def test_proxy_that_hangs_up_on_role_is_used(names: Names, redis_server: RedisServer) -> None:
    names.addresses = ["127.0.0.1", "127.0.0.2"]
    names.answers.set()
    with Strict.before(redis_server, "ROLE") as proxy:
        backend = RedisBackend(proxy.url.replace("127.0.0.1", NAME), timeout=SLACK)
        for _ in range(2):
            assert (await backend.read()).switch == OFF
        assert proxy.ended == 1
