"""Faults that were found in systems that do the same job, and that this one must not have.

FM is fastapi-maintenance 0.0.5, WG is waygate 0.2.0; the others are named where they come. Each was
reproduced with its latest release in 2026, or is in its issue tracker. Numbers are those of the
list that they were collected in; tests that stand elsewhere for some of them are called
`test_peers_` and the number.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import WebSocketDenialResponse

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MaintenanceState,
    ResponseOptions,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import LocalFileBackend, RedisBackend
from fastapi_maintenance.exceptions import BackendError, BackendUnavailableError, ConfigurationError
from fastapi_maintenance.exemptions import Header, Network
from fastapi_maintenance.exemptions.bypass import Bypass
from fastapi_maintenance.routing import RouteTable

from .conftest import RedisServerFactory
from .support.doubles import Switchboard
from .support.servers import RedisServer
from .support.waiting import eventually, eventually_sync

VARIABLE: Final = "FASTAPI_MAINTENANCE_MODE"
KEY: Final = "maintenance"
PUSH: Final = b"invalidate\r\n*1\r\n$11\r\nmaintenance\r\n"
SOON: Final = 10.0  # seconds; generous, for what takes milliseconds


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maintenance is on where no backend is given."""
    monkeypatch.setenv(VARIABLE, "1")


