"""What the users in backends/redis/users.acl may do, and what they may not, asked of a
real server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Final

import pytest
import redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from fastapi_maintenance import MaintenanceModeMiddleware, maintenance_mode_on, wait_until_applied
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.exceptions import BackendError
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import ON
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ...support.servers import USERS, RedisServer
from ...support.waiting import eventually

SWITCH: Final = "maintenance"
COMPANION: Final = "{maintenance}:holds"
HISTORY: Final = "{maintenance}:history"
EVENTS: Final = "{maintenance}:events"
EVERYBODY: Final = ("worker", "operator", "readonly")
WRITERS: Final = ("worker", "operator")

LINK: Final = [
    "PING",
    "SELECT 0",
    "CLIENT SETNAME x",
    "CLIENT TRACKING ON OPTIN",
    "CLIENT CACHING YES",
    f"SUBSCRIBE {EVENTS}",
    f"EXISTS {SWITCH} {COMPANION}",
]
READING: Final = [
    f"GET {SWITCH}",
    f"PTTL {SWITCH}",
    f"STRLEN {SWITCH}",
    f"HGETALL {COMPANION}",
    "TIME",
    "INFO memory",
]
RECORDS: Final = [f"XREVRANGE {HISTORY} + - COUNT 10", f"XREAD BLOCK 1000 STREAMS {HISTORY} 0"]
SCRIPTS: Final = [f"EVAL x 2 {SWITCH} {COMPANION}", f"EVALSHA x 1 {SWITCH}"]
WRITING: Final = [
    f"SET {SWITCH} 1 EX 600",
    f"DEL {SWITCH} {COMPANION}",
    f"HGET {COMPANION} a",
    f"HSET {COMPANION} a 1",
    f"HINCRBY {COMPANION} a 1",
    f"PUBLISH {EVENTS} 1",
    f"XADD {HISTORY} MAXLEN ~ 1000 * kind set",
]
BY_HAND: Final = [f"TTL {SWITCH}", f"TYPE {SWITCH}"]

NEVER: Final = [
    "ACL LIST",
    "CONFIG GET *",
    "DEBUG SLEEP 0",
    "FLUSHALL",
    "KEYS *",
    "MONITOR",
    "SHUTDOWN",
    "SWAPDB 0 1",
    f"RENAME {SWITCH} elsewhere",
    "GET elsewhere",
    "GET maintenance2",
    "GET {maintenance}",
    "PUBLISH elsewhere 1",
    "SUBSCRIBE elsewhere",
    "PSUBSCRIBE *",
    "EVAL x 1 elsewhere",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server with the production users, and one more who can be asked about them."""
    users = tmp_path_factory.mktemp("acl") / "users.acl"
    users.write_text(f"{USERS.read_text()}user admin on nopass allkeys allchannels +@all\n")
    with RedisServer(users=users) as running:
        yield running


def verdict(server: RedisServer, user: str, command: str) -> str:
    return server.cli("ACL", "DRYRUN", user, *command.split(), user="admin", password="any")


@pytest.mark.parametrize("command", [*LINK, *READING, *RECORDS, *SCRIPTS])
@pytest.mark.parametrize("user", EVERYBODY)
def test_everybody_may_watch(server: RedisServer, user: str, command: str) -> None:
    assert verdict(server, user, command) == "OK"


@pytest.mark.parametrize("command", WRITING)
@pytest.mark.parametrize("user", WRITERS)
def test_workers_and_operators_may_write(server: RedisServer, user: str, command: str) -> None:
    assert verdict(server, user, command) == "OK"


@pytest.mark.parametrize("command", WRITING)
def test_readonly_may_not_write(server: RedisServer, command: str) -> None:
    assert "has no permissions to run" in verdict(server, "readonly", command)


@pytest.mark.parametrize("command", BY_HAND)
def test_operators_may_look_around_by_hand(server: RedisServer, command: str) -> None:
    assert verdict(server, "operator", command) == "OK"
    assert verdict(server, "readonly", command) == "OK"


@pytest.mark.parametrize("command", NEVER)
@pytest.mark.parametrize("user", EVERYBODY)
def test_nobody_may_reach_beyond_maintenance_mode(
    server: RedisServer, user: str, command: str
) -> None:
    assert "has no permissions" in verdict(server, user, command)


