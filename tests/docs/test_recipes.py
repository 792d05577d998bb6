"""The applications of docs/recipes.md, as they are in examples/."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fastapi_maintenance import MaintenanceState, wait_until_applied
from fastapi_maintenance.backends import LocalFileBackend, RedisBackend

from ..support.serving import serving
from ..support.waiting import eventually

SOON = 20.0


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalFileBackend:
    """A switch in a file that FASTAPI_MAINTENANCE_BACKEND names."""
    file = tmp_path / "switch.json"
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", f"file:{file}?ttl=0.1")
    return LocalFileBackend(file)


def example(name: str) -> FastAPI:
    """Return a new application of an example."""
    app = importlib.reload(importlib.import_module(f"examples.{name}")).app
    assert isinstance(app, FastAPI)
    return app


def turn(
    switch: LocalFileBackend, client: TestClient, method: str, path: str, **details: object
) -> None:
    """Turn the switch on, and wait until the worker refuses that request."""
    state = MaintenanceState(enabled=True, **details)  # type: ignore[arg-type]
    asyncio.run(switch.write(state))

    async def is_closed() -> bool:
        return client.request(method, path).status_code == 503

    asyncio.run(eventually(is_closed, within=SOON))


# -- streams ---------------------------------------------------------------------------------------


class Stream:
    """The events of a stream as they come, and whether it ended in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.status = 0
        self.ended = False

    async def follow(self, client: httpx2.AsyncClient, method: str, path: str) -> None:
        async with client.stream(method, path) as response:
            self.status = response.status_code
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    self.events.append(line.removeprefix("data:").strip())
            self.ended = True


@asynccontextmanager
async def following(
    client: httpx2.AsyncClient, *requests: tuple[str, str]
) -> AsyncIterator[list[Stream]]:
    """Follow streams until the end of the block."""
    streams = [Stream() for _ in requests]
    tasks = [
        asyncio.create_task(stream.follow(client, *request))
        for stream, request in zip(streams, requests, strict=True)
    ]
    try:
        await eventually(lambda: all(stream.events for stream in streams), within=SOON)
        yield streams
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_streams_end_stay_or_are_drained_as_told(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", redis_url)
    backend = RedisBackend(redis_url)
    async with AsyncExitStack() as stack:
        app = await asyncio.to_thread(example, "streams")
        address = stack.enter_context(serving(app))
        client = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=f"http://{address}", timeout=SOON, trust_env=False)
        )
        asked = ("POST", "/tools/sum?steps=5"), ("GET", "/events"), ("GET", "/notices")
        tool, events, notices = await stack.enter_async_context(following(client, *asked))
        await backend.set_value(True)
        (await wait_until_applied(backend, drained=True, timeout=SOON)).check()

        assert tool.events[-1] == '"sum: step 5 of 5"'
        assert tool.ended
        await eventually(lambda: events.ended, within=SOON)
        seen = len(notices.events)
        await eventually(lambda: len(notices.events) > seen + 2, within=SOON)
        assert not notices.ended
        assert (await client.get("/events")).status_code == 503
        assert (await client.get("/notices")).status_code == 503


# -- a frontend ------------------------------------------------------------------------------------


@pytest.mark.may_block  # the first FileResponse reads the types of files
def test_frontend_stays_while_its_api_is_closed(switch: LocalFileBackend) -> None:
    with TestClient(example("frontend")) as client:
        assert client.get("/api/orders").json() == ["tea", "cups"]
        turn(switch, client, "GET", "/api/orders", message="Back soon")
        closed = client.get("/api/orders")
        assert (closed.status_code, closed.json()) == (503, {"detail": "Back soon"})
        for path in ("/", "/index.html", "/orders/7"):
            page = client.get(path)
            assert (page.status_code, page.headers["content-type"]) == (
                200,
                "text/html; charset=utf-8",
            )
            assert "<h1>Shop</h1>" in page.text
        unknown = client.get("/api/nothing")
        assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})


# -- a login ---------------------------------------------------------------------------------------


def test_login_stays_open_in_read_only_mode(switch: LocalFileBackend) -> None:
    given = {"username": "ana", "password": "tea"}
    with TestClient(example("login")) as client:
        token = client.post("/auth/login", json=given).json()["access_token"]
        user = {"Authorization": f"Bearer {token}"}
        assert client.post("/orders", headers=user).json() == "ana has ordered"
        turn(switch, client, "POST", "/orders", mode="read-only")

        token = client.post("/auth/login", json=given).json()["access_token"]
        user = {"Authorization": f"Bearer {token}"}
        assert client.get("/orders", headers=user).json() == ["ana's tea"]
        assert client.get("/orders", headers={"Authorization": "Bearer x"}).status_code == 401
        assert client.post("/auth/login", json=given | {"password": "no"}).status_code == 401
        refused = client.post("/orders", headers=user)
        assert (refused.status_code, refused.json()["mode"]) == (503, "read-only")
        turn(switch, client, "POST", "/auth/login")
        assert client.post("/auth/login", json=given).status_code == 503
