"""The documentation of fastapi-maintenance 0.0.5 works here: its imports, signatures, examples."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from redis.asyncio import Redis

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    get_maintenance_mode,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend, LocalFileBackend
from fastapi_maintenance.exceptions import ReadOnlyBackendError

from ..support.asgi import exchange, http_scope
from ..support.servers import RedisServer
from ..support.waiting import eventually_sync

VARIABLE: Final = "FASTAPI_MAINTENANCE_MODE"
FILE: Final = "maintenance_mode.txt"
ON, OFF = ["1", "yes", "true", "on"], ["0", "no", "false", "off", ""]


def hello(**options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, **options)
    app.add_api_route("/", lambda: {"message": "Hello World"})
    return app


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def ask(app: FastAPI, path: str = "/") -> int:
    start, *_ = await exchange(app, http_scope(path=path))
    code: int = start["status"]
    return code


def test_middleware_options_keep_their_order() -> None:
    names = [*inspect.signature(MaintenanceModeMiddleware).parameters]
    wanted = ["app", "enable_maintenance", "backend", "exempt_handler", "response_handler"]
    assert names[:5] == wanted


@pytest.mark.parametrize("word", ON + OFF)
@pytest.mark.parametrize("option", [None, True, False])
def test_option_overrides_the_variable(
    monkeypatch: pytest.MonkeyPatch, word: str, option: bool | None
) -> None:
    monkeypatch.setenv(VARIABLE, word)
    is_on = word in ON if option is None else option
    answer = TestClient(hello(enable_maintenance=option)).get("/")
    assert answer.status_code == (503 if is_on else 200)
    if is_on:
        assert answer.text == '{"detail":"Service temporarily unavailable due to maintenance"}'
        assert answer.headers["retry-after"] == "3600"


@pytest.mark.parametrize(("word", "users"), [("0", 200), ("1", 503)])
def test_decorators_force_routes(monkeypatch: pytest.MonkeyPatch, word: str, users: int) -> None:
    monkeypatch.setenv(VARIABLE, word)
    app = hello()
    app.get("/status")(force_maintenance_mode_off(lambda: "operational"))
    app.get("/deprecated")(force_maintenance_mode_on(lambda: None))
    app.get("/users")(lambda: ["user1"])
    client, wanted = (
        TestClient(app),
        {"status": 200, "deprecated": 503, "users": users, "docs": 200},
    )
    assert {path: client.get(f"/{path}").status_code for path in wanted} == wanted


def test_two_variables_close_by_either(monkeypatch: pytest.MonkeyPatch) -> None:
    app = hello(backend=EnvVarBackend())
    app.add_middleware(MaintenanceModeMiddleware, backend=EnvVarBackend(var_name="MY_FLAG"))
    assert (client := TestClient(app)).get("/").status_code == 200
    for name in (VARIABLE, "MY_FLAG"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert client.get("/").status_code == 503


@pytest.mark.parametrize("configured", [True, False])
def test_file_is_followed(configured: bool) -> None:
    if configured:
        configure_backend("file", file_path=FILE)
    app = hello() if configured else hello(backend=LocalFileBackend(file_path=FILE))
    with TestClient(app) as client:
        assert client.get("/").status_code == 200
        Path(FILE).write_text("1")
        eventually_sync(lambda: client.get("/").status_code == 503, within=30)


def test_endpoints_control_the_switch() -> None:
    app = hello(backend=LocalFileBackend(file_path=FILE))

    @app.post("/admin/{value}")
    @force_maintenance_mode_off
    async def switch(value: bool) -> bool:
        await set_maintenance_mode(value)
        return await get_maintenance_mode()

    with TestClient(app) as client:
        for value, code in ((1, 503), (0, 200)):
            assert client.post(f"/admin/{value}").json() is bool(value)
            assert client.get("/").status_code == code
            assert Path(FILE).read_text() == str(value)


async def test_setting_a_variable_raises() -> None:
    """The other package logs a warning, and the caller believes that the service is closed."""
    with pytest.raises(ReadOnlyBackendError):
        await set_maintenance_mode(True)


@pytest.mark.parametrize("kind", ["env", "file"])
@pytest.mark.parametrize("lifespan", [True, False])
def test_block_in_an_endpoint_closes(kind: str, lifespan: bool) -> None:
    configure_backend(kind, **({"file_path": FILE} if kind == "file" else {}))
    app = hello()

    @app.post("/sync")
    @force_maintenance_mode_off
    async def sync() -> list[int]:
        async with maintenance_mode_on():
            async with maintenance_mode_on():
                inner = await ask(app)
            return [inner, await ask(app)]

    client = TestClient(app)
    with client if lifespan else nullcontext():
        assert client.post("/sync").json() == [503, 503]
        assert client.get("/").status_code == 200


@pytest.mark.may_block
async def test_blocks_set_the_given_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    custom = LocalFileBackend(file_path="custom.txt")
    async with maintenance_mode_off(), maintenance_mode_on(backend=custom):
        assert [await get_maintenance_mode(custom), await get_maintenance_mode()] == [True, False]
        assert await ask(hello()) == 200
    assert [await get_maintenance_mode(custom), await ask(hello())] == [False, 503]


class RedisBackend(BaseStateBackend):
    """The recipe of the other package, which does not call `super().__init__()`."""

    def __init__(self, client: Any, key: str = "fastapi_maintenance_mode") -> None:
        self.client = client
        self.key = key

    async def get_value(self) -> bool:
        value = await self.client.get(self.key)
        return False if value is None else self._str_to_bool(value.decode("utf-8"))

    async def set_value(self, value: bool) -> None:
        await self.client.set(self.key, self._bool_to_str(value))


def test_custom_backend_is_followed(redis_server: RedisServer) -> None:
    client = Redis(host="127.0.0.1", port=redis_server.port, db=0)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await client.aclose()

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(MaintenanceModeMiddleware, backend=RedisBackend(client))
    app.add_api_route("/", lambda: "open")
    with TestClient(app) as visitor:
        for value, code in (("1", 503), ("off", 200)):
            redis_server.cli("SET", "fastapi_maintenance_mode", value)
            eventually_sync(lambda code=code: visitor.get("/").status_code == code, within=30)  # type: ignore[misc]


def test_handlers_exempt_and_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")

    async def is_exempt(request: Request) -> bool:
        return request.headers.get("X-Admin-Key") == "secret" or request.method == "HEAD"

    def respond(request: Request) -> Response:
        return JSONResponse({"path": request.url.path}, 503, {"Retry-After": "1800"})

    client = TestClient(hello(exempt_handler=is_exempt, response_handler=respond))
    assert client.get("/", headers={"X-Admin-Key": "secret"}).status_code == 200
    answer = client.get("/")
    assert (answer.status_code, answer.json()) == (503, {"path": "/"})
    assert answer.headers["retry-after"] == "1800"
    assert client.get("/missing").status_code == 404


async def maintenance_status() -> bool:
    return await get_maintenance_mode()


@pytest.mark.parametrize("active", [True, False])
def test_dependency_reads_the_switch(active: bool) -> None:
    configure_backend("file", file_path=FILE)
    Path(FILE).write_text(str(int(active)))
    app = hello()

    @app.get("/status")
    @force_maintenance_mode_off
    async def status(is_on: bool = Depends(maintenance_status)) -> bool:
        return is_on

    assert TestClient(app).get("/status").json() is active
