"""Components on real worker processes: a key for each, followed by every worker like the switch,
over the one connection that it has.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import redis
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from fastapi_maintenance import (
    BarrierResult,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    get_maintenance_mode,
    maintenance_component,
    maintenance_mode_on,
    set_maintenance_mode,
    wait_until_applied,
)
from fastapi_maintenance.backends import RedisBackend, backend_from_url
from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.coordination.barrier import registered_workers
from fastapi_maintenance.exceptions import ConfigurationError, DrainTimeout, UnsupportedError
from fastapi_maintenance.model.workers import Worker

from ..cli import program
from ..support.asgi import refusal_to_start
from ..support.commands import run
from ..support.servers import RedisServer
from ..support.serving import SERVERS
from ..support.waiting import eventually_sync
from ..support.workers import Workers

APP: Final = "tests.apps.scoped:app"
KEY: Final = "maintenance"
BILLING: Final = f"{KEY}:billing"
PLACES: Final = ("/", "/billing/invoices", "/billing/search", "/reports/all")
AT_ONCE: Final = 20.0  # generous: a few milliseconds are the rule


@dataclass
class Deployment:
    """Workers that look by themselves so rarely that what is quicker must have been pushed."""

    server: RedisServer
    workers: Workers
    client: Any


@pytest.fixture(scope="module")
def four_workers() -> Iterator[Deployment]:
    with (
        RedisServer() as server,
        Workers(
            APP, count=4, env={"FASTAPI_MAINTENANCE_BACKEND": f"{server.url}?ttl=60"}
        ) as workers,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        yield Deployment(server, workers, client)


@pytest.fixture
def four(four_workers: Deployment) -> Deployment:
    """Open everywhere, as every worker knows."""
    four_workers.client.delete(
        KEY, *(f"{KEY}:{component}" for component in ("billing", "search", "reports"))
    )
    follow(four_workers)
    return four_workers


def follow(four: Deployment, *closed: str, within: float = AT_ONCE) -> None:
    """Wait until every worker refuses exactly these."""
    expected = {place: 503 if place in closed else 200 for place in PLACES}

    def statuses() -> list[dict[str, int]]:
        return [
            {place: four.workers.get(pid, place).status for place in PLACES}
            for pid in four.workers.pids
        ]

    eventually_sync(lambda: all(found == expected for found in statuses()), within=within)


WRITES: Final[dict[str, tuple[Callable[[Any], object], Callable[[Any], object]]]] = {
    "SET": (lambda client: client.set(BILLING, "1"), lambda client: client.set(BILLING, "0")),
    "SET as JSON and DEL": (
        lambda client: client.set(BILLING, '{"enabled": true}'),
        lambda client: client.delete(BILLING),
    ),
    "RENAME": (
        lambda client: (client.set("elsewhere", "1"), client.rename("elsewhere", BILLING)),
        lambda client: client.rename(BILLING, "elsewhere"),
    ),
    "Lua": (
        lambda client: client.eval("return redis.call('SET', KEYS[1], 'true')", 1, BILLING),
        lambda client: client.eval("return redis.call('DEL', KEYS[1])", 1, BILLING),
    ),
}


@pytest.mark.parametrize("write", WRITES)
def test_component_write_closes_it_on_every_worker(four: Deployment, write: str) -> None:
    on, off = WRITES[write]
    on(four.client)
    follow(four, "/billing/invoices")
    off(four.client)
    follow(four)


@pytest.mark.parametrize(
    ("component", "place"), [("search", "/billing/search"), ("reports", "/reports/all")]
)
def test_innermost_component_counts_also_in_a_mount(
    four: Deployment, component: str, place: str
) -> None:
    four.client.set(f"{KEY}:{component}", "1")
    follow(four, place)


def test_general_switch_closes_all_but_opened_components(four: Deployment) -> None:
    four.client.set(KEY, "1")
    follow(four, *PLACES)
    four.client.set(BILLING, "off")
    follow(four, "/", "/billing/search", "/reports/all")
    four.client.delete(BILLING)
    follow(four, *PLACES)


def test_component_state_is_its_own(four: Deployment) -> None:
    four.client.set(KEY, '{"enabled": true, "message": "All of it"}')
    four.client.set(BILLING, '{"enabled": true, "mode": "read-only", "message": "Read invoices"}')
    follow(four, "/", "/billing/search", "/reports/all")
    for pid in four.workers.pids:
        for _ in range(2):
            assert four.workers.get(pid, "/").text == '{"detail":"All of it"}'
            assert four.workers.get(pid, "/billing/search").text == '{"detail":"All of it"}'


def test_component_ends_by_expiry_and_window(four: Deployment) -> None:
    four.client.set(BILLING, "1", px=6000)
    begins = time.time() + 1.0
    moments = {"starts_at": begins, "ends_at": begins + 6.0}
    window = {
        name: datetime.fromtimestamp(moment, UTC).isoformat() for name, moment in moments.items()
    }
    four.client.set(f"{KEY}:search", json.dumps({"enabled": True, **window}))
    follow(four, "/billing/invoices", "/billing/search", within=5)
    assert time.time() > begins - 0.05
    follow(four, within=15)
    assert time.time() > begins + 5.95


def test_window_of_a_component_is_announced_in_it(four: Deployment) -> None:
    four.client.set(BILLING, '{"enabled": true, "starts_at": "2100-01-01T00:00:00Z"}')
    header = "x-maintenance-coming"
    eventually_sync(
        lambda: (
            {
                answer.headers.get(header)
                for answer in four.workers.get_all("/billing/invoices").values()
            }
            == {"full;starts_at=@4102444800"}
        ),
        within=AT_ONCE,
    )
    assert {answer.headers.get(header) for answer in four.workers.get_all("/").values()} == {None}
    assert {
        answer.headers.get(header) for answer in four.workers.get_all("/billing/search").values()
    } == {None}


def test_worker_has_one_connection_for_all_components(four: Deployment) -> None:
    clients = [
        client["name"]
        for client in four.client.client_list()
        if client["name"].startswith("fastapi-maintenance:")
    ]
    assert len(clients) == 4


def test_killed_connections_do_not_delay_the_next_write(four: Deployment) -> None:
    four.client.client_kill_filter(_type="pubsub", skipme=True)
    four.client.set(BILLING, "1")
    follow(four, "/billing/invoices")


def test_component_switches_are_restored_after_flush(four: Deployment) -> None:
    four.client.set(BILLING, '{"enabled": true, "reason": "OPS-417"}', ex=600)
    four.client.set(f"{KEY}:search", "1")
    follow(four, "/billing/invoices", "/billing/search")
    four.client.flushall()
    eventually_sync(lambda: four.client.exists(BILLING, f"{KEY}:search") == 2, within=AT_ONCE)
    assert 500 < four.client.ttl(BILLING) <= 600
    assert four.client.get(f"{KEY}:search") == "1"
    assert not four.client.exists(KEY)
    follow(four, "/billing/invoices", "/billing/search")


def test_component_unreadable_value_changes_nothing(four: Deployment) -> None:
    four.client.set(BILLING, "1")
    follow(four, "/billing/invoices")
    four.client.set(BILLING, "perhaps")
    four.client.set(f"{KEY}:search", "1")
    follow(four, "/billing/invoices", "/billing/search")
    four.client.delete(BILLING)
    follow(four, "/billing/search")


def test_component_closing_lets_requests_finish(four: Deployment) -> None:
    pid = four.workers.pids[0]
    answers: list[int] = []
    asking = threading.Thread(
        target=lambda: answers.append(four.workers.get(pid, "/billing/slow?seconds=4").status)
    )
    asking.start()
    time.sleep(1.5)  # by then it is there
    four.client.set(BILLING, "1")
    asking.join(20)
    assert answers == [200]


# -- waiting for it --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Deployment]:
    """Workers whose registry is never lost, and old enough to be trusted after a few seconds."""
    with (
        RedisServer() as server,
        Workers(APP, count=2, env={"FASTAPI_MAINTENANCE_BACKEND": server.url}) as workers,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        yield Deployment(server, workers, client)


def workers_of(two_workers: Deployment) -> tuple[Worker, ...]:
    return asyncio.run(registered_workers(RedisBackend(two_workers.server.url)))


def test_component_barrier_waits_for_its_requests(two_workers: Deployment) -> None:
    one = two_workers.workers.pids[0]
    ended: list[str] = []

    def ask(pid: int, path: str, name: str) -> None:
        two_workers.workers.get(pid, path)
        ended.append(name)

    asking = threading.Thread(target=ask, args=(one, "/billing/slow?seconds=6", "in it"))
    asking.start()
    eventually_sync(lambda: sum(worker.http for worker in workers_of(two_workers)) >= 1, within=30)

    async def close() -> BarrierResult:
        async with maintenance_mode_on(RedisBackend(two_workers.server.url), component="billing"):
            return await wait_until_applied(
                RedisBackend(two_workers.server.url), component="billing", drained=True, timeout=30
            )

    result = asyncio.run(close())
    result.check(strict=False)
    asking.join(2)  # for its answer to arrive; it would take longer if nobody had waited for it
    assert ended == ["in it"]
    assert len(result.drained) >= 2
    follow(two_workers)


def test_component_without_workers_is_not_proved(two_workers: Deployment) -> None:
    def wait_for(component: str, timeout: float) -> BarrierResult:
        return asyncio.run(
            wait_until_applied(
                RedisBackend(two_workers.server.url), component=component, timeout=timeout
            )
        )

    assert wait_for("billing", 30).ok, "nothing else is in the way"
    result = wait_for("biling", 3)
    assert {worker.pid for worker in result.pending} >= set(two_workers.workers.pids)
    with pytest.raises(DrainTimeout, match="still waited for"):
        result.check()


def test_command_line_closes_and_opens_component(two_workers: Deployment) -> None:
    url = ("--component", "billing", "--backend", two_workers.server.url)
    on = run("on", "--reason", "OPS-417", *url)
    assert (on.code, on.lines[0]) == (0, "maintenance of billing: on")
    follow(two_workers, "/billing/invoices")
    assert run("status", "--exit-code", *url).code == 6
    assert run("status", "--exit-code", "--backend", two_workers.server.url).code == 0
    assert run("wait", "--drained", "--allow-unfenced", *url).code == 0
    off = run("off", *url)
    assert (off.code, off.lines[0]) == (0, "maintenance of billing: off")
    follow(two_workers)


def test_run_closes_component_for_command(two_workers: Deployment, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{two_workers.workers.port}"
    script = (
        f"import urllib.request as u, urllib.error as e\nfor p in {PLACES!r}:\n  try: "
        f"print(p, u.urlopen({address!r} + p).status)\n"
    )
    script += "  except e.HTTPError as r: print(p, r.code)"
    ran = program.run(
        "run",
        "--component",
        "billing",
        "--allow-unfenced",
        "--backend",
        two_workers.server.url,
        "--",
        sys.executable,
        "-c",
        script,
    )
    assert ran.code == 0, ran
    assert ran.lines == [
        f"{place} {503 if place == '/billing/invoices' else 200}" for place in PLACES
    ]
    follow(two_workers)


# -- by other servers ------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_any_server_closes_a_component_alone(
    server: str, redis_url: str, redis_server: RedisServer
) -> None:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=redis_url)
    billing = maintenance_component("billing")(APIRouter(prefix="/billing"))
    app.add_api_route("/", lambda: None)
    billing.add_api_route("/invoices", lambda: None, methods=["GET", "POST"])
    app.include_router(billing)
    with (
        SERVERS[server](app) as address,
        httpx2.Client(base_url=f"http://{address}", trust_env=False) as client,
    ):

        def statuses() -> list[int]:
            return [
                client.get("/").status_code,
                client.get("/billing/invoices").status_code,
                client.post("/billing/invoices").status_code,
            ]

        assert statuses() == [200, 200, 200]
        redis_server.cli(
            "SET", BILLING, '{"enabled": true, "mode": "read-only", "message": "Read invoices"}'
        )
        eventually_sync(lambda: statuses() == [200, 200, 503], within=30)
        assert client.post("/billing/invoices").json()["detail"] == "Read invoices"
        redis_server.cli("SET", KEY, "1")
        eventually_sync(lambda: statuses() == [503, 200, 503], within=30)
        redis_server.cli("DEL", BILLING)
        eventually_sync(lambda: statuses() == [503, 503, 503], within=30)


# -- in one process --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a b", "ä", "a" * 65, "a:b", "{a}", "holds", "told", 7, None])
def test_component_invalid_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="A component must"):
        maintenance_component(name)
    with pytest.raises(ConfigurationError, match="A component must"):
        maintenance_mode_on(component=name if name is not None else "")


@pytest.mark.parametrize("key", ["maintenance", "shop:{eu}:maintenance"])
def test_component_reserved_name_is_refused(key: str) -> None:
    keys = Keys.of(key)
    companions = {
        value.rpartition(":")[2] for name, value in asdict(keys).items() if name != "switch"
    }
    for name in companions:
        with pytest.raises(ConfigurationError):
            maintenance_component(name)


def test_component_in_cluster_needs_hash_tag() -> None:
    backend = RedisBackend("redis+cluster://127.0.0.1:7000/0")
    with pytest.raises(
        ConfigurationError,
        match=r"no hash tag: write key=\{maintenance\} or, say, key=\{shop\}:maintenance",
    ):
        backend.follow_components(["billing"])
    tagged = RedisBackend("redis+cluster://127.0.0.1:7000/0?key={shop}:maintenance")
    tagged.follow_components(["billing"])
    assert tagged.components == {"billing"}


async def test_app_with_unkeepable_components_refuses_to_start() -> None:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend="redis+cluster://127.0.0.1:7000/0")

    @app.get("/")
    @maintenance_component("billing")
    async def billing() -> None: ...

    failed, _ = await refusal_to_start(app)
    assert failed["type"] == "lifespan.startup.failed"
    assert "no hash tag" in failed["message"]


@pytest.mark.parametrize("backend", ["file", "env:CLOSED"])
async def test_local_backend_has_component_holds_without_switches(
    backend: str, tmp_path: Path
) -> None:
    store = backend_from_url(f"file:{tmp_path}/switch.json" if backend == "file" else backend)
    async with maintenance_mode_on(store, component="billing"):
        assert await get_maintenance_mode(store, component="billing")
        assert not await get_maintenance_mode(store)
    assert not await get_maintenance_mode(store, component="billing")
    with pytest.raises(UnsupportedError, match="no switches of components"):
        await set_maintenance_mode(True, store, component="billing")
    with pytest.raises(UnsupportedError, match="no switches of components"):
        async with maintenance_mode_on(store, component="billing", on_error="keep"):
            pass
    assert not await get_maintenance_mode(store, component="billing")


async def test_component_block_that_failed_stays_closed(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    with pytest.raises(ZeroDivisionError):
        async with maintenance_mode_on(backend, component="billing", on_error="keep"):
            raise ZeroDivisionError
    assert await get_maintenance_mode(redis_url, component="billing")
    assert not await get_maintenance_mode(redis_url)
    await set_maintenance_mode(False, redis_url, component="billing")
    assert not await get_maintenance_mode(redis_url, component="billing")


@pytest.mark.parametrize("override", [True, False])
def test_override_goes_before_component_switches(
    redis_url: str, redis_server: RedisServer, override: bool
) -> None:
    redis_server.cli("SET", BILLING, "0" if override else "1")
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=redis_url, enable_maintenance=override)

    @app.get("/")
    @maintenance_component("billing")
    async def billing() -> None: ...

    with TestClient(app) as client:
        assert client.get("/").status_code == (503 if override else 200)


def test_component_of_later_route_is_followed(redis_url: str, redis_server: RedisServer) -> None:
    redis_server.cli("SET", BILLING, "1")
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=redis_url)

    async def bill() -> None: ...

    with TestClient(app) as client:
        assert client.get("/bill").status_code == 404
        app.get("/bill")(maintenance_component("billing")(bill))
        eventually_sync(lambda: client.get("/bill").status_code == 503, within=30)
        redis_server.cli("DEL", BILLING)
        eventually_sync(lambda: client.get("/bill").status_code == 200, within=30)


def test_router_included_twice_is_in_the_component_of_each_place(
    redis_url: str, redis_server: RedisServer
) -> None:
    redis_server.cli("SET", BILLING, "1")
    app, shared = FastAPI(), APIRouter()
    app.add_middleware(MaintenanceModeMiddleware, backend=redis_url)

    @shared.get("/list")
    async def listed() -> None: ...

    for component in ("billing", "shipping"):
        outer = maintenance_component(component)(APIRouter(prefix=f"/{component}"))
        outer.include_router(shared)
        app.include_router(outer)
    with TestClient(app) as client:
        assert (
            client.get("/billing/list").status_code,
            client.get("/shipping/list").status_code,
        ) == (503, 200)


async def test_component_that_code_asks_about_is_not_followed(redis_url: str) -> None:
    """Each followed name costs every sync of every worker."""
    backend = RedisBackend(redis_url)
    await set_maintenance_mode(True, RedisBackend(redis_url), component="billing")

    async with MaintenanceMode(backend):
        for name in ("search", "billing", "mail"):
            assert await get_maintenance_mode(backend, component=name) == (name == "billing")

        assert backend.components == frozenset()


def test_components_of_routes_are_at_most_a_thousand(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    backend.follow_components(f"c{number}" for number in range(1000))

    with pytest.raises(ConfigurationError, match="at most 1,000 components, got 1001"):
        backend.follow_components(["another"])

    assert len(backend.components) == 1000
