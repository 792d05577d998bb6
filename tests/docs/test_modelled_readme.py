"""What the README and the tutorial of the package that this one is modelled on show, written as its users write it.

They change one line, the requirement, and nothing else: every import here is one of theirs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from string import Template
from typing import Any, Final

import httpx2
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, Response, status
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
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
DETAIL: Final = "Service temporarily unavailable due to maintenance"


def hello(**options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, **options)

    @app.get("/")
    def root() -> dict[str, str]:
        return {"message": "Hello World"}

    return app


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def ask(app: FastAPI, path: str = "/") -> int:
    """Another client's request, while the application is in the middle of one."""
    start, *_ = await exchange(app, http_scope(path=path))
    code: int = start["status"]
    return code


# -- first steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "code"),
    [(word, 503) for word in ("1", "yes", "true", "on")]
    + [(word, 200) for word in ("0", "no", "false", "off", "")],
)
def test_the_environment_variable(monkeypatch: pytest.MonkeyPatch, word: str, code: int) -> None:
    monkeypatch.setenv(VARIABLE, word)

    assert TestClient(hello()).get("/").status_code == code


def test_without_a_word_of_configuration_nothing_changes() -> None:
    assert TestClient(hello()).get("/").json() == {"message": "Hello World"}


@pytest.mark.parametrize(
    ("enable_maintenance", "variable", "code"), [(True, "0", 503), (False, "1", 200)]
)
def test_enable_maintenance_goes_before_the_variable(
    monkeypatch: pytest.MonkeyPatch, enable_maintenance: bool, variable: str, code: int
) -> None:
    monkeypatch.setenv(VARIABLE, variable)

    assert TestClient(hello(enable_maintenance=enable_maintenance)).get("/").status_code == code


def test_the_response() -> None:
    answer = TestClient(hello(enable_maintenance=True)).get("/")

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "3600"
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == '{"detail":"Service temporarily unavailable due to maintenance"}'


# -- decorators ------------------------------------------------------------------------------------------------------------


def common_parameters() -> dict[str, str]:
    return {"param": "value"}


def decorated() -> FastAPI:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware)

    @app.get("/status")
    @force_maintenance_mode_off
    def current_status() -> dict[str, str]:
        return {"status": "operational"}

    @app.get("/deprecated")
    @force_maintenance_mode_on
    async def deprecated_endpoint() -> None: ...

    @app.get("/users")
    async def get_users() -> list[str]:
        return ["user1", "user2"]

    @app.get("/api/admin")
    @force_maintenance_mode_off
    async def admin_endpoint(
        commons: dict[str, str] = Depends(common_parameters),  # noqa: B008
    ) -> dict[str, Any]:
        return {"admin": True, **commons}

    return app


@pytest.mark.parametrize(("word", "users"), [("0", 200), ("1", 503)])
def test_decorators(monkeypatch: pytest.MonkeyPatch, word: str, users: int) -> None:
    monkeypatch.setenv(VARIABLE, word)
    client = TestClient(decorated())

    assert client.get("/status").json() == {"status": "operational"}
    assert client.get("/api/admin").json() == {"admin": True, "param": "value"}
    assert client.get("/deprecated").status_code == 503
    assert client.get("/users").status_code == users


# -- backends ----------------------------------------------------------------------------------------------------------------


