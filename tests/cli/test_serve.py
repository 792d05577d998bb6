"""The command `serve`: a stand-in that follows the switch and answers for workers that are gone."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
import uvicorn
from starlette.testclient import TestClient, WebSocketDenialResponse
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastapi_maintenance import MaintenanceState
from fastapi_maintenance.backends import EnvVarBackend, LocalFileBackend, RedisBackend
from fastapi_maintenance.cli.serve import _TEXTS, StandIn
from fastapi_maintenance.coordination.barrier import registered_workers, wait_until_applied
from fastapi_maintenance.responses.translations import TRANSLATIONS

from ..support.waiting import eventually, eventually_sync
from .conftest import Cli
from .program import Program

SOON = 20.0


class Switch:
    """A switch in a file, with a client of a stand-in that follows it."""

    def __init__(self, home: Path, client: TestClient) -> None:
        self._backend = LocalFileBackend(home / "switch.json")
        self.client = client

    def write(self, **details: object) -> None:
        state = MaintenanceState(enabled=True, **details)  # type: ignore[arg-type]
        asyncio.run(self._backend.write(state))
        eventually_sync(lambda: "x-maintenance-mode" in self.client.put("/").headers, within=SOON)


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[Switch]:
    with TestClient(StandIn(LocalFileBackend(tmp_path / "switch.json", ttl=0.1))) as client:
        yield Switch(tmp_path, client)


# -- while maintenance is on -----------------------------------------------------------------------


def test_stand_in_while_on_answers_as_a_worker(switch: Switch) -> None:
    switch.write(message="Back at four", retry_after=120)
    response = switch.client.get("/any/path")

    assert (response.status_code, response.json()) == (503, {"detail": "Back at four"})
    assert response.headers["retry-after"] == "120"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-maintenance-mode"] == "full"
    page = switch.client.get("/", headers={"accept": "text/html", "accept-language": "de"})
    assert TRANSLATIONS["de"].title in page.text
    head = switch.client.head("/", headers={"accept": "text/html"})
    assert (head.status_code, head.content) == (503, b"")
    assert head.headers["content-length"] != "0"


def test_stand_in_reads_a_variable_at_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(StandIn(EnvVarBackend()))
    for value, marked in (("1", True), ("0", False), ("1", True)):
        monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", value)
        response = client.get("/")
        assert (response.status_code, "x-maintenance-mode" in response.headers) == (503, marked)


def test_stand_in_in_read_only_mode_answers_reads_neutrally(switch: Switch) -> None:
    switch.write(mode="read-only")

    assert switch.client.post("/").headers["x-maintenance-mode"] == "read-only"
    read = switch.client.get("/")
    assert "x-maintenance-mode" not in read.headers
    assert read.json() == {"detail": "Service temporarily unavailable"}
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        switch.client.websocket_connect("/"),
    ):
        pass
    assert denied.value.headers["x-maintenance-mode"] == "read-only"


# -- while maintenance is off ----------------------------------------------------------------------


def test_stand_in_while_off_answers_503_neutrally(switch: Switch) -> None:
    response = switch.client.get("/")

    assert response.status_code == 503
    assert response.json() == {"detail": "Service temporarily unavailable"}
    assert response.headers["retry-after"] == "5"
    assert response.headers["cache-control"] == "no-store"
    assert "x-maintenance-mode" not in response.headers
    problem = switch.client.get("/", headers={"accept": "application/problem+json"}).json()
    assert (problem["type"], problem["title"]) == ("about:blank", "Service Unavailable")
    assert (problem["detail"], problem["retry_after"]) == ("Service temporarily unavailable", 5)


@pytest.mark.parametrize("media_type", ["text/html", "text/plain"])
@pytest.mark.parametrize("language", TRANSLATIONS)
def test_stand_in_while_off_names_no_maintenance(
    switch: Switch, language: str, media_type: str
) -> None:
    headers = {"accept": media_type, "accept-language": language}
    response = switch.client.get("/", headers=headers)

    assert all(text in response.text for text in _TEXTS[language])
    assert TRANSLATIONS[language].title not in response.text
    assert response.headers["content-language"] == language


def test_stand_in_while_off_denies_websockets(switch: Switch) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        switch.client.websocket_connect("/"),
    ):
        pass
    assert denied.value.status_code == 503
    assert "x-maintenance-mode" not in denied.value.headers


# -- as a program ----------------------------------------------------------------------------------


def ask(url: str) -> tuple[int, dict[str, str], dict[str, str]] | None:
    """Return status, JSON and headers; None where no server listens."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=10)
    except HTTPError as error:
        return (
            error.code,
            json.loads(error.read()),
            {k.lower(): v for k, v in error.headers.items()},
        )
    except OSError:
        return None
    raise AssertionError("the stand-in must refuse every request")


async def test_served_stand_in_follows_redis_without_registering(
    redis_url: str, free_port: int
) -> None:
    backend = RedisBackend(redis_url)
    command = "serve", "--backend", redis_url, "--port", str(free_port)
    url = f"http://127.0.0.1:{free_port}/"
    with await asyncio.to_thread(Program, *command) as program:
        answer = await eventually(lambda: asyncio.to_thread(ask, url), within=30)
        assert answer is not None
        assert (answer[0], answer[2]["retry-after"]) == (503, "5")
        assert "server" not in answer[2]
        await backend.write(MaintenanceState(enabled=True, message="Back at four"))

        async def follows() -> bool:
            answer = await asyncio.to_thread(ask, url)
            return answer is not None and answer[1]["detail"] == "Back at four"

        await eventually(follows, within=SOON)
        with pytest.raises(InvalidStatus) as refused:
            await asyncio.to_thread(connect, f"ws://127.0.0.1:{free_port}/", proxy=None)
        assert refused.value.response.status_code == 503
        assert await registered_workers(backend) == ()
        assert (await wait_until_applied(backend, expect=0, timeout=SOON)).pending == ()
        program.signal(2)
        done = await asyncio.to_thread(program.ended)
    assert done.out.startswith(
        f"Answering 503 on http://127.0.0.1:{free_port} by the switch at redis"
    )
    assert done.err == ""


def test_serve_listens_where_it_is_told(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    given: dict[str, object] = {}

    def run(app: StandIn, **options: object) -> None:
        given.update(options)
        with TestClient(app) as client:  # on Redis, whose link asks for a report
            assert client.get("/").status_code == 503

    monkeypatch.setattr(uvicorn, "run", run)
    done = cli("serve", "--backend", redis_url, "--port", "8010", "--host", "0.0.0.0")

    assert (done.code, given["host"], given["port"]) == (0, "0.0.0.0", 8010)
    assert done.out.startswith("Answering 503 on http://0.0.0.0:8010 by the switch at redis://")


def test_serve_without_uvicorn_says_what_to_install(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = cli("serve", "--port", "1")

    assert done.code == 1
    assert "pip install 'fastapi-maintenance-cluster[demo]'" in " ".join(done.err.split())


def test_serve_needs_a_port_and_a_valid_backend(cli: Cli) -> None:
    assert cli("serve").code == 2
    assert cli("serve", "--port", "1", "--backend", "nowhere://h").code == 2
