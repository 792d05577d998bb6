"""The list in the state: who passes is changed in Redis, at once and on every worker, without a
deploy.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI, WebSocket
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Scope

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MaintenanceState,
    force_maintenance_mode_on,
    maintenance_component,
    maintenance_mode_on,
)
from fastapi_maintenance.backends import BaseStateBackend, RedisBackend
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.exemptions import Path
from fastapi_maintenance.exemptions import allow_list as _allow
from fastapi_maintenance.exemptions import granted as _guests
from fastapi_maintenance.exemptions.allow_list import AllowList
from fastapi_maintenance.exemptions.bypass import HEADER, Bypass
from fastapi_maintenance.exemptions.proxies import Proxies
from fastapi_maintenance.model.evaluate import evaluate
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.precedence import Closure, DecidedBy
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF
from fastapi_maintenance.routing import RouteMatch
from fastapi_maintenance.runtime.gate import Gate
from fastapi_maintenance.runtime.mode import MaintenanceMode
from fastapi_maintenance.runtime.requests import InFlightRequest

from ..support.asgi import UNUSED, at, by, http_scope, websocket_scope
from ..support.counting import lines_run
from ..support.doubles import Switchboard
from ..support.servers import RedisServer
from ..support.serving import BELIEVING_NO_HEADERS, handshakes
from ..support.waiting import eventually_sync

LOGIN: Final = '{"enabled": true, "mode": "read-only", "allow": ["POST /login"]}'


def make_app(backend: str | BaseStateBackend, **options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend, **options)

    @app.api_route("/login", methods=["GET", "POST"])
    @app.api_route("/orders/{id}", methods=["GET", "POST"])
    async def answer() -> str:
        return "open"

    @app.api_route("/invoices/{id}", methods=["GET", "POST"])
    @maintenance_component("billing")
    async def invoice() -> str:
        return "open"

    @app.post("/never")
    @force_maintenance_mode_on
    async def never() -> None: ...

    @app.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    return app


def gate(state: MaintenanceState) -> Gate:
    """A worker that is closed by this."""
    return Gate(Closure(DecidedBy.SWITCH, state), state, "redis", math.inf)


@pytest.fixture
def workers(redis_url: str) -> Iterator[list[httpx2.Client]]:
    """Clients of two workers by two servers, each with a connection of its own to one Redis."""
    apps = make_app(RedisBackend(redis_url)), make_app(RedisBackend(redis_url))
    with (
        BELIEVING_NO_HEADERS["uvicorn"](apps[0]) as one,
        BELIEVING_NO_HEADERS["hypercorn"](apps[1]) as other,
    ):
        clients = [
            httpx2.Client(base_url=f"http://{address}", trust_env=False) for address in (one, other)
        ]
        yield clients
        for client in clients:
            client.close()


def statuses(workers: list[httpx2.Client], method: str, url: str, **more: Any) -> list[int]:
    return [worker.request(method, url, **more).status_code for worker in workers]


def test_allow_list_in_redis_is_followed_by_every_worker(
    workers: list[httpx2.Client], redis_server: RedisServer
) -> None:
    def set_and_expect(value: str, method: str, url: str, status: int, **more: Any) -> None:
        redis_server.cli("SET", "maintenance", value)
        eventually_sync(
            lambda: statuses(workers, method, url, **more) == [status, status], within=30
        )

    assert statuses(workers, "POST", "/orders/1") == [200, 200]
    set_and_expect('{"enabled": true, "allow": ["POST /orders/{id}"]}', "POST", "/login", 503)
    assert statuses(workers, "POST", "/orders/1") == [200, 200]
    assert statuses(workers, "GET", "/orders/1") == [503, 503]
    set_and_expect('{"enabled": true, "allow": ["/login"]}', "POST", "/orders/1", 503)
    assert statuses(workers, "POST", "/login") == [200, 200]
    assert handshakes(workers) == [503, 503]
    set_and_expect('{"enabled": true, "allow": ["127.0.0.0/8"]}', "POST", "/orders/1", 200)
    assert statuses(workers, "POST", "/never") == [503, 503]
    assert handshakes(workers) == [101, 101]
    set_and_expect(
        '{"enabled": true, "allow": ["10.0.0.0/8"]}',
        "POST",
        "/orders/1",
        503,
        headers={"X-Forwarded-For": "10.1.2.3"},
    )
    set_and_expect("1", "POST", "/login", 503)


def test_allow_list_opens_login_in_read_only_mode(
    workers: list[httpx2.Client], redis_server: RedisServer
) -> None:
    redis_server.cli("SET", "maintenance", LOGIN)
    eventually_sync(lambda: statuses(workers, "POST", "/orders/1") == [503, 503], within=30)
    assert statuses(workers, "GET", "/orders/1") == [200, 200]
    assert statuses(workers, "POST", "/login") == [200, 200]


def test_allow_list_of_component_switch_goes_first(
    workers: list[httpx2.Client], redis_server: RedisServer
) -> None:
    def expect(invoice_got: int, invoice_posted: int, login: int) -> None:
        expected = [(invoice_got, invoice_posted, login)] * 2
        asked = ("GET", "/invoices/1"), ("POST", "/invoices/1"), ("GET", "/login")
        eventually_sync(
            lambda: (
                [*zip(*(statuses(workers, *request) for request in asked), strict=True)] == expected
            ),
            within=30,
        )

    redis_server.cli(
        "SET", "maintenance:billing", '{"enabled": true, "allow": ["POST /invoices/{id}"]}'
    )
    expect(503, 200, 200)
    redis_server.cli(
        "SET", "maintenance", '{"enabled": true, "allow": ["/login", "GET /invoices/{id}"]}'
    )
    expect(503, 200, 200)
    redis_server.cli("DEL", "maintenance:billing")
    expect(200, 503, 200)
    redis_server.cli("SET", "maintenance:billing", "1")
    expect(503, 503, 200)


@pytest.mark.parametrize("server", BELIEVING_NO_HEADERS)
def test_allow_list_network_reads_forwarded_if_configured(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "UNUSED_HERE", '{"enabled": true, "allow": ["10.1.0.0/16", "2001:db8::/32"]}'
    )
    app = make_app("env:UNUSED_HERE", trusted_proxies="127.0.0.1", forwarded="forwarded")
    with (
        BELIEVING_NO_HEADERS[server](app) as address,
        httpx2.Client(base_url=f"http://{address}", trust_env=False) as client,
    ):

        def status(**headers: str) -> int:
            return client.get(
                "/login", headers={name.replace("_", "-"): value for name, value in headers.items()}
            ).status_code

        assert status(forwarded="for=10.1.2.3;proto=https") == 200
        assert status(forwarded='for=203.0.113.9, for="[2001:db8::1]:4711"') == 200
        assert status(forwarded="for=10.1.2.3, for=203.0.113.9") == 503
        assert status(x_forwarded_for="10.1.2.3") == 503
        assert status(x_forwarded_for="10.1.2.3", forwarded="for=203.0.113.9") == 503
        assert status() == 503


@pytest.mark.parametrize("server", BELIEVING_NO_HEADERS)
def test_allow_list_network_needs_trusted_proxies(server: str) -> None:
    app = make_app("env:UNUSED_HERE", trusted_proxies="127.0.0.1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNUSED_HERE", '{"enabled": true, "allow": ["10.1.0.0/16"]}')
        with (
            BELIEVING_NO_HEADERS[server](app) as address,
            httpx2.Client(base_url=f"http://{address}", trust_env=False) as client,
        ):
            assert client.get("/login", headers={"X-Forwarded-For": "10.1.2.3"}).status_code == 200
            assert (
                client.get(
                    "/login", headers={"X-Forwarded-For": "10.1.2.3, 203.0.113.9"}
                ).status_code
                == 503
            )
            assert client.get("/login").status_code == 503


async def test_allow_list_of_several_blocks_is_common_entries() -> None:
    board = Switchboard()
    async with MaintenanceMode(board) as mode:

        def passes(path: str) -> bool:
            closing = mode.gate.closure
            assert closing is not None
            return mode.granted.allows(http_scope("POST", path=path), closing.state)

        async with maintenance_mode_on(board, allow=["/webhooks/{name}", "POST /login"]):
            assert (passes("/login"), passes("/webhooks/x"), passes("/orders")) == (
                True,
                True,
                False,
            )
            async with maintenance_mode_on(board, allow=["POST /login"]):
                assert (passes("/login"), passes("/webhooks/x")) == (True, False)
                async with maintenance_mode_on(board):
                    assert not passes("/login")


async def test_allow_list_of_component_and_general_block_is_common() -> None:
    board = Switchboard()
    mode = MaintenanceMode(board)
    mode.follow_components(frozenset({"billing"}))
    async with mode:

        def passing(component: str | None) -> list[str]:
            closing = mode.gate.for_component(component).closure
            assert closing is not None
            return [
                path
                for path in ("/a", "/b", "/c")
                if mode.granted.allows(http_scope(path=path), closing.state)
            ]

        async with maintenance_mode_on(board, component="billing", allow=["/a", "/b"]):
            assert passing("billing") == ["/a", "/b"]
            async with maintenance_mode_on(board, allow=["/b", "/c"]):
                assert (passing("billing"), passing(None)) == (["/b"], ["/b", "/c"])


def test_allow_list_invalid_in_block_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Invalid allow entry 'login'"):
        maintenance_mode_on(Switchboard(), allow=["login"])
    with pytest.raises(ConfigurationError, match="at most 100"):
        maintenance_mode_on(Switchboard(), allow=["/login"] * 101)


# -- what an entry says ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "scope", "expected"),
    [
        ("/login", at("/login"), True),
        ("/login", at("/login", "POST"), True),
        ("/login", at("/login/x"), False),
        (" POST  /login ", at("/login", "POST"), True),
        ("POST /login", at("/login"), False),
        ("post,PUT /login", at("/login", "PUT"), True),
        ("/users/{id}/orders", at("/users/7/orders"), True),
        ("/users/{id:int}", at("/users/me"), False),
        ("/static/{rest:path}", at("/static/a/b"), True),
        ("/", at("/"), True),
        ("10.1.0.0/16", by(("10.1.2.3", 1)), True),
        ("10.1.0.0/16", by(("10.2.2.3", 1)), False),
        ("10.1.2.3", by(("10.1.2.3", 1)), True),
        ("2001:db8::/32", by(("2001:db8::1", 1)), True),
        ("GET,HEAD 10.1.0.0/16", by(("10.1.2.3", 1)), True),
        ("HEAD 10.1.0.0/16", by(("10.1.2.3", 1)), False),
        ("10.1.0.0/16", by(("192.0.2.7", 1), "10.1.2.3"), True),
        ("10.1.0.0/16", by(("192.0.2.8", 1), "10.1.2.3"), False),
        ("/items", websocket_scope(path="/items"), True),
        ("GET /items", websocket_scope(path="/items"), False),
    ],
)
def test_allow_entry_matches_path_network_and_methods(
    entry: str, scope: dict[str, Any], expected: bool
) -> None:
    allow_list = AllowList([entry], Proxies("192.0.2.7"))
    assert allow_list.errors == []
    assert allow_list.matches(scope) is expected


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("", "Invalid allow entry '': write it like \"/login\""),
        ("GET POST /login", "write it like"),
        ("login", "got 'login'"),
        ("10.1.2.3/16", "has host bits set"),
        ("G(T /login", "A method must be like GET or POST, got 'G(T'"),
        (", /login", "got ''"),
        ("POST", "got 'POST'"),
        ("/{a}{b}", "A parameter must be a whole segment"),
        ("/{a:path}/x", "A parameter must be a whole segment"),
        ("/{a:path}/{b:path}", "A parameter must be a whole segment"),
        ("/x{a}", "A parameter must be a whole segment"),
        ("/{a:colour}", "A parameter must be a whole segment"),
        ("/a" * 33, "at most 32 segments, got 33"),
        ("/" + "a" * 200, "aaa…': write it like"),
    ],
)
def test_allow_entry_invalid_leaves_the_others(entry: str, problem: str) -> None:
    allow_list = AllowList([entry, "/login"])
    assert len(allow_list.errors) == 1
    assert problem in allow_list.errors[0]
    assert "Invalid allow entry " in allow_list.errors[0]
    assert allow_list.matches(at("/login"))
    assert not allow_list.matches(at("/x"))


KINDS: Final = st.sampled_from(["x", "1", "{a}", "{a:int}", "{a:float}", "{a:uuid}"])
ENTRIES: Final = st.lists(KINDS, min_size=1, max_size=20).map(lambda kinds: "/" + "/".join(kinds))


@given(
    st.lists(ENTRIES, max_size=100),
    st.sampled_from(["/1" * 2000, "/" + "1" * 4000, "/1.1" * 1000, "/x" * 30_000, "/" * 60_000]),
)
@example(["/{a:float}/{b:float}/{c:path}"] * 100, "/" + "1" * 4000)
@example(["/{a}" * 32] * 100, "/1" * 32)
def test_allow_list_any_path_needs_bounded_work(entries: list[str], path: str) -> None:
    compared: list[int] = []

    def comparing(pattern: re.Pattern[str]) -> Any:
        def fullmatch(text: str) -> re.Match[str] | None:
            compared.append(len(text))
            return pattern.fullmatch(text)

        return SimpleNamespace(fullmatch=fullmatch)

    allow_list = AllowList(
        [entry[:200].rpartition("/")[0] or "/x" if len(entry) > 200 else entry for entry in entries]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            _allow,
            "_SEGMENTS",
            {kind: comparing(pattern) for kind, pattern in _allow._SEGMENTS.items()},
        )
        lines = lines_run(lambda: allow_list.matches(at(path)))
    assert allow_list.errors == []
    assert lines <= 100 + 100 * (10 + 6 * 32)
    assert len(compared) <= 3 * 33, "each segment is compared with each type once"
    assert max(compared, default=0) <= 100


@given(
    st.lists(ENTRIES, max_size=1),
    st.lists(st.sampled_from(["", "x", "1", "1.5", "a b", str(UUID(int=7))]), max_size=6).map(
        "/".join
    ),
)
def test_allow_list_template_matches_what_its_route_matches(entries: list[str], path: str) -> None:
    for entry in (f"{entry}{end}" for entry in entries for end in ("", "/", "/{rest:path}")):
        first, *parts = entry.split("{a")
        # Routes need each name once.
        template = first + "".join(f"{{a{number}{part}" for number, part in enumerate(parts))
        scope = at(f"/{path}")
        assert AllowList([entry]).matches(scope) is (
            len(entry) <= 200 and Path(template).matches(scope) is True
        )


def test_allow_list_entries_share_typed_segments() -> None:
    allow_list = AllowList(["/{a:int}/x", "/{b:int}/y"])
    assert [allow_list.matches(at(path)) for path in ("/7/y", "/7/z", "/x/y")] == [
        True,
        False,
        False,
    ]


def test_allow_list_client_address_is_determined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Scope] = []
    proxies = Proxies("192.0.2.7")
    monkeypatch.setattr(proxies, "client_of", lambda scope: asked.append(scope))
    assert not AllowList([f"10.{number}.0.0/16" for number in range(100)], proxies).matches(
        at("/x")
    )
    assert len(asked) == 1


# -- what is told ----------------------------------------------------------------------------------


class Board(Switchboard):
    """Says what a test wants it to say."""

    state = OFF

    async def read(self) -> Any:
        return self._local_reading(self.state)


async def test_allow_entry_invalid_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board = Board()
    board.state = MaintenanceState(enabled=True, allow=("nonsense", "/login"))
    with caplog.at_level(logging.WARNING, "fastapi_maintenance"):
        async with MaintenanceMode(board) as mode:
            for _ in range(3):
                assert mode.granted.allows(http_scope(path="/login"), mode.gate.state)
                assert not mode.granted.allows(http_scope(path="/nonsense"), mode.gate.state)
                mode.evaluate_gate()
    (told,) = caplog.records
    assert told.message.startswith(
        "Invalid allow entry 'nonsense': A network must be like 10.0.0.0/8"
    )


async def test_allow_list_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Sequence[str]] = []

    class Counted(AllowList):
        def __init__(self, entries: Sequence[str], proxies: Proxies | None = None) -> None:
            super().__init__(entries, proxies)
            read.append(entries)

    monkeypatch.setattr(_guests, "AllowList", Counted)
    board = Board()
    board.state = MaintenanceState(enabled=True, allow=("/login",))
    async with MaintenanceMode(board) as mode:
        for _ in range(3):
            assert mode.granted.allows(http_scope(path="/login"), mode.gate.state)
            mode.evaluate_gate()
    assert read == [("/login",)]


# -- who is waited for -----------------------------------------------------------------------------


async def test_request_allowed_by_one_closure_drains_for_the_next() -> None:
    mode = MaintenanceMode(Board())
    admission = InFlightRequest.of(mode, http_scope("POST", path="/login"))
    admission.route, admission.exempt = RouteMatch(found=True), False
    allowing = gate(MaintenanceState(enabled=True, allow=("/login",)))
    assert not admission.blocks_drain(allowing)
    assert admission.blocks_drain(gate(MaintenanceState(enabled=True)))


async def test_request_allowed_by_removed_list_drains() -> None:
    board, entered, finish = Board(), asyncio.Event(), asyncio.Event()
    board.state = MaintenanceState(enabled=True, allow=("/login",))
    counts: list[tuple[int, int]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await finish.wait()

    middleware = MaintenanceModeMiddleware(app, backend=board)
    request = asyncio.create_task(middleware(http_scope("POST", path="/login"), UNUSED, UNUSED))
    await asyncio.wait_for(entered.wait(), 20)
    counts.append(middleware.mode.requests.count(middleware.mode.gate))
    board.state = MaintenanceState(enabled=True)
    middleware.mode.update(await board.read(), asyncio.get_running_loop().time())
    counts.append(middleware.mode.requests.count(middleware.mode.gate))
    finish.set()
    await request
    await middleware.mode.stop()
    assert counts == [(0, 0), (1, 0)]


async def test_request_with_bypass_drains_for_a_hold() -> None:
    bypass = Bypass("0123456789abcdef0123456789abcdef")
    mode = MaintenanceMode(Board(), bypass=bypass)
    token, record = bypass.issue(mode.now() + timedelta(hours=1))
    admission = InFlightRequest.of(mode, http_scope("POST", headers={HEADER: token}))
    admission.route, admission.exempt = RouteMatch(found=True), False
    assert not admission.blocks_drain(gate(MaintenanceState(enabled=True, bypass=(record,))))
    naming = Snapshot(OFF, (Hold("a", MaintenanceState(enabled=True, bypass=(record,))),), 1.0)
    hold = evaluate(naming, 1.0).hold
    assert hold is not None
    assert admission.blocks_drain(gate(hold)), "also where somebody wrote bypasses into a hold"
