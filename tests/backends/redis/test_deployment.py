"""Real worker processes and a real Redis: one key, and everybody follows it, whatever happens in
between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, Final

import pytest
import redis
from fastapi.testclient import TestClient

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.coordination.barrier import registered_workers
from fastapi_maintenance.model.workers import Worker
from tests.apps import switched
from tests.support.servers import RedisServer
from tests.support.waiting import eventually_sync
from tests.support.workers import Workers

APP: Final = "tests.apps.switched:app"
KEY: Final = "maintenance"

# Seconds; so rarely do workers look by themselves, that what is quicker must have been pushed.
PUSHED_TTL: Final = 60.0
# Generous: a few milliseconds are the rule, but not on a machine with other things to do.
AT_ONCE: Final = 20.0
POLLED_TTL: Final = 0.5


def follow(workers: Workers, status: int, within: float = AT_ONCE) -> None:
    """Wait until every worker process answers so."""
    eventually_sync(
        lambda: {answer.status for answer in workers.get_all("/").values()} == {status},
        within=within,
    )


def commands_while(client: Any, work: Callable[[], None]) -> list[str]:
    """What others than scripts sent to Redis meanwhile."""
    with client.monitor() as monitor:
        work()
        client.echo("that was all")
        seen: list[str] = []
        while not seen or "that was all" not in seen[-1]:
            command = monitor.next_command()
            if command["client_type"] != "lua":
                seen.append(command["command"])
    return seen[:-1]


def registered(url: str) -> tuple[Worker, ...]:
    return asyncio.run(registered_workers(RedisBackend(url)))


def serve(url: str, count: int) -> Workers:
    return Workers(APP, count=count, env={"FASTAPI_MAINTENANCE_BACKEND": url})


# -- four workers, and every way to write a key ----------------------------------------------------


@dataclass
class Deployment:
    """Workers, their Redis, and an operator's client of it."""

    server: RedisServer
    workers: Workers
    client: Any = field(init=False)

    def __post_init__(self) -> None:
        self.client = redis.Redis.from_url(self.server.url, decode_responses=True)


@pytest.fixture(scope="module")
def four_workers() -> Iterator[Deployment]:
    with RedisServer() as server, serve(f"{server.url}?ttl={PUSHED_TTL}", 4) as workers:
        deployment = Deployment(server, workers)
        yield deployment
        deployment.client.close()


@pytest.fixture
def four(four_workers: Deployment) -> Deployment:
    """Open, and listening."""
    four_workers.client.delete(KEY)
    follow(four_workers.workers, 200)
    return four_workers


def rename(client: Any, source: str, target: str) -> None:
    client.set(source, "1")
    client.rename(source, target)


def in_a_transaction(client: Any, *commands: tuple[str, ...]) -> None:
    with client.pipeline(transaction=True) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        pipeline.execute()


Write = Callable[[Any], object]
WRITES: Final[dict[str, tuple[Write, Write]]] = {
    "SET": (lambda client: client.set(KEY, "1"), lambda client: client.set(KEY, "0")),
    "SET and DEL": (lambda client: client.set(KEY, "on"), lambda client: client.delete(KEY)),
    "SET as JSON and UNLINK": (
        lambda client: client.set(KEY, '{"enabled": true}'),
        lambda client: client.unlink(KEY),
    ),
    "SET EX and its end": (
        lambda client: client.set(KEY, "1", ex=8),
        lambda client: time.sleep(client.pttl(KEY) / 1000),
    ),
    "SET EX and PERSIST, and GETDEL": (
        lambda client: (client.set(KEY, "1", ex=60), client.persist(KEY)),
        lambda client: client.getdel(KEY),
    ),
    "RENAME": (
        lambda client: rename(client, "elsewhere", KEY),
        lambda client: client.rename(KEY, "elsewhere"),
    ),
    "COPY and EXPIRE": (
        lambda client: (
            client.set("elsewhere", "yes"),
            client.copy("elsewhere", KEY, replace=True),
        ),
        lambda client: client.expire(KEY, 0),
    ),
    "Lua": (
        lambda client: client.eval("return redis.call('SET', KEYS[1], 'true')", 1, KEY),
        lambda client: client.eval("return redis.call('DEL', KEYS[1])", 1, KEY),
    ),
    "MULTI": (
        lambda client: in_a_transaction(client, ("SET", KEY, "0"), ("SET", KEY, "1")),
        lambda client: in_a_transaction(client, ("SET", KEY, "1"), ("DEL", KEY)),
    ),
    "INCR and DECR": (lambda client: client.incr(KEY), lambda client: client.decr(KEY)),
}