def test_the_variable_of_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their example adds both middlewares to one application."""
    app = hello(backend=EnvVarBackend())
    app.add_middleware(
        MaintenanceModeMiddleware, backend=EnvVarBackend(var_name="MY_CUSTOM_MAINTENANCE_FLAG")
    )
    client = TestClient(app)
    assert client.get("/").status_code == 200

    for name in (VARIABLE, "MY_CUSTOM_MAINTENANCE_FLAG"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert client.get("/").status_code == 503


@pytest.mark.parametrize("configured", [True, False])
def test_a_local_file(here: Path, configured: bool) -> None:
    if configured:
        configure_backend("file", file_path=FILE)
    app = hello() if configured else hello(backend=LocalFileBackend(file_path=FILE))
    with TestClient(app) as client:
        assert client.get("/").status_code == 200
        (here / FILE).write_text("1")
        eventually_sync(lambda: client.get("/").status_code == 503, within=10)


def test_endpoints_that_control_it(here: Path) -> None:
    app = hello(backend=LocalFileBackend(file_path=FILE))

    @app.post("/admin/maintenance/enable")
    @force_maintenance_mode_off
    async def enable_maintenance() -> dict[str, bool]:
        await set_maintenance_mode(True)
        return {"maintenance_mode": True}

    @app.post("/admin/maintenance/disable")
    @force_maintenance_mode_off
    async def disable_maintenance() -> dict[str, bool]:
        await set_maintenance_mode(False)
        return {"maintenance_mode": False}

    @app.get("/admin/maintenance/status")
    @force_maintenance_mode_off
    async def get_maintenance_status() -> dict[str, bool]:
        return {"maintenance_mode": await get_maintenance_mode()}

    with TestClient(app) as client:
        for verb, mode, code in (("enable", True, 503), ("disable", False, 200)):
            assert client.post(f"/admin/maintenance/{verb}").json() == {"maintenance_mode": mode}
            assert client.get("/admin/maintenance/status").json() == {"maintenance_mode": mode}
            assert client.get("/").status_code == code
            assert (here / FILE).read_text() == str(int(mode))


async def test_what_differs_a_variable_that_cannot_be_set_says_so() -> None:
    """Theirs logs a warning and goes on, and so the caller believes that the service is closed."""
    with pytest.raises(ReadOnlyBackendError, match="set it where the process is started"):
        await set_maintenance_mode(True)


# -- context managers --------------------------------------------------------------------------------------------------------


def syncing(app: FastAPI) -> list[int]:
    """Let an application sync its data in a block; returns where others' answers meanwhile are put."""
    answers: list[int] = []

    async def perform_sync() -> None:
        answers.append(await ask(app, "/"))

    @app.post("/sync")
    @force_maintenance_mode_off
    async def sync_data() -> dict[str, str]:
        async with maintenance_mode_on():
            await perform_sync()
        return {"status": "completed"}

    return answers


@pytest.mark.parametrize(("kind", "options"), [("env", {}), ("file", {"file_path": FILE})])
@pytest.mark.parametrize("lifespan", [True, False])
def test_a_block_in_an_endpoint(
    here: Path, kind: str, options: dict[str, str], lifespan: bool
) -> None:
    configure_backend(kind, **options)
    app = hello()
    answers = syncing(app)
    client = TestClient(app)
    with client if lifespan else nullcontext():
        assert client.post("/sync").json() == {"status": "completed"}
        assert answers == [503]
        assert client.get("/").status_code == 200


def test_a_block_leaves_the_file_as_it_was(here: Path) -> None:
    (here / FILE).write_text("1")
    app = hello(backend=LocalFileBackend(file_path=FILE))
    syncing(app)
    with TestClient(app) as client:
        client.post("/sync").raise_for_status()
        assert client.get("/").status_code == 503
    assert (here / FILE).read_text() == "1"


def test_a_block_on_a_backend_of_its_own(here: Path) -> None:
    configure_backend("file", file_path=FILE)
    custom_backend = LocalFileBackend(file_path=str(here / "custom_file.txt"))

    async def custom_maintenance_operation() -> list[bool]:
        async with maintenance_mode_on(backend=custom_backend):
            return [await get_maintenance_mode(custom_backend), await get_maintenance_mode()]

    assert asyncio.run(custom_maintenance_operation()) == [True, False]
    assert asyncio.run(get_maintenance_mode(custom_backend)) is False


