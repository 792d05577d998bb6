"""Windows on real worker processes: announced, exact on each of them, and moved by one write."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx2
import pytest
import redis
from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware

from ..support.commands import run
from ..support.servers import RedisServer
from ..support.serving import SERVERS
from ..support.waiting import eventually_sync
from ..support.workers import Workers

KEY: Final = "maintenance"
BILLING: Final = f"{KEY}:billing"
EXACT: Final = 0.05  # seconds
COMING: Final = "x-maintenance-coming"


@dataclass
class Deployment:
    """Four workers that look by themselves so rarely that what they hear in time was pushed."""

    server: RedisServer
    workers: Workers
    client: Any


@dataclass(frozen=True)
class Visit:
    """What one worker answered, and between which moments it must have decided that."""

    pid: int
    sent: float
    answered: float
    status: int


@pytest.fixture(scope="module")
def four_workers() -> Iterator[Deployment]:
    with RedisServer() as server:
        url = f"{server.url}?ttl=120"
        with (
            Workers(
                "tests.apps.scheduled:app", count=4, env={"FASTAPI_MAINTENANCE_BACKEND": url}
            ) as workers,
            redis.Redis.from_url(server.url, decode_responses=True) as client,
        ):
            yield Deployment(server, workers, client)


@pytest.fixture
def four(four_workers: Deployment) -> Deployment:
    """Open, with no window, as every worker knows."""
    four_workers.client.delete(KEY, BILLING)
    follow(four_workers, 200)
    announced(four_workers, False)
    return four_workers


def follow(four: Deployment, status: int) -> None:
    eventually_sync(
        lambda: {answer.status for answer in four.workers.get_all("/").values()} == {status},
        within=30,
    )


def announced(four: Deployment, expected: bool, path: str = "/") -> None:
    eventually_sync(
        lambda: all(
            (COMING in answer.headers) is expected for answer in four.workers.get_all(path).values()
        ),
        within=30,
    )


def window(begins: float, ends: float, **details: str) -> str:
    moments = {"starts_at": begins, "ends_at": ends}
    return json.dumps(
        {
            "enabled": True,
            **details,
            **{name: datetime.fromtimestamp(at, UTC).isoformat() for name, at in moments.items()},
        }
    )


def visits_until(four: Deployment, end: float, path: str = "/") -> list[Visit]:
    """Ask every worker in turn, without a pause."""
    visits = []
    while time.time() < end:
        for pid in four.workers.pids:
            sent = time.time()
            visits.append(
                Visit(pid, sent, status=four.workers.get(pid, path).status, answered=time.time())
            )
    return visits


def writes_while(four: Deployment, work: Any, key: str = KEY) -> list[str]:
    """Commands on a switch, those of scripts too, that do more than read it; what else the scripts
    keep is not the switch.
    """
    reads = ("EXISTS", "GET", "PTTL", "STRLEN")
    with four.client.monitor() as monitor:
        work()
        four.client.echo("that was all")
        seen: list[str] = []
        while not seen or "that was all" not in seen[-1]:
            seen.append(monitor.next_command()["command"])
    return [
        line for line in seen if f" {key} " in f"{line} " and not line.startswith(("EVAL", *reads))
    ]


def seen(visits: list[Visit], begins: float, ends: float) -> tuple[set[int], set[int], set[int]]:
    """The statuses before, inside and after a window, but for what was decided within 50 ms of its
    ends.
    """
    before = {visit.status for visit in visits if visit.answered < begins - EXACT}
    inside = {
        visit.status
        for visit in visits
        if begins + EXACT < visit.sent and visit.answered < ends - EXACT
    }
    return before, inside, {visit.status for visit in visits if ends + EXACT < visit.sent}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("key", "path"), [(KEY, "/"), (BILLING, "/billing")])
def test_window_begins_and_ends_on_every_worker_in_50_ms(
    four: Deployment, key: str, path: str
) -> None:
    begins = time.time() + 4.0
    ends = begins + 2.0
    four.client.set(key, window(begins, ends))
    announced(four, True, path)
    visits: list[Visit] = []
    writes = writes_while(four, lambda: visits.extend(visits_until(four, ends + 2.0, path)), key)

    for pid in four.workers.pids:
        assert seen([visit for visit in visits if visit.pid == pid], begins, ends) == (
            {200},
            {503},
            {200},
        )
    assert writes == []


@pytest.mark.parametrize("server", SERVERS)
def test_window_works_on_any_server(server: str, redis_url: str, redis_server: RedisServer) -> None:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=f"{redis_url}?ttl=120", announce=True)
    app.add_api_route("/", lambda: None)
    visits: list[Visit] = []
    with (
        SERVERS[server](app) as address,
        httpx2.Client(base_url=f"http://{address}", trust_env=False) as client,
    ):
        assert client.get("/").status_code == 200
        begins = time.time() + 4.0
        ends = begins + 2.0
        redis_server.cli("SET", KEY, window(begins, ends))
        eventually_sync(lambda: COMING in client.get("/").headers, within=30)
        while time.time() < ends + 2.0:
            sent = time.time()
            visits.append(Visit(0, sent, status=client.get("/").status_code, answered=time.time()))

    assert seen(visits, begins, ends) == ({200}, {503}, {200})


def test_upcoming_window_is_announced_until_it_begins(four: Deployment) -> None:
    begins = int(time.time()) + 6.25
    four.client.set(KEY, window(begins, begins + 600.5, mode="read-only"))
    announced(four, True)
    for path in ("/", "/missing"):
        assert {answer.headers[COMING] for answer in four.workers.get_all(path).values()} == {
            f"read-only;starts_at=@{int(begins)};ends_at=@{int(begins) + 601}"
        }

    announced(four, False)
    assert time.time() > begins - EXACT


def test_window_extension_takes_one_write(four: Deployment) -> None:
    begins = time.time() - 1
    ends = time.time() + 6.0
    four.client.set(KEY, window(begins, ends))
    follow(four, 503)
    assert len(writes_while(four, lambda: four.client.set(KEY, window(begins, ends + 60)))) == 1
    time.sleep(max(0.0, ends - time.time()))
    assert {visit.status for visit in visits_until(four, ends + 1.0) if visit.sent > ends} == {503}


def test_window_commands_take_one_write_each(four: Deployment) -> None:
    url = ("--backend", four.server.url)
    day_after_tomorrow = datetime.fromtimestamp(time.time() + 2 * 86400, UTC).isoformat(
        timespec="seconds"
    )
    outputs: list[str] = []

    def command(*arguments: str) -> None:
        ran = run(*arguments, *url)
        assert ran.code == 0, ran
        outputs.append(ran.out)

    assert (
        len(
            writes_while(
                four,
                lambda: command(
                    "on", "--at", day_after_tomorrow, "--for", "2h", "--reason", "OPS-417"
                ),
            )
        )
        == 1
    )
    announced(four, True)
    assert writes_while(four, lambda: command("schedule", "list")) == []
    assert "coming: on from " in outputs[0]
    assert outputs[1].startswith("on from ")
    assert "OPS-417" in outputs[1]
    assert len(writes_while(four, lambda: command("schedule", "cancel"))) == 1
    announced(four, False)
    assert not four.client.exists(KEY)