@pytest.mark.parametrize("write", WRITES)
def test_every_write_reaches_every_worker_at_once(four: Deployment, write: str) -> None:
    on, off = WRITES[write]
    on(four.client)
    follow(four.workers, 503)
    off(four.client)
    follow(four.workers, 200)


@pytest.mark.parametrize(("kind", "at_least"), [("normal", 4), ("pubsub", 0)])
def test_two_writes_arrive_after_a_client_kill(four: Deployment, kind: str, at_least: int) -> None:
    assert four.client.client_kill_filter(_type=kind, skipme=True) >= at_least
    four.client.set(KEY, "1")
    follow(four.workers, 503)
    four.client.set(KEY, "0")
    follow(four.workers, 200)


def test_a_flushed_redis_is_given_the_switch_again(four: Deployment) -> None:
    four.client.set(KEY, "1")
    follow(four.workers, 503)
    four.client.flushall()

    eventually_sync(lambda: four.client.get(KEY) == "1", within=AT_ONCE)
    assert {answer.status for answer in four.workers.get_all("/").values()} == {503}


def test_every_worker_has_one_connection_and_is_registered(four: Deployment) -> None:
    four.client.connection_pool.disconnect()  # what other tests have left
    connections = [
        connection["name"]
        for connection in four.client.client_list()
        if connection["id"] != str(four.client.client_id())
    ]

    assert len(connections) == 4
    assert all(name.startswith("fastapi-maintenance:") for name in connections)

    def are_registered() -> bool:  # beside those that were killed just now
        return set(four.workers.pids) <= {worker.pid for worker in registered(four.server.url)}

    eventually_sync(are_registered, within=30)


@pytest.mark.parametrize(("value", "status"), [("0", 200), ("1", 503)])
def test_a_request_sends_redis_nothing(four: Deployment, value: str, status: int) -> None:
    four.client.set(KEY, value)
    follow(four.workers, status)

    def two_hundred_requests() -> None:
        for _ in range(50):
            assert {answer.status for answer in four.workers.get_all("/").values()} == {status}

    # Workers still report what they have applied meanwhile.
    assert len(commands_while(four.client, two_hundred_requests)) < 100


def test_successor_of_a_killed_worker_knows_at_once(four: Deployment) -> None:
    four.client.set(KEY, "1")
    follow(four.workers, 503)
    killed = four.workers.pids[0]
    four.workers.kill(killed)
    four.workers.connect(within=30)

    assert killed not in four.workers.pids
    assert {answer.status for answer in four.workers.get_all("/").values()} == {503}
    four.client.delete(KEY)
    follow(four.workers, 200)


# -- two workers, and a Redis that is not always there ---------------------------------------------


@dataclass
class Boot:
    """What workers answered before there ever was a Redis."""

    deployment: Deployment
    answers: set[int]


@pytest.fixture(scope="module")
def boot() -> Iterator[Boot]:
    server = RedisServer(config={"appendonly": "yes", "appendfsync": "always"})
    try:
        with serve(f"{server.url}?ttl={POLLED_TTL}", 2) as workers:
            answers = {answer.status for answer in workers.get_all("/").values()}
            server.start()
            deployment = Deployment(server, workers)
            yield Boot(deployment, answers)
            deployment.client.close()
    finally:
        server.close()


@pytest.fixture
def two(boot: Boot) -> Deployment:
    """Open, and connected."""
    deployment = boot.deployment
    deployment.client.delete(KEY)
    follow(deployment.workers, 200, within=10)
    eventually_sync(
        lambda: (
            sorted(worker.pid for worker in registered(deployment.server.url))
            == deployment.workers.pids
        ),
        within=30,
    )
    return deployment


def test_workers_booted_without_redis_follow_it_later(boot: Boot, two: Deployment) -> None:
    assert boot.answers == {200}
    two.client.set(KEY, "1")
    follow(two.workers, 503)


def test_redis_killed_while_on_opens_no_worker(
    two: Deployment,
) -> None:
    two.client.set(KEY, "1")
    follow(two.workers, 503)
    two.server.kill()
    gone = time.monotonic()
    while time.monotonic() < gone + 4 * POLLED_TTL:  # beyond `stale_after`
        assert {answer.status for answer in two.workers.get_all("/").values()} == {503}
        time.sleep(0.05)
    two.server.start()
    two.client.set(KEY, "0")
    follow(two.workers, 200, within=AT_ONCE + 2)


