"""Every server that runs FastAPI, with several workers and a real Redis: what works, as
docs/servers.md shows it. `RENEW_DOCS=1` writes the table anew.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException, IncompleteRead
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from fastapi_maintenance.coordination.barrier import BarrierResult, wait_until_applied

from ..support.pages import ROOT
from ..support.servers import RedisServer
from ..support.waiting import eventually_sync
from ..support.workers import Workers

PAGE: Final = ROOT / "docs" / "servers.md"
BOOT: Final = 60.0  # seconds for a server to start or to end on a busy machine
SOON: Final = 20.0  # seconds for what takes milliseconds
BEGIN: Final = "<!-- made by tests/servers/test_conformance.py -->\n"
MAIN: Final = "from tests.servers.application import app as app\n"


@dataclass(frozen=True)
class Kind:
    """How one server is started: `command` as the page shows it, `options` for where it listens
    here, and `reload` in place of the command where the server reloads by itself.
    """

    command: str
    options: str = "--port {port} --timeout-keep-alive 600"  # seconds, longer than a test
    count: int = 2
    reload: str = ""
    needs: str = "uvicorn"


_GUNICORN: Final = "--bind 127.0.0.1:{port} --keep-alive 600 --graceful-timeout 60"
_WORKER: Final = "gunicorn main:app --workers 2 --worker-class uvicorn_worker.UvicornWorker"
KINDS: Final = {
    "uvicorn with h11 and asyncio": Kind(
        "uvicorn main:app --workers 2 --http h11 --loop asyncio",
        reload="uvicorn main:app --reload --http h11 --loop asyncio",
    ),
    "uvicorn with httptools and uvloop": Kind(
        "uvicorn main:app --workers 2 --http httptools --loop uvloop", needs="uvloop"
    ),
    "FastAPI's command": Kind(
        "fastapi run main.py --workers 4", "--port {port}", 4, "", "fastapi_cli"
    ),
    "FastAPI's command, in development": Kind(
        "fastapi dev main.py", "--port {port}", 1, "fastapi dev main.py", "fastapi_cli"
    ),
    "hypercorn": Kind(
        "hypercorn main:app --workers 2",
        "--bind 127.0.0.1:{port} --keep-alive 600",
        reload="hypercorn main:app --reload",
        needs="hypercorn",
    ),
    "granian": Kind(
        "granian --interface asgi main:app --workers 2",
        "--port {port}",
        reload="granian --interface asgi main:app --reload",
        needs="granian",
    ),
    # Its own reloader does not reach this worker class: github.com/benoitc/gunicorn/issues/2339
    "gunicorn": Kind(_WORKER, _GUNICORN, needs="uvicorn_worker"),
    "gunicorn, preloaded": Kind(f"{_WORKER} --preload", _GUNICORN, needs="uvicorn_worker"),
    "daphne": Kind("daphne main:app", "--port {port}", 1, needs="daphne"),
}


@dataclass
class Service:
    """A running server, and the switch that it follows."""

    redis: RedisServer
    workers: Workers
    home: Path
    pool: ThreadPoolExecutor

    def write(self, value: int) -> None:
        self.redis.cli("SET", "maintenance", value)
        self.expect(503 if value else 200)

    def expect(self, status: int) -> None:
        """Wait until every worker answers so."""
        self.workers.connect(within=BOOT)
        eventually_sync(lambda: self.statuses == {status}, within=SOON)

    @property
    def statuses(self) -> set[int]:
        return {answer.status for answer in self.workers.get_all("/").values()}

    @property
    def registered(self) -> set[str]:
        fields = self.redis.cli("HKEYS", "{maintenance}:registry").split()
        return {field for field in fields if not field.startswith("#")}

    @property
    def links(self) -> int:
        return self.redis.cli("CLIENT", "LIST").count("name=fastapi-maintenance:")

    @property
    def held(self) -> bool:
        return self.redis.cli("HLEN", "{maintenance}:holds") != "0"

    @property
    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.workers.port)) == 0

    def ask(self, path: str) -> Future[str]:
        """Ask in a thread, and return what will be answered; "cut" for nothing whole."""
        connection = HTTPConnection("127.0.0.1", self.workers.port, timeout=BOOT)
        connection.connect()

        def asked() -> str:
            with closing(connection):
                try:
                    connection.request("GET", path)
                    return connection.getresponse().read().decode().strip('"')
                except (OSError, HTTPException):
                    return "cut"

        return self.pool.submit(asked)

    def occupy(self) -> Future[str]:
        """Have a request in flight until it is released."""
        for name in ("busy", "released"):
            (self.home / name).unlink(missing_ok=True)
        slow = self.ask("/slow")
        eventually_sync((self.home / "busy").exists, within=SOON)
        return slow

    def release(self) -> None:
        """Let it end."""
        (self.home / "released").touch()

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.workers.port}{path}"


@contextmanager
def served(command: str, count: int, redis: RedisServer, home: Path) -> Iterator[Service]:
    """Start a server in `home`, with the switch on."""
    (home / "main.py").write_text(MAIN)
    redis.cli("SET", "{maintenance}:epoch", "1 1 0 0 0")  # no barrier waits for a young registry
    redis.cli("SET", "maintenance", 1)
    env = {"FASTAPI_MAINTENANCE_BACKEND": redis.url, "PYTHONPATH": str(ROOT), "HOME": str(home)}
    with (
        Workers("", count=count, command=command, cwd=home, env=env, patience=BOOT) as workers,
        ThreadPoolExecutor() as pool,
    ):
        service = Service(redis, workers, home, pool)
        try:
            yield service
        except BaseException as error:
            service.release()
            error.add_note(f"{command}\n{workers.log[-20_000:]}")
            raise


# -- the steps: each asserts what is promised on every server, and returns what differs between them


def lifespan(service: Service) -> str:
    """Workers are closed from their first answer on, with or without lifespan events."""
    assert service.statuses == {503}
    eventually_sync(lambda: len(service.registered) == service.workers.count, within=SOON)
    assert service.links == service.workers.count  # none of the parent's
    (started,) = {answer.text for answer in service.workers.get_all("/started").values()}
    return {"true": "yes", "false": "no"}[started]


def imports(service: Service) -> str:
    pids = service.workers.pids
    importers = {int(service.workers.get(pid, "/imported-by").text) for pid in pids}
    if importers == set(pids):
        return "each worker"
    assert len(importers) == 1
    assert importers.isdisjoint(pids)
    return "parent, before the fork"


def refusal(service: Service) -> str:
    for pid in service.workers.pids:
        full = service.workers.get(pid, "/")
        head = service.workers.get(pid, "/", method="HEAD")
        assert full.text == '{"detail":"Service temporarily unavailable due to maintenance"}'
        assert (full.headers["retry-after"], full.headers["cache-control"]) == ("3600", "no-store")
        assert (head.status, head.body) == (503, b"")
        for name in ("content-length", "content-type", "retry-after"):
            assert head.headers[name] == full.headers[name]
    return "yes"


def http_2(service: Service) -> str:
    client = httpx2.Client(http1=False, http2=True, trust_env=False, timeout=SOON)
    with client, suppress(httpx2.TransportError):
        answer = client.get(f"http://127.0.0.1:{service.workers.port}/")
        assert (answer.http_version, answer.status_code) == ("HTTP/2", 503)
        head = client.head(f"http://127.0.0.1:{service.workers.port}/")
        assert (head.status_code, head.content) == (503, b"")
        return "yes"
    return "no"


def denial(service: Service) -> str:
    with pytest.raises(InvalidStatus) as refused, connect(service.url("/echo"), open_timeout=SOON):
        pass
    status = refused.value.response.status_code
    assert status in (403, 503)
    return str(status)


def flip(service: Service) -> str:
    for value in (0, 1, 0, 1, 0):
        service.write(value)
    service.redis.cli("SET", "maintenance", 1)
    service.expect(503)
    service.redis.cli("DEL", "maintenance")
    service.expect(200)
    return "yes"


def eviction(service: Service) -> str:
    with connect(service.url("/echo"), open_timeout=SOON) as client:
        client.send("hello")
        assert client.recv(SOON) == "hello"
        service.redis.cli("SET", "maintenance", '{"enabled": true, "message": "Back at four"}')
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(SOON)
    service.write(0)
    assert closed.value.rcvd is not None
    code, reason = closed.value.rcvd.code, closed.value.rcvd.reason
    assert code in (1012, 4503)
    assert reason in ("Back at four", "")
    return str(code) if reason else f"{code}, no reason"


def streams(service: Service) -> str:
    connection = HTTPConnection("127.0.0.1", service.workers.port, timeout=SOON)
    with closing(connection):
        connection.request("GET", "/ticks")
        response = connection.getresponse()
        assert response.read(5) == b"tick "
        service.redis.cli("SET", "maintenance", 1)
        try:
            assert set(response.read().split()) <= {b"tick"}
        except IncompleteRead:
            return "cut"
        finally:
            service.write(0)
    return "yes"


def drain(service: Service) -> str:
    """A strict wait sees the request that is in flight, and its end."""
    slow = service.occupy()
    service.redis.cli("SET", "maintenance", 1)
    seen: list[BarrierResult] = []
    wait = partial(wait_until_applied, service.redis.url, drained=True, timeout=BOOT)
    proof = service.pool.submit(lambda: asyncio.run(wait(progress=seen.append)))
    eventually_sync(lambda: seen and not seen[-1].waiting and seen[-1].applied, within=SOON)
    assert not proof.done()
    service.release()
    assert slow.result(SOON) == "done"
    assert proof.result(SOON).ok, proof.result()
    assert proof.result().count == service.workers.count
    service.write(0)
    return "yes"


def termination(service: Service) -> str:
    """SIGTERM while a block of the application drains: what is in flight ends in order, and the
    block with it; where the server cuts it, the hold is left to its lease.
    """
    slow = service.occupy()
    migration = service.ask("/migrate")
    eventually_sync(lambda: service.held, within=SOON)
    pids = service.workers.pids
    service.workers.terminate()
    with suppress(AssertionError):  # some servers listen until the end
        eventually_sync(lambda: not service.listens, within=0.5)
    service.release()
    assert service.workers.wait() == 0
    answers = slow.result(SOON), migration.result(SOON)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not service.listens
    if answers == ("cut", "cut"):
        return "requests are cut"
    assert answers == ("done", "migrated")
    assert not service.held
    assert not service.registered
    return "yes"


STEPS: Final[dict[str, Callable[[Service], str]]] = {
    "lifespan": lifespan,
    "application imported by": imports,
    "503, HEAD": refusal,
    "HTTP/2": http_2,
    "handshake refused with": denial,
    "flip": flip,
    "WebSocket closed with": eviction,
    "stream ended": streams,
    "drain": drain,
    "SIGTERM in a drain": termination,
}
RELOAD: Final = "reload"


@pytest.mark.may_block  # in the event loop of a thread
@pytest.mark.parametrize("name", KINDS)
def test_server_follows_the_switch_as_documented(
    name: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    kind = kind_of(name)
    command = f"{kind.command} {kind.options}"
    found = {}
    with served(command, kind.count, redis_server, tmp_path) as service:
        for column, step in STEPS.items():
            service.workers.connect(within=BOOT)
            found[column] = step(service)

    found["command"] = f"`{kind.command}`"
    assert documented(name, found) == found


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.reload])
def test_reloaded_worker_replaces_the_old_one(
    name: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    """The old one leaves the registry, and the new one follows the switch."""
    kind = kind_of(name)
    with served(f"{kind.reload} {kind.options}", 1, redis_server, tmp_path) as service:
        eventually_sync(lambda: len(service.registered) == 1, within=SOON)
        old = service.registered
        (tmp_path / "main.py").write_text(f"{MAIN}# edited\n")
        eventually_sync(lambda: len(service.registered - old) == 1, within=BOOT, every=0.1)
        eventually_sync(lambda: not service.registered & old, within=SOON)
        eventually_sync(lambda: service.links == 1, within=SOON)
        service.write(0)
        service.write(1)

    assert documented(name, {RELOAD: "yes"}) == {RELOAD: "yes"}


def test_servers_that_do_not_reload_are_documented() -> None:
    never = {name: kind for name, kind in KINDS.items() if not kind.reload}

    assert [documented(name, {RELOAD: "–"}) for name in never] == [{RELOAD: "–"}] * len(never)


# -- the page --------------------------------------------------------------------------------------


def kind_of(name: str) -> Kind:
    kind = KINDS[name]
    if find_spec(kind.needs) is None:
        pytest.skip(f"{kind.needs} is not installed, so {name} is not tried")
    return kind


def documented(name: str, found: dict[str, str]) -> dict[str, str]:
    """What the page says in these columns; with RENEW_DOCS, after it was told."""
    before, begin, after = PAGE.read_text().partition(BEGIN)
    lines, _, rest = after.partition("\n\n")
    rows = {}
    columns = ["server", "command", *STEPS, RELOAD]
    for line in lines.splitlines()[2:]:
        row = dict(zip(columns, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
        rows[row["server"]] = row
    if os.environ.get("RENEW_DOCS"):
        rows[name] = {"server": name, **rows.get(name, {}), **found}
        table = [columns, ["---"] * len(columns)]
        table += [
            [rows[kind].get(column, "") for column in columns] for kind in KINDS if kind in rows
        ]
        lines = "\n".join(f"| {' | '.join(row)} |" for row in table)
        PAGE.write_text(f"{before}{begin}{lines}\n\n{rest}")
    return {column: rows[name][column] for column in found}