@pytest.mark.parametrize(("kind", "options"), [("env", {}), ("file", {"file_path": FILE})])
def test_nested_blocks(here: Path, kind: str, options: dict[str, str]) -> None:
    configure_backend(kind, **options)

    async def complex_operation() -> list[bool]:
        seen = [await get_maintenance_mode()]
        async with maintenance_mode_on():
            seen.append(await get_maintenance_mode())
            async with maintenance_mode_on():
                seen.append(await get_maintenance_mode())
            seen.append(await get_maintenance_mode())
        return [*seen, await get_maintenance_mode()]

    assert asyncio.run(complex_operation()) == [False, True, True, True, False]


async def test_a_block_that_opens(on: None) -> None:
    app = hello()
    async with maintenance_mode_off():
        assert await ask(app) == 200
    assert await ask(app) == 503


# -- custom backends -----------------------------------------------------------------------------------------------------------


class RedisBackend(BaseStateBackend):
    """Their recipe for Redis, which calls no `super().__init__()`."""

    def __init__(self, client: Any, key: str = "fastapi_maintenance_mode") -> None:
        self.client = client
        self.key = key

    async def get_value(self) -> bool:
        value = await self.client.get(self.key)
        if value is None:
            return False
        return self._str_to_bool(value.decode("utf-8"))

    async def set_value(self, value: bool) -> None:
        await self.client.set(self.key, self._bool_to_str(value))


def test_a_custom_backend_on_redis(redis_server: RedisServer) -> None:
    redis_client = Redis(host="127.0.0.1", port=redis_server.port, db=0)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await redis_client.aclose()

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(MaintenanceModeMiddleware, backend=RedisBackend(redis_client))

    @app.put("/mode/{value}")
    @force_maintenance_mode_off
    async def put_mode(value: bool) -> bool:
        await set_maintenance_mode(value)
        return await get_maintenance_mode()

    app.add_api_route("/", lambda: "open")
    with TestClient(app) as client:
        assert client.get("/").status_code == 200
        assert client.put("/mode/1").json() is True
        assert client.get("/").status_code == 503
        assert redis_server.cli("GET", "fastapi_maintenance_mode") == "1"
        redis_server.cli("SET", "fastapi_maintenance_mode", "off")
        eventually_sync(lambda: client.get("/").status_code == 200, within=10)


class APIBackend(BaseStateBackend):
    """Their recipe for a service of somebody else's."""

    def __init__(self, api_url: str, api_key: str | None = None, transport: Any = None) -> None:
        self.api_url = api_url
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._transport = transport

    async def get_value(self) -> bool:
        async with httpx2.AsyncClient(transport=self._transport) as session:
            response = await session.get(f"{self.api_url}/maintenance", headers=self._headers)
            return self._str_to_bool(str(response.json().get("active", False)))

    async def set_value(self, value: bool) -> None:
        async with httpx2.AsyncClient(transport=self._transport) as session:
            await session.post(
                f"{self.api_url}/maintenance", json={"active": value}, headers=self._headers
            )