@pytest.mark.parametrize("user", WRITERS)
def test_writers_may_call_everything_that_the_scripts_call(user: str) -> None:
    source = files("fastapi_maintenance.backends.redis").joinpath("maintenance.lua").read_text()
    called = {name.lower() for name in re.findall(r"(?:redis\.p?call|attempt)\('(\w+)'", source)}
    (rule,) = (line for line in USERS.read_text().splitlines() if line.startswith(f"user {user} "))

    assert called >= {"get", "set", "time", "xadd"}
    assert {f"+{name}" for name in called} <= set(rule.split())


def test_a_client_logs_in_and_flips_by_resp3(server: RedisServer) -> None:
    with redis.Redis.from_url(
        server.url_of("worker", "change-me-worker"), protocol=3, decode_responses=True
    ) as worker:
        assert worker.set("maintenance", "1")
        assert worker.get("maintenance") == "1"
        assert worker.delete("maintenance")
        with pytest.raises(redis.exceptions.NoPermissionError):
            worker.flushall()


@pytest.mark.every_redis
@pytest.mark.parametrize("redis_user", WRITERS, indirect=True)
async def test_an_application_is_refused_nothing_that_it_asks_for(
    redis_server: RedisServer, redis_url: str
) -> None:
    """Not even what redis-py by itself says on every connection, CLIENT SETINFO: it would fill the
    log that refusals are looked for in.
    """
    redis_server.cli("ACL", "LOG", "RESET")
    backend = RedisBackend(redis_url)
    app = Starlette(
        routes=[Route("/", Response("open"))],
        middleware=[Middleware(MaintenanceModeMiddleware, backend=backend)],
    )
    with TestClient(app) as client:
        async with maintenance_mode_on(backend):
            await eventually(lambda: asked(client) == 503, within=30)
        await eventually(lambda: asked(client) == 200, within=30)
        await backend.set_value(True)
        await eventually(lambda: asked(client) == 503, within=30)
        assert (await wait_until_applied(backend, timeout=5)).ok
        await backend.clear()

    assert redis_server.cli("ACL", "LOG") == ""


@pytest.mark.every_redis
@pytest.mark.parametrize("redis_user", ["readonly"], indirect=True)
async def test_an_application_that_may_only_read_follows_all_the_same(
    redis_server: RedisServer, redis_url: str
) -> None:
    """The switch and everybody's holds, at once; and it is in nobody's way."""
    others = RedisBackend(redis_server.url)
    async with MaintenanceMode(RedisBackend(redis_url, ttl=120.0)) as mode:
        await redis_server.acli("SET", SWITCH, "1")
        await eventually(lambda: mode.gate.state.enabled, within=30)
        await redis_server.acli("DEL", SWITCH)
        await eventually(lambda: not mode.gate.state.enabled, within=30)
        held = await others.acquire(Hold("theirs", ON), 60)
        await eventually(lambda: mode.gate.state.enabled, within=30)
        await others.release(held)
        await eventually(lambda: not mode.gate.state.enabled, within=30)

        assert mode.gate.source == "redis"
        assert (await others.read_registry()).workers == ()
        with pytest.raises(BackendError, match="no permissions"):
            await RedisBackend(redis_url).write(ON)


def asked(client: TestClient) -> int:
    return client.get("/").status_code


def test_without_a_user_nothing_is_answered(server: RedisServer) -> None:
    with pytest.raises(RuntimeError, match="NOAUTH"):
        server.cli("GET", "maintenance")


@pytest.mark.parametrize("topology", ["sentinel", "cluster"])
@pytest.mark.parametrize("user", EVERYBODY)
def test_in_a_topology_everybody_may_at_least_as_much(topology: str, user: str) -> None:
    (here,) = (line for line in USERS.read_text().splitlines() if line.startswith(f"user {user} "))
    (there,) = (
        line
        for line in (USERS.parent / topology / USERS.name).read_text().splitlines()
        if line.startswith(f"user {user} ")
    )

    assert set(here.split()) <= set(there.split())


def test_the_file_has_no_rule_that_an_older_server_would_refuse() -> None:
    """`client|setinfo` keeps Redis 7.0 from starting, and comments keep all of them."""
    text = USERS.read_text()

    assert "setinfo" not in text
    assert all(line.startswith("user ") for line in text.splitlines())