def test_a_frozen_redis_makes_no_request_wait(two: Deployment) -> None:
    two.client.set(KEY, "1")
    follow(two.workers, 503)
    two.server.pause()
    try:
        took = []
        for _ in range(50):
            began = time.monotonic()
            answers = two.workers.get_all("/").values()
            took.append(time.monotonic() - began)
            assert {answer.status for answer in answers} == {503}
        # A busy machine delays some; who asks Redis waits each time, for half a ttl and more.
        assert sorted(took)[12] < POLLED_TTL / 2
    finally:
        two.server.resume()
    two.client.set(KEY, "0")
    follow(two.workers, 200, within=AT_ONCE + 2)


def test_with_tracking_forbidden_a_write_arrives_by_the_poll(two: Deployment) -> None:
    two.server.cli("ACL", "SETUSER", "default", "-client|tracking")
    try:
        two.client.client_kill_filter(_type="normal", skipme=True)
        eventually_sync(
            lambda: {worker.delivery for worker in registered(two.server.url)} == {"message"},
            within=30,
        )
        for value, status in (("1", 503), ("0", 200), ("1", 503)):
            two.client.set(KEY, value)
            follow(two.workers, status, within=1.5 * POLLED_TTL + AT_ONCE)
    finally:
        two.server.cli("ACL", "SETUSER", "default", "+client|tracking")
        two.client.client_kill_filter(_type="pubsub")
    eventually_sync(
        lambda: {worker.delivery for worker in registered(two.server.url)} == {"tracking"},
        within=30,
    )


def test_idle_worker_sends_one_round_trip_per_ttl(two: Deployment) -> None:
    commands = commands_while(two.client, lambda: time.sleep(6 * POLLED_TTL))

    polls = sum(command.startswith("TIME") for command in commands)
    assert 0 < polls <= 8 * len(two.workers.pids)
    assert len(commands) <= 14 * polls + 8


# -- two replicas that hold it closed --------------------------------------------------------------


@dataclass
class Replicas:
    """Two hosts with a process each, as far as Redis can tell."""

    server: RedisServer
    a: Workers
    b: Workers

    def named(self, name: str) -> Workers:
        return {"a": self.a, "b": self.b}[name]


@pytest.fixture(scope="module")
def two_replicas() -> Iterator[Replicas]:
    with RedisServer() as server:
        url = f"{server.url}?ttl={PUSHED_TTL}"
        with serve(url, 1) as a, serve(url, 1) as b:
            yield Replicas(server, a, b)


@pytest.fixture
def replicas(two_replicas: Replicas) -> Replicas:
    """Both open."""
    two_replicas.server.cli("DEL", KEY)
    follow(two_replicas.a, 200)
    follow(two_replicas.b, 200)
    return two_replicas


def tell(replica: Workers, method: str, name: str) -> None:
    assert replica.get(replica.pids[0], f"/blocks/{name}", method=method).status == 200


def orders(*names: str) -> list[tuple[str, ...]]:
    """Every order in which these can be entered and left, each being entered before it is left."""
    steps = [step + name for name in names for step in "+-"]
    return [
        order
        for order in permutations(steps)
        if all(order.index("+" + name) < order.index("-" + name) for name in names)
    ]


@pytest.mark.parametrize("order", orders("a", "b"), ids=" ".join)
@pytest.mark.parametrize("switch", ["0", "1"])
def test_overlapping_blocks_on_two_replicas_compose(
    replicas: Replicas, order: tuple[str, ...], switch: str
) -> None:
    replicas.server.cli("SET", KEY, switch)
    inside: set[str] = set()
    for step in order:
        name = step[1]
        tell(replicas.named(name), "PUT" if step[0] == "+" else "DELETE", name)
        inside ^= {name}
        status = 503 if inside or switch == "1" else 200
        follow(replicas.a, status)
        follow(replicas.b, status)

    assert replicas.server.cli("GET", KEY) == switch, "what the operator has set is as it was"


def test_a_holder_that_is_killed_holds_until_its_lease_is_over(replicas: Replicas) -> None:
    tell(replicas.a, "PUT", "a")
    follow(replicas.b, 503)
    replicas.a.kill(replicas.a.pids[0])
    killed = time.monotonic()
    try:
        # It was renewed when two thirds of it were left, at the latest.
        while time.monotonic() < killed + switched.LEASE / 4:
            assert {answer.status for answer in replicas.b.get_all("/").values()} == {503}
        follow(replicas.b, 200, within=switched.LEASE + AT_ONCE)
    finally:
        replicas.a.stop()
        replicas.a.start()


# -- the application that they run -----------------------------------------------------------------


def test_the_application_can_be_held_closed_and_let_go() -> None:
    with TestClient(switched.app) as client:
        assert client.get("/").json() == client.get("/pid").json()
        client.put("/blocks/a").raise_for_status()
        assert client.get("/").status_code == 503
        client.delete("/blocks/a").raise_for_status()
        assert client.get("/").status_code == 200