def test_a_custom_backend_on_a_service_of_somebody_elses() -> None:
    service = {"active": True}

    def serve(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["authorization"] == "Bearer key"
        if request.method == "POST":
            service.update(json.loads(request.content))
        return httpx2.Response(200, json=service)

    app = hello(backend=APIBackend("https://status.example", "key", httpx2.MockTransport(serve)))

    @app.post("/open")
    @force_maintenance_mode_off
    async def open_again() -> None:
        await set_maintenance_mode(False)

    with TestClient(app) as client:
        assert client.get("/").status_code == 503
        client.post("/open").raise_for_status()
        assert client.get("/").status_code == 200
    assert service == {"active": False}


# -- exemptions ----------------------------------------------------------------------------------------------------------------


def is_exempt(request: Request) -> bool:
    if request.url.path.startswith("/health"):
        return True
    return request.headers.get("X-Admin-Key") == "supersecret"


def is_admin(request: Request) -> bool:
    token = request.headers.get("Authorization", "").replace("Bearer ", "")
    try:
        return "admin" in json.loads(token).get("roles", [])
    except ValueError:
        return False


def is_internal(request: Request) -> bool:
    host = request.client.host if request.client else ""
    return host in ("127.0.0.1", "::1") or host.startswith("10.")


def is_reading(request: Request) -> bool:
    return request.method in ("GET", "HEAD")


async def is_known(request: Request) -> bool:
    users = {"7": "admin", "8": "visitor"}
    return users.get(request.headers.get("X-User-ID", "")) == "admin"


ADMIN: Final = {"Authorization": 'Bearer {"roles": ["admin"]}'}


@pytest.mark.parametrize(
    ("handler", "method", "path", "headers", "host", "code"),
    [
        (is_exempt, "GET", "/health/live", {}, "192.0.2.1", 200),
        (is_exempt, "GET", "/", {"X-Admin-Key": "supersecret"}, "192.0.2.1", 200),
        (is_exempt, "GET", "/", {"X-Admin-Key": "guessed"}, "192.0.2.1", 503),
        (is_exempt, "GET", "/docs", {}, "192.0.2.1", 200),
        (is_exempt, "GET", "/missing", {}, "192.0.2.1", 404),
        (is_exempt, "DELETE", "/", {}, "192.0.2.1", 405),
        (is_admin, "GET", "/", ADMIN, "192.0.2.1", 200),
        (is_admin, "GET", "/", {"Authorization": "Bearer nonsense"}, "192.0.2.1", 503),
        (is_internal, "GET", "/", {}, "10.0.0.7", 200),
        (is_internal, "GET", "/", {}, "192.0.2.1", 503),
        (is_reading, "GET", "/", {}, "192.0.2.1", 200),
        (is_reading, "POST", "/health/live", {}, "192.0.2.1", 503),
        (is_known, "GET", "/", {"X-User-ID": "7"}, "192.0.2.1", 200),
        (is_known, "GET", "/", {"X-User-ID": "8"}, "192.0.2.1", 503),
    ],
)
def test_exempt_handlers(
    on: None, handler: Any, method: str, path: str, headers: dict[str, str], host: str, code: int
) -> None:
    app = hello(exempt_handler=handler)
    app.add_api_route("/health/live", lambda: "alive", methods=["GET", "POST"])
    client = TestClient(app, client=(host, 50000))

    assert client.request(method, path, headers=headers).status_code == code


# -- responses -----------------------------------------------------------------------------------------------------------------


def in_json(request: Request) -> Response:
    return JSONResponse(
        content={"status": "maintenance"}, status_code=503, headers={"Retry-After": "1800"}
    )


async def in_json_async(request: Request) -> JSONResponse:
    return JSONResponse(
        {"error": "in progress"}, status.HTTP_503_SERVICE_UNAVAILABLE, {"Retry-After": "600"}
    )


async def as_a_page(request: Request) -> HTMLResponse:
    return HTMLResponse("<h1>Site Under Maintenance</h1>", 503, {"Retry-After": "7200"})


async def from_a_template(request: Request) -> Response:
    """Theirs needs jinja2; what it comes to is a Response made of a file."""
    page = Template("<title>$site_name - Maintenance</title>").substitute(site_name="My API")
    return HTMLResponse(page, 503)


async def as_asked_for(request: Request) -> Response:
    accept = request.headers.get("accept", "")
    if "text/html" in accept:
        return HTMLResponse("<h1>Under Maintenance</h1>", 503)
    if "text/plain" in accept:
        return PlainTextResponse("Service under maintenance.", 503)
    return JSONResponse({"status": "maintenance"}, 503)


async def by_path(request: Request) -> JSONResponse:
    return JSONResponse({"detail": "use v2", "path": request.url.path}, 503)


@pytest.mark.parametrize(
    ("handler", "accept", "text", "retry_after"),
    [
        (in_json, "*/*", '{"status":"maintenance"}', "1800"),
        (in_json_async, "*/*", '{"error":"in progress"}', "600"),
        (as_a_page, "*/*", "<h1>Site Under Maintenance</h1>", "7200"),
        (from_a_template, "*/*", "<title>My API - Maintenance</title>", None),
        (as_asked_for, "text/html", "<h1>Under Maintenance</h1>", None),
        (as_asked_for, "text/plain", "Service under maintenance.", None),
        (as_asked_for, "*/*", '{"status":"maintenance"}', None),
        (by_path, "*/*", '{"detail":"use v2","path":"/"}', None),
    ],
)
def test_response_handlers(
    on: None, handler: Any, accept: str, text: str, retry_after: str | None
) -> None:
    answer = TestClient(hello(response_handler=handler)).get("/", headers={"accept": accept})

    assert (answer.status_code, answer.text, answer.headers.get("retry-after")) == (
        503,
        text,
        retry_after,
    )


# -- advanced usage --------------------------------------------------------------------------------------------------------------


def test_several_features_at_once(here: Path) -> None:
    configure_backend("file", file_path=FILE)
    app = hello(
        response_handler=in_json,
        exempt_handler=lambda request: request.headers.get("User-Agent", "").startswith(
            "Monitoring"
        ),
    )
    answers: list[int] = []

    @app.post("/admin/maintenance/update")
    @force_maintenance_mode_off
    async def update_system() -> dict[str, str]:
        async with maintenance_mode_on():
            answers.extend(
                [
                    await ask(app),
                    (
                        await exchange(
                            app, http_scope(headers={"user-agent": "Monitoring/1"}, path="/")
                        )
                    )[0]["status"],
                ]
            )
        return {"status": "updated"}

    with TestClient(app) as client:
        assert client.post("/admin/maintenance/update").json() == {"status": "updated"}
        assert client.get("/").status_code == 200
    assert answers == [503, 200]


def test_start_up_and_shutdown_events(here: Path) -> None:
    configure_backend("file", file_path=FILE)
    (here / FILE).write_text("1")
    app = hello()

    async def startup_event() -> None:
        await set_maintenance_mode(False)

    async def shutdown_event() -> None:
        await set_maintenance_mode(True)

    for event, handler in (("startup", startup_event), ("shutdown", shutdown_event)):
        with pytest.warns(DeprecationWarning, match="on_event"):
            app.on_event(event)(handler)

    with TestClient(app) as client:
        assert client.get("/").status_code == 200
        assert (here / FILE).read_text() == "0"
    assert (here / FILE).read_text() == "1"


def test_beside_the_middleware_for_cors(on: None) -> None:
    """In the order of their example, in which FM's 503 cannot be read by a browser."""
    app = FastAPI()
    app.add_middleware(
        CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"]
    )
    app.add_middleware(MaintenanceModeMiddleware)
    app.add_api_route("/", lambda: "open")

    answer = TestClient(app).get("/", headers={"origin": "https://shop.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (503, "*")


async def maintenance_status() -> bool:
    return await get_maintenance_mode()


async def require_maintenance_off() -> None:
    if await get_maintenance_mode():
        raise HTTPException(status_code=503, detail="Service is in maintenance mode")


@pytest.mark.parametrize("active", [True, False])
def test_dependencies_and_monitoring(here: Path, active: bool) -> None:
    configure_backend("file", file_path=FILE)
    (here / FILE).write_text(str(int(active)))
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware)

    @app.get("/api/status")
    @force_maintenance_mode_off
    async def api_status(is_maintenance: bool = Depends(maintenance_status)) -> dict[str, bool]:
        return {"maintenance_mode": is_maintenance}

    @app.post("/api/important", dependencies=[Depends(require_maintenance_off)])
    @force_maintenance_mode_off
    async def important_action() -> dict[str, str]:
        return {"message": "Important action completed"}

    client = TestClient(app)

    assert client.get("/api/status").json() == {"maintenance_mode": active}
    assert client.post("/api/important").status_code == (503 if active else 200)
