"""The workers over the API, in this process and as four real processes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from fastapi_maintenance.admin.models import WorkerReport
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.workers import RegistrySnapshot, Worker

from ..support.doubles import Switchboard
from ..support.servers import RedisServer
from ..support.waiting import eventually_sync
from ..support.workers import Workers
from .conftest import JSON, LOGIN, Administer

SOON = 30.0


def test_worker_is_listed_and_follows_the_switch(administer: Administer, redis_url: str) -> None:
    client = administer(redis_url)
    eventually_sync(
        lambda: [one["applied"] for one in client.get("workers").json()] == [True], within=SOON
    )
    (worker,) = client.get("workers").json()
    assert (worker["status"], worker["applied"], worker["delivery"], worker["fenced"]) == (
        "open",
        True,
        "tracking",
        False,
    )
    client.put("switch", json={"enabled": True}, headers={"If-Match": "*"})
    barrier = client.post("barrier", json={"drained": True, "timeout": 20}).json()
    assert (barrier["ok"], barrier["why_not"], [one["id"] for one in barrier["drained"]]) == (
        True,
        None,
        [worker["id"]],
    )
    eventually_sync(lambda: client.get("workers").json()[0]["status"] == "drained", within=SOON)


def test_barrier_without_proof_says_why(administer: Administer, redis_url: str) -> None:
    barrier = administer(redis_url).post("barrier", json={"timeout": 0.1}).json()
    assert barrier["ok"] is False
    assert "registry" in barrier["why_not"] or "still waited for" in barrier["why_not"]


@pytest.mark.parametrize(
    "asked", [{"timeout": 0}, {"timeout": 301}, {"timeout": "long"}, {"drained": "maybe"}]
)
def test_barrier_timeout_out_of_range_is_422(
    administer: Administer, redis_url: str, asked: dict[str, Any]
) -> None:
    assert administer(redis_url).post("barrier", json=asked).status_code == 422


@pytest.mark.parametrize(("method", "path"), [("GET", "workers"), ("POST", "barrier")])
def test_workers_of_a_backend_without_a_registry_are_501(
    administer: Administer, method: str, path: str
) -> None:
    answer = administer(Switchboard()).request(method, path, json={})
    assert (answer.status_code, "no registry of workers" in answer.json()["detail"]) == (501, True)


def test_vanished_worker_is_listed_with_the_reason_why() -> None:
    workers = (
        Worker("b", host="web-1", pid=2, closed=True, applied="now"),
        Worker("a", host="web-1", pid=1, applied="before"),
        Worker("v", vanished=True, host="web-0", pid=3, fence=1.0, lifetime=3.0),
    )
    reports = WorkerReport.all_of(
        RegistrySnapshot(Snapshot(now=10.0, fingerprint="now"), "g", workers)
    )
    assert [(one.id, one.status, one.applied, one.fenced, one.why_not_gone) for one in reports] == [
        ("v", "vanished", False, True, "its record does not say where its process ran"),
        ("a", "open", False, False, None),
        ("b", "closed", True, False, None),
    ]


# -- four real ones --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """The server of the four, which is never emptied."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def four(server: RedisServer) -> Iterator[Workers]:
    env = {"FASTAPI_MAINTENANCE_BACKEND": server.url}
    with Workers("tests.apps.administered:app", count=4, env=env) as workers:
        yield workers


def ask(
    workers: Workers, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", workers.port, timeout=60)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(
            method,
            f"/maintenance/{path}",
            content,
            LOGIN | JSON | {name.replace("_", "-"): value for name, value in headers.items()},
        )
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()


@pytest.mark.timeout(180)
def test_one_of_four_workers_closes_and_drains_all(four: Workers, server: RedisServer) -> None:
    def standing() -> set[tuple[str, bool]]:
        code, listed = ask(four, "GET", "workers")
        assert (code, sorted(one["pid"] for one in listed)) == (200, four.pids)
        return {(one["status"], one["applied"]) for one in listed}

    eventually_sync(lambda: standing() == {("open", True)}, within=SOON)
    work = threading.Thread(target=four.get, args=(four.pids[0], "/slow?seconds=6"))
    work.start()
    eventually_sync(
        lambda: sum(one["http"] for one in ask(four, "GET", "workers")[1]) >= 1,
        within=SOON,
        every=0.05,
    )

    code, state = ask(four, "PUT", "switch", {"enabled": True, "reason": "OPS-417"}, If_Match="*")
    assert (code, state["state"]["by"]) == (200, "ana")
    code, barrier = ask(four, "POST", "barrier", {"drained": True, "timeout": 60})
    assert (code, barrier["ok"], len(barrier["drained"])) == (200, True, 4)
    work.join(4)  # its answer is on its way
    assert not work.is_alive(), "it was waited for"
    assert {answer.status for answer in four.get_all("/").values()} == {503}
    eventually_sync(lambda: standing() == {("drained", True)}, within=SOON)

    server.cli("DEL", "maintenance")
    eventually_sync(lambda: standing() == {("open", True)}, within=SOON)
    assert {answer.status for answer in four.get_all("/").values()} == {200}


@pytest.mark.timeout(180)
def test_etag_is_the_same_on_every_worker(four: Workers, server: RedisServer) -> None:
    """Each request of a panel may reach another worker."""
    tags = {
        answer.headers["etag"]
        for answer in four.get_all("/maintenance/switch", headers=LOGIN).values()
    }
    assert len(tags) == 1
    code, _ = ask(four, "PUT", "switch?component=billing", {"enabled": True}, If_Match=tags.pop())
    assert code == 200
    tags = {
        answer.headers["etag"]
        for answer in four.get_all("/maintenance/switch", headers=LOGIN).values()
    }
    assert len(tags) == 1
    server.cli("DEL", "maintenance:billing")


@pytest.mark.timeout(180)
def test_requests_without_a_password_are_401(four: Workers) -> None:
    for path in ("", "state", "events", "openapi"):
        answers = four.get_all(f"/maintenance/{path}")
        assert {answer.status for answer in answers.values()} == (
            {404} if path == "openapi" else {401}
        )