def shop(**options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.get("/")
    async def index() -> str:
        return "open"

    @app.get("/health")
    @force_maintenance_mode_off
    async def health() -> str:
        return "ok"

    return app


def closable(app: FastAPI | None = None, **options: Any) -> FastAPI:
    app = app or shop()
    app.add_middleware(MaintenanceModeMiddleware, **options)
    return app


@contextmanager
def worker(url: str, **options: Any) -> Iterator[TestClient]:
    """A worker on Redis, as far as Redis can tell: with a link of its own."""
    with TestClient(closable(backend=url, **options)) as client:
        yield client


def becomes(client: TestClient, status: int, within: float = SOON) -> None:
    eventually_sync(lambda: client.get("/").status_code == status, within=within)


def in_(seconds: float) -> str:
    """So many seconds from now, as the switch's JSON has it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


# -- FM --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0", "1"])
def test_fm_1_include_router_does_not_break_every_request(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """FM answers 500 to everything on FastAPI 0.137 and newer, once a router is included or
    anything is mounted.
    """
    monkeypatch.setenv(VARIABLE, value)
    app, router, inner = shop(), APIRouter(), FastAPI()
    router.add_api_route("/items", lambda: "items")
    inner.add_api_route("/items", lambda: "inner items")
    app.include_router(router, prefix="/api")
    app.mount("/inner", inner)
    client = TestClient(closable(app))

    for path in ("/", "/api/items", "/inner/items"):
        assert client.get(path).status_code == (503 if value == "1" else 200)


@pytest.mark.parametrize("where", ["behind a proxy", "on a mounted application"])
def test_fm_2_a_root_path_does_not_bypass_maintenance(on: None, where: str) -> None:
    """FM matches with a component that it made without `root_path`, finds no such route and lets
    everybody pass.
    """
    if where == "behind a proxy":
        client = TestClient(closable(), root_path="/api")
    else:
        outer = FastAPI()
        outer.mount("/api", closable())
        client = TestClient(outer)

    assert client.get("/api/").status_code == 503


def test_fm_2_a_root_path_does_not_close_what_is_forced_off(on: None) -> None:
    """WG has the mirror image of that fault: its always-active health route answers 503 under a
    prefix.
    """
    client = TestClient(closable(), root_path="/api")

    assert client.get("/api/health").status_code == 200
    assert client.get("/health").status_code == 200


def test_fm_4_a_mark_is_for_a_method_and_not_for_a_path(on: None) -> None:
    """In FM a forced-off GET opens the POST of the same path, too."""
    app = shop()
    app.add_api_route("/items", force_maintenance_mode_off(lambda: None), methods=["GET"])
    app.add_api_route("/items", lambda: None, methods=["POST"])
    client = TestClient(closable(app))

    assert client.get("/items").status_code == 200
    assert client.post("/items").status_code == 503


def test_fm_4_a_parameterised_route_does_not_close_an_exact_one() -> None:
    """In FM a forced-on /users/{id} also closes /users/me, although that is answered by another
    route.
    """
    app = shop()
    app.add_api_route("/users/me", force_maintenance_mode_off(lambda: None))
    app.add_api_route("/users/{id}", force_maintenance_mode_on(lambda: None))
    client = TestClient(closable(app))

    assert client.get("/users/me").status_code == 200
    assert client.get("/users/7").status_code == 503


def test_fm_5_a_backend_that_raises_is_no_error_of_the_request() -> None:
    """In FM it makes every request a 500."""
    board = Switchboard(True)
    with TestClient(closable(backend=board)) as client:
        board.error, reads = LookupError("no such row"), board.reads
        eventually_sync(lambda: board.reads > reads + 1, within=SOON)
        assert client.get("/").status_code == 503
        board.value = False
        board.error = None
        becomes(client, 200)


@pytest.mark.parametrize("content", [b"", b"maybe", b"\xff\xfe", b'{"enabled": '])
def test_fm_5_a_corrupt_state_file_changes_nothing(tmp_path: Path, content: bytes) -> None:
    """In FM garbage is a 500, and an empty file, as a reader sees between truncate and write, is
    "off".
    """
    path = tmp_path / "switch"
    path.write_text("1")
    with TestClient(closable(backend=LocalFileBackend(path, ttl=0.1))) as client:
        path.write_bytes(content)
        time.sleep(0.3)
        assert client.get("/").status_code == 503
        path.write_text("0")
        becomes(client, 200)


def test_fm_5_a_state_file_that_cannot_be_written_is_told_to_who_writes_and_to_nobody_else(
    tmp_path: Path,
) -> None:
    """FM writes the file while reading it, and so every request fails where it may not."""
    path = tmp_path / "missing" / "switch"
    app = shop()

    @app.post("/close")
    async def close() -> None:
        await set_maintenance_mode(True)

    with TestClient(closable(app, backend=LocalFileBackend(path))) as client:
        assert client.get("/").status_code == 200
        with pytest.raises(BackendError, match="make the directory"):
            client.post("/close")
    assert not path.parent.exists()


def test_fm_6_websockets_do_not_pass(on: None) -> None:
    """FM is a BaseHTTPMiddleware, and those never see them."""
    app = shop()

    @app.websocket("/talk")
    async def talk(websocket: WebSocket) -> None: ...

    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        TestClient(closable(app)).websocket_connect("/talk"),
    ):
        ...
    assert denied.value.status_code == 503


def test_fm_6_the_documented_order_gives_the_answer_its_cors_headers(on: None) -> None:
    """With the order that FM's documentation recommends, the preflight says 200 and the browser
    cannot read the 503.
    """
    app = closable()
    app.add_middleware(CORSMiddleware, allow_origins=["*"])

    assert (
        TestClient(app)
        .get("/", headers={"origin": "https://shop.example"})
        .headers["access-control-allow-origin"]
        == "*"
    )


def test_fm_6_the_answer_is_not_cached(on: None) -> None:
    """FM sends no Cache-Control, so a cache may keep the site closed."""
    assert TestClient(closable()).get("/").headers["cache-control"] == "no-store"


def test_fm_6_docs_are_exempt_wherever_they_are(on: None) -> None:
    """FM knows four fixed paths, whatever the application's `docs_url` is."""
    client = TestClient(closable(shop(docs_url="/manual")))

    assert client.get("/manual").status_code == 200
    assert client.get("/docs").status_code == 404


def test_fm_6_a_slash_redirect_leads_to_the_answer(on: None) -> None:
    """What the application itself says to a wrong address stays: whoever follows it is refused
    then.
    """
    app = shop()
    app.add_api_route("/items", lambda: None)
    client = TestClient(closable(app), follow_redirects=False)

    assert client.get("/items/").status_code == 307
    assert client.get("/items/", follow_redirects=True).status_code == 503


def test_fm_7_while_off_no_route_is_matched_but_by_the_application(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FM walks all routes for every path that it does not remember: half a millisecond with 60 of
    them.
    """
    matched: list[str] = []

    class Counted(Route):
        def matches(self, scope: Any) -> Any:
            matched.append(self.path)
            return super().matches(scope)

    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse("open")

    monkeypatch.delattr(RouteTable, "match")
    app = FastAPI(routes=[Counted(f"/{number}/{{id}}", answer) for number in range(60)])
    client = TestClient(closable(app))
    for id in range(3):
        assert client.get(f"/59/{id}").text == "open"

    assert len(matched) == 3 * 60


# -- WG --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lifespan", [True, False])
def test_wg_8_following_needs_no_call_to_start_it(
    redis_server: RedisServer, lifespan: bool
) -> None:
    """With WG's quick start a second worker never listens, and serves on for ever after the first
    has closed.
    """
    client = TestClient(closable(backend=f"{redis_server.url}?ttl=0.3"))
    with client if lifespan else nullcontext():
        assert client.get("/").status_code == 200
        redis_server.cli("SET", KEY, "1")
        becomes(client, 503)
        redis_server.cli("DEL", KEY)
        becomes(client, 200)


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
def test_wg_9_a_dropped_connection_is_opened_again_and_listened_to(
    redis_server: RedisServer, kind: str
) -> None:
    """WG's listener ends with its connection and is never started again: the worker is stale for
    ever.
    """
    with worker(f"{redis_server.url}?ttl=20") as client:
        redis_server.cli("CLIENT", "KILL", "TYPE", kind)
        for value, status in (("1", 503), ("0", 200)):
            redis_server.cli("SET", KEY, value)
            becomes(client, status)


class SlowWayBack:
    """A connection to Redis on which every reply and every push takes a while."""

    def __init__(self, server: RedisServer, delay: float) -> None:
        self._server = server
        self._delay = delay
        self.pushed = self.read = (
            False  # whether the worker was told of a change of the switch, and has asked since
        )
        self._pipes: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> str:
        self._proxy = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._proxy.sockets[0].getsockname()[1]}/0"

    async def __aexit__(self, *exc_info: object) -> None:
        self._proxy.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", self._server.port)
        for source, target, delay in ((reader, questions, 0.0), (answers, writer, self._delay)):
            self._pipes.append(asyncio.create_task(self._pipe(source, target, delay)))

    async def _pipe(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: float
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await source.read(65536):
                self.read = self.read or (self.pushed and not delay)
                loop.call_later(delay, self._deliver, target, data)
        finally:
            target.close()

    def _deliver(self, target: asyncio.StreamWriter, data: bytes) -> None:
        target.write(data)
        self.pushed = self.pushed or PUSH in data


@pytest.mark.parametrize(("first", "second"), ["10", "01"])
async def test_wg_10_a_change_while_it_is_being_read_is_not_missed(
    redis_server: RedisServer, first: str, second: str
) -> None:
    """In WG an invalidation that comes between the reply and the cache leaves the old value there
    for ever.
    """
    await redis_server.acli("SET", KEY, second)
    way_back = SlowWayBack(redis_server, 0.7)
    async with way_back as url:
        app = MaintenanceModeMiddleware(shop(), backend=f"{url}?ttl=20")
        async with app.mode:
            await redis_server.acli("SET", KEY, first)
            await eventually(lambda: way_back.read, within=SOON)
            await asyncio.sleep(
                0.1
            )  # the reply to the read that the push caused is on its way back
            await redis_server.acli("SET", KEY, second)
            await eventually(lambda: is_closed(app) is (first == "1"), within=SOON)
            await eventually(lambda: is_closed(app) is (second == "1"), within=SOON)
            await asyncio.sleep(1.5)
            assert is_closed(app) is (second == "1")


def is_closed(app: MaintenanceModeMiddleware) -> bool:
    return app.mode.gate.closure is not None


@pytest.mark.parametrize(
    ("state", "least", "most"),
    [
        ({}, 3600, 3600),
        ({"ends_in": 900}, 890, 900),
        ({"retry_after": 120, "ends_in": 900}, 120, 120),
    ],
)
def test_wg_11_retry_after_is_a_number_of_seconds(
    redis_server: RedisServer, state: dict[str, int], least: int, most: int
) -> None:
    """WG sends an ISO 8601 date, which no client can read, or for its global mode nothing."""
    document: dict[str, Any] = {"enabled": True} | state
    if (seconds := document.pop("ends_in", None)) is not None:
        document["ends_at"] = in_(seconds)
    redis_server.cli("SET", KEY, json.dumps(document))
    with worker(redis_server.url) as client:
        answer = client.get("/")

    assert answer.headers["retry-after"].isdecimal()
    assert least <= int(answer.headers["retry-after"]) <= most
    assert answer.headers["cache-control"] == "no-store"


def test_wg_11_a_time_to_live_is_what_retry_after_says(redis_server: RedisServer) -> None:
    redis_server.cli("SET", KEY, "1", "EX", "600")
    with worker(redis_server.url) as client:
        assert 590 <= int(client.get("/").headers["retry-after"]) <= 600


def test_wg_12_a_window_that_has_not_begun_closes_nothing(redis_server: RedisServer) -> None:
    """In WG to schedule is to write the state, and so it closes at once."""
    with worker(redis_server.url) as client:
        redis_server.cli(
            "SET", KEY, json.dumps({"enabled": True, "starts_at": in_(3600), "ends_at": in_(7200)})
        )
        time.sleep(0.5)
        assert client.get("/").status_code == 200
        redis_server.cli(
            "SET", KEY, json.dumps({"enabled": True, "starts_at": in_(4), "ends_at": in_(7200)})
        )
        assert client.get("/").status_code == 200
        becomes(client, 503, within=4 + SOON)


def test_wg_13_a_window_that_ended_while_nobody_was_there_is_over(
    redis_server: RedisServer,
) -> None:
    """In WG some process must write the end of a window; where none lived to do so, it never ends."""
    window = json.dumps({"enabled": True, "starts_at": in_(-60), "ends_at": in_(6)})
    redis_server.cli("SET", KEY, window)
    with worker(redis_server.url) as client:
        assert client.get("/").status_code == 503
    time.sleep(6.1)
    with worker(redis_server.url) as client:
        assert client.get("/").status_code == 200
    assert redis_server.cli("GET", KEY) == window


def test_wg_14_a_window_that_is_extended_does_not_end_at_its_old_end(
    redis_server: RedisServer,
) -> None:
    """In WG another worker's timer still writes "off" at the old one."""
    redis_server.cli("SET", KEY, json.dumps({"enabled": True, "ends_at": in_(6)}))
    with worker(redis_server.url) as a, worker(redis_server.url) as b:
        assert [client.get("/").status_code for client in (a, b)] == [503, 503]
        extended = json.dumps({"enabled": True, "ends_at": in_(600)})
        redis_server.cli("SET", KEY, extended)
        time.sleep(6.2)
        assert [client.get("/").status_code for client in (a, b)] == [503, 503]
    assert redis_server.cli("GET", KEY) == extended


@pytest.mark.parametrize("lifespan", [True, False])
@pytest.mark.parametrize(("fallback", "status"), [("0", 200), ("1", 503)])
def test_wg_15_without_redis_an_application_starts_and_answers(
    free_port: int, monkeypatch: pytest.MonkeyPatch, lifespan: bool, fallback: str, status: int
) -> None:
    """WG says that it fails open; in fact start-up fails, or without a lifespan the first request
    does.
    """
    monkeypatch.setenv(VARIABLE, fallback)
    client = TestClient(closable(backend=f"redis://127.0.0.1:{free_port}/0?ttl=0.3"))
    with client if lifespan else nullcontext():
        assert client.get("/").status_code == status


def test_wg_15_an_outage_during_a_maintenance_does_not_end_it(
    own_redis_server: RedisServerFactory,
) -> None:
    """In WG an outage of Redis opens the service in the middle of the very migration."""
    server = own_redis_server()
    server.cli("SET", KEY, "1")
    with worker(f"{server.url}?ttl=1") as client:
        assert client.get("/").status_code == 503
        server.kill()
        gone = time.monotonic()
        while time.monotonic() < gone + 3:  # beyond `stale_after`
            assert client.get("/").status_code == 503
            time.sleep(0.02)


def test_wg_16_only_the_docs_are_docs(on: None) -> None:
    """In WG whatever begins with "/docs" is open."""
    app = shop()
    app.add_api_route("/docs-export", lambda: None)
    client = TestClient(closable(app))

    assert client.get("/docs-export").status_code == 503
    assert client.get("/docs").status_code == 200


def test_wg_16_a_request_costs_no_command(redis_server: RedisServer) -> None:
    """In WG every request costs two."""
    with worker(f"{redis_server.url}?ttl=20") as client:
        before = commands(redis_server)
        for _ in range(100):
            client.get("/")
        assert commands(redis_server) - before < 10


def commands(server: RedisServer) -> int:
    (line,) = (
        line
        for line in server.cli("INFO", "stats").splitlines()
        if line.startswith("total_commands_processed:")
    )
    return int(line.partition(":")[2])


# -- others ----------------------------------------------------------------------------------------


def test_others_17_an_answer_is_made_of_the_one_state_that_decided(tmp_path: Path) -> None:
    """Laravel asks whether it is down and then reads how, and fails where it came up in between."""
    path = tmp_path / "switch"
    path.write_text('{"enabled": true, "message": "until four", "retry_after": 7}')

    async def opens(connection: HTTPConnection) -> bool:
        await set_maintenance_mode(False)
        return False

    with TestClient(closable(backend=LocalFileBackend(path), exempt_handler=opens)) as client:
        answer = client.get("/")
        assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (
            503,
            {"detail": "until four"},
            "7",
        )
        assert client.get("/").status_code == 200


def test_others_18_a_flush_does_not_end_a_maintenance_and_is_told_from_its_end(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Contao's and Laravel's flag lives in the application's cache, and clearing that opens the
    site.
    """
    caplog.set_level(logging.INFO, "fastapi_maintenance")
    with worker(f"{redis_server.url}?ttl=20") as client:
        redis_server.cli("SET", KEY, "1")
        becomes(client, 503)
        redis_server.cli("FLUSHALL")
        eventually_sync(lambda: redis_server.cli("GET", KEY) == "1", within=SOON)
        assert client.get("/").status_code == 503
        assert "Redis lost its data" in caplog.text
        caplog.clear()
        redis_server.cli("DEL", KEY)
        becomes(client, 200)
        assert "lost" not in caplog.text


def test_others_18_everything_in_redis_has_the_switchs_own_name(redis_server: RedisServer) -> None:
    with worker(f"{redis_server.url}?key=shop") as client:
        redis_server.cli("SET", "shop", "1")
        becomes(client, 503)
        assert {key.partition(":")[0] for key in redis_server.cli("KEYS", "*").splitlines()} == {
            "shop",
            "{shop}",
        }


async def test_others_20_a_switch_that_was_not_set_is_an_error(
    own_redis_server: RedisServerFactory, free_port: int
) -> None:
    """Django's cache backend swallows the error: the call returns, and the site stays up."""
    with pytest.raises(BackendUnavailableError, match="cannot be reached"):
        await set_maintenance_mode(True, f"redis://127.0.0.1:{free_port}/0")
    refusing = own_redis_server(config={"min-replicas-to-write": "1"})
    with pytest.raises(BackendError, match="NOREPLICAS"):
        await set_maintenance_mode(True, refusing.url)


def test_others_21_an_address_is_no_pattern(on: None) -> None:
    """Django's list takes 10.0.0.1 for a regular expression, unanchored and with dots for anything."""
    app = closable(exempt_handler=Network("10.0.0.1"))
    addresses = ("10.0.0.1", "10.0.0.199", "10.0.0.10", "10.0.011", "1050.0.0.1", "110.0.0.1")

    assert [
        TestClient(app, client=(address, 50000)).get("/").status_code for address in addresses
    ] == [200] + [503] * 5


def test_others_22_an_outage_of_redis_is_none_of_the_site(
    own_redis_server: RedisServerFactory,
) -> None:
    """In more than one system the middleware itself, or a readiness probe that asks Redis, took
    everything down.
    """
    server = own_redis_server()
    with worker(f"{server.url}?ttl=0.4") as client:
        assert client.get("/").status_code == 200
        for fault in (server.pause, server.kill):
            fault()
            began = time.monotonic()
            for _ in range(50):
                assert client.get("/").status_code == 200
                assert client.get("/health").status_code == 200
                time.sleep(0.02)
            assert time.monotonic() - began < 10, "a hundred requests, none of which waited"


async def test_others_22_a_setter_fails_fast(own_redis_server: RedisServerFactory) -> None:
    """With its defaults, redis-py tries for about a minute."""
    server = own_redis_server()
    server.pause()
    began = time.monotonic()
    with pytest.raises(BackendUnavailableError):
        await asyncio.create_task(set_maintenance_mode(True, f"{server.url}?timeout=0.5"))

    assert time.monotonic() - began < SOON


@pytest.mark.parametrize("lifespan", [True, False])
def test_others_24_a_worker_knows_before_its_first_answer(
    redis_server: RedisServer, lifespan: bool
) -> None:
    """A proxy's reload at GitLab forgot the maintenance, because only the process knew of it."""
    redis_server.cli("SET", KEY, "1")
    client = TestClient(closable(backend=redis_server.url))
    with client if lifespan else nullcontext():
        assert client.get("/").status_code == 503


def test_others_25_a_page_that_is_made_beforehand_closes_nothing_that_is_exempt(
    on: None, tmp_path: Path
) -> None:
    """Laravel's pre-rendered page overlooked what is exempt."""
    page = tmp_path / "page.html"
    page.write_text("<!doctype html>closed")
    client = TestClient(
        closable(response=ResponseOptions(file=page), exempt_handler=Header("x-ticket")),
        headers={"accept": "text/html"},
    )

    assert (client.get("/").status_code, client.get("/").text) == (503, "<!doctype html>closed")
    assert [client.get(path).status_code for path in ("/health", "/docs")] == [200, 200]
    assert client.get("/", headers={"x-ticket": "gold"}).json() == "open"


@pytest.mark.parametrize(
    "cookie",
    [
        "maintenance_bypass[mac]=1",
        "maintenance_bypass=",
        "maintenance_bypass",
        "maintenance_bypass=e30=.x.y",
    ],
)
def test_others_25_a_cookie_that_is_no_token_is_a_stranger(
    cookie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of an odd shape was a fatal error in Laravel."""
    record = '{"id": "a", "until": "2100-01-01T00:00:00Z"}'
    monkeypatch.setenv(VARIABLE, f'{{"enabled": true, "bypass": [{record}]}}')
    client = TestClient(closable(bypass=Bypass("0123456789abcdef0123456789abcdef")))

    assert client.get("/", headers={"cookie": cookie}).status_code == 503


@pytest.mark.parametrize("seconds", [0, -1])
async def test_others_26_no_time_to_live_is_not_taken_for_one_of_nothing(
    redis_url: str, seconds: float
) -> None:
    """A Redis driver for Lexik's bundle sends SETEX with 0, which is an error that only Redis
    tells.
    """
    backend = RedisBackend(redis_url)
    with pytest.raises(ConfigurationError, match="expires_in must be a positive number of seconds"):
        await set_maintenance_mode(True, backend, expires_in=seconds)

    assert not await backend.get_value()


async def test_others_26_the_shortest_time_to_live_is_one(redis_server: RedisServer) -> None:
    backend = RedisBackend(redis_server.url)
    await set_maintenance_mode(
        MaintenanceState(enabled=True, message="soon over"), backend, expires_in=0.02
    )
    assert await redis_server.acli("PTTL", KEY) != "-1"
    await asyncio.sleep(0.05)

    assert not await backend.get_value()


def test_others_26_a_name_that_begins_like_another_is_another(redis_server: RedisServer) -> None:
    """TrackMe compares tenants' ids by substring."""
    redis_server.cli("SET", "shop2", "1")
    with (
        worker(f"{redis_server.url}?key=shop") as shop1,
        worker(f"{redis_server.url}?key=shop2") as shop2,
    ):
        assert (shop1.get("/").status_code, shop2.get("/").status_code) == (200, 503)


@pytest.mark.parametrize(("exempt", "status"), [(True, 200), (False, 503)])
def test_others_26_the_exempt_are_let_in_and_not_the_others(
    on: None, exempt: bool, status: int
) -> None:
    """An inverted check was released by Shopware, and nobody noticed."""
    assert TestClient(closable(exempt_handler=lambda _: exempt)).get("/").status_code == status
