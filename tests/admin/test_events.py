"""The dashboard and its stream: at once, after every change, and no longer than the server."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Final

import pytest
import uvicorn
from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware, wait_until_applied
from fastapi_maintenance.admin.events import Dashboard, follow, read_dashboard
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.exemptions.bypass import Bypass
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON
from fastapi_maintenance.runtime.dependencies import modes_of
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..backends.redis.test_eviction import ALL_KEYS
from ..conftest import RedisServerFactory
from ..support.doubles import Switchboard
from ..support.servers import RedisServer
from ..support.serving import serving
from ..support.waiting import eventually
from ..support.workers import Workers
from .conftest import LOGIN, shop
from .streams import Stream

SOON: Final = 30.0


# -- pictures --------------------------------------------------------------------------------------


async def test_dashboard_shows_everything_at_once(redis_url: str) -> None:
    bypass = Bypass("0123456789abcdef0123456789abcdef")
    mode = MaintenanceMode(RedisBackend(redis_url), bypass=bypass)
    mode.note_unrouted("/legacy")
    async with mode:
        _, record = bypass.issue(mode.now().replace(year=2126), "ana")
        await mode.backend.write(ON.replace(reason="OPS-417", bypass=(record,)))
        await mode.backend.acquire(Hold("a", ON), 30.0)
        dashboard = await eventually(lambda: _drawn_with_workers(mode), within=SOON)

    assert dashboard is not None
    assert (dashboard.state.enabled, dashboard.state.decided_by, dashboard.operator) == (
        True,
        "hold",
        "bob",
    )
    assert [hold.id for hold in dashboard.state.holds or ()] == ["a"]
    assert [one.note for one in dashboard.bypasses] == ["ana"]
    assert (dashboard.grants_bypasses, dashboard.last_error) == (True, None)
    assert [one.unrouted for one in dashboard.workers or ()] == [["/legacy"]]


async def _drawn_with_workers(mode: MaintenanceMode) -> Dashboard | None:
    dashboard = await read_dashboard(mode, "bob")
    return dashboard if dashboard.workers else None


async def test_dashboard_unchanged_but_for_time_is_the_same(
    redis_url: str, redis_server: RedisServer
) -> None:
    async with MaintenanceMode(RedisBackend(redis_url)) as mode:
        redis_server.cli("SET", "maintenance", "1", "EX", "600")
        await mode.backend.acquire(Hold("a", ON), 30.0)
        await eventually(lambda: _drawn_with_workers(mode), within=SOON)
        await eventually(lambda: _stays_the_same(mode), within=SOON)
        before = await read_dashboard(mode)
        redis_server.cli("SET", "maintenance", "0")
        assert not (await read_dashboard(mode)).shows_the_same_as(before)
        assert not before.shows_the_same_as(None)


async def test_dashboard_has_the_warnings_of_the_link(
    own_redis_server: RedisServerFactory,
) -> None:
    server = await asyncio.to_thread(own_redis_server, config=ALL_KEYS)
    async with MaintenanceMode(RedisBackend(server.url, ttl=0.2)) as mode:
        (warning,) = await eventually(lambda: _warnings_of(mode), within=SOON)
    assert warning.startswith("maxmemory-policy must be noeviction or volatile-*")


async def _warnings_of(mode: MaintenanceMode) -> list[str]:
    return (await read_dashboard(mode)).warnings


async def _stays_the_same(mode: MaintenanceMode) -> bool:
    before = await read_dashboard(mode)
    await asyncio.sleep(0.3)
    after = await read_dashboard(mode)
    return after.state.now > before.state.now and after.shows_the_same_as(before)


async def test_dashboard_without_a_registry_has_no_workers() -> None:
    async with MaintenanceMode(Switchboard(True)) as mode:
        dashboard = await read_dashboard(mode)
    assert (dashboard.workers, dashboard.state.enabled, dashboard.last_error) == (None, True, None)


async def test_dashboard_of_a_failing_backend_shows_last_known_state() -> None:
    board = Switchboard(True)
    async with MaintenanceMode(board) as mode:
        board.error = RuntimeError("on fire")
        dashboard = await read_dashboard(mode)
    assert (dashboard.state.enabled, dashboard.workers) == (True, None)
    assert dashboard.last_error == "Switchboard failed: RuntimeError: on fire"


async def test_dashboard_without_any_known_state_says_so() -> None:
    board = Switchboard()
    board.error = RuntimeError("on fire")
    dashboard = await read_dashboard(MaintenanceMode(board))
    assert (dashboard.state.enabled, dashboard.state.holds, dashboard.state.error) == (
        None,
        None,
        "No state was ever read.",
    )


async def test_time_to_live_counts_down_while_redis_is_down(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    server.cli("SET", "maintenance", "1", "EX", "600")
    async with MaintenanceMode(RedisBackend(server.url, timeout=0.5)) as mode:
        server.kill()
        dashboard = await read_dashboard(mode)
        assert dashboard.state.switch is not None
        first = dashboard.state.switch.expires_in
        await asyncio.sleep(0.2)
        dashboard = await read_dashboard(mode)
    assert "cannot be reached" in (dashboard.last_error or "")
    assert dashboard.state.switch is not None
    assert 500 < (dashboard.state.switch.expires_in or 0) < (first or 0) <= 600


async def test_time_to_live_of_a_component_expires_while_redis_is_down(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    server.cli("SET", "maintenance:billing", "1", "PX", "5000")
    async with MaintenanceMode(RedisBackend(server.url, timeout=0.5)) as mode:
        mode.follow_components(frozenset({"billing"}))
        await eventually(lambda: mode.gate.components, within=30)
        server.kill()

        async def is_on() -> bool | None:
            return (await read_dashboard(mode)).components[0].enabled

        assert await is_on() is True
        async with asyncio.timeout(SOON):
            while await is_on():  # noqa: ASYNC110 - that a time is over is no event
                await asyncio.sleep(0.2)


async def test_dashboard_without_script_rights_has_no_workers(redis_server: RedisServer) -> None:
    redis_server.cli("ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-@scripting")
    try:
        async with MaintenanceMode(RedisBackend(redis_server.url_of("plain", "secret"))) as mode:
            redis_server.cli("SET", "maintenance", "1")
            dashboard = await read_dashboard(mode)
    finally:
        redis_server.cli("ACL", "DELUSER", "plain")
    assert (dashboard.workers, dashboard.state.switch is not None, dashboard.last_error) == (
        None,
        True,
        None,
    )


# -- following -------------------------------------------------------------------------------------


async def test_stream_sends_every_change_and_heartbeats() -> None:
    board = Switchboard()
    seen: list[tuple[bool | None, float]] = []
    async with MaintenanceMode(board) as mode:
        async for dashboard in follow(mode, lifetime=SOON):
            seen.append((dashboard.state.enabled, time.monotonic()))
            if len(seen) == 1:
                await board.write(ON)
            elif len(seen) == 3:
                await board.write(OFF)
            elif len(seen) == 4:
                break
    assert [enabled for enabled, _ in seen] == [False, True, True, False]
    assert seen[2][1] - seen[1][1] > 0.5, "a heartbeat, for nothing had changed"


async def test_stream_ends_after_its_lifetime() -> None:
    async with MaintenanceMode(Switchboard()) as mode:
        assert len([dashboard async for dashboard in follow(mode, lifetime=0.3)]) == 1


@pytest.mark.parametrize("handler", [signal.SIG_DFL, None, lambda *args: None])
async def test_stream_under_any_signal_handler_goes_on(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fastapi_maintenance.admin.events.signal",
        SimpleNamespace(SIGTERM=1, getsignal=lambda number: handler),
    )
    board, seen = Switchboard(), 0
    async with MaintenanceMode(board) as mode:
        async for _ in follow(mode, lifetime=SOON):
            seen += 1
            if seen == 2:
                break
            await board.write(ON)
    assert seen == 2


async def test_stream_ends_when_uvicorn_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    server = uvicorn.Server(uvicorn.Config("nothing:app"))
    handlers = SimpleNamespace(SIGTERM=1, getsignal=lambda number: server.handle_exit)
    monkeypatch.setattr("fastapi_maintenance.admin.events.signal", handlers)
    async with MaintenanceMode(Switchboard()) as mode:
        count = 0
        async for _ in follow(mode, lifetime=SOON):
            count += 1
            server.should_exit = True
    assert count == 1


# -- over real servers -----------------------------------------------------------------------------


@pytest.fixture
def two(redis_server: RedisServer) -> Iterator[Workers]:
    with Workers(
        "tests.apps.administered:app",
        count=2,
        env={"FASTAPI_MAINTENANCE_BACKEND": redis_server.url},
    ) as workers:
        yield workers


def standing(*words: str) -> Callable[[Any], bool]:
    """Return whether both workers of a dashboard have one of these statuses."""
    return lambda dashboard: (
        len(dashboard["workers"]) == 2
        and {one["status"] for one in dashboard["workers"]} <= set(words)
    )


@pytest.mark.timeout(180)
def test_stream_over_http_follows_a_flip(two: Workers, redis_server: RedisServer) -> None:
    with Stream(two.port, LOGIN) as stream:
        headers = stream.response.headers
        assert (stream.response.status, headers["content-type"].partition(";")[0]) == (
            200,
            "text/event-stream",
        )
        assert "no-store" in (headers.get_all("cache-control") or ())
        first = stream.until(standing("open"))
        assert (
            first["state"]["enabled"],
            first["operator"],
            [one["name"] for one in first["components"]],
        ) == (False, "ana", ["billing"])
        redis_server.cli("SET", "maintenance", "1")
        second = stream.until(standing("drained"))
        assert (second["state"]["enabled"], first.keys()) == (True, second.keys())
        assert second["etag"] != first["etag"]


@pytest.mark.timeout(180)
def test_stream_is_not_counted_in_flight(two: Workers, redis_server: RedisServer) -> None:
    with Stream(two.port, LOGIN) as stream:
        stream.until(standing("open"))
        redis_server.cli("SET", "maintenance", "1")
        result = asyncio.run(wait_until_applied(redis_server.url, drained=True, timeout=SOON))
        assert (result.ok, len(result.drained)) == (True, 2)
        redis_server.cli("DEL", "maintenance")
        dashboard = stream.until(standing("open"))
        assert [one["http"] for one in dashboard["workers"]] == [0, 0]


@pytest.mark.timeout(180)
def test_open_stream_lets_the_server_stop(two: Workers) -> None:
    with Stream(two.port, LOGIN) as stream:
        stream.until(standing("open"))
        began = time.monotonic()
        two.stop()
        for _ in stream:  # what was under way may still arrive; then it is over
            pass
        assert time.monotonic() - began < two.patience * 0.8, "else it was killed"
    assert "Finished server process" in two.log
    assert "Traceback" not in two.log


@pytest.mark.timeout(180)
def test_stream_survives_a_restart_of_redis(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server(config={"appendonly": "yes"})
    env = {"FASTAPI_MAINTENANCE_BACKEND": f"{server.url}?timeout=0.5"}
    with (
        Workers("tests.apps.administered:app", count=1, env=env) as workers,
        Stream(workers.port, LOGIN) as stream,
    ):
        server.cli("SET", "maintenance", "1")
        # The worker itself, too: it is what is known while the server is away.
        stream.until(lambda dashboard: dashboard["closed"] and dashboard["workers"])
        server.kill()
        away = stream.until(lambda dashboard: dashboard["last_error"])
        assert (away["state"]["enabled"], away["workers"]) == (True, None)
        server.start()
        back = stream.until(lambda dashboard: dashboard["workers"])
        assert back["last_error"] is None


def test_stream_is_untracked_in_nested_applications() -> None:
    app = shop(Switchboard(True))
    outer = FastAPI()
    outer.mount("/", app)
    outer.add_middleware(MaintenanceModeMiddleware, backend=Switchboard())
    with serving(outer) as server, Stream(int(server.rpartition(":")[2]), {}) as stream:
        assert next(iter(stream))["state"]["enabled"] is True
        modes = [*modes_of(outer), *modes_of(app)]
        assert [len(mode.requests) for mode in modes] == [0, 0]
