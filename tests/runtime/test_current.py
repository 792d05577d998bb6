"""The process' default backend, and what works on the application at hand or, without
one, on that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MaintenanceState,
    configure_backend,
    get_maintenance_mode,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import (
    BaseStateBackend,
    EnvVarBackend,
    LocalFileBackend,
    RedisBackend,
)
from fastapi_maintenance.backends.default import backend_or_default
from fastapi_maintenance.exceptions import (
    BackendError,
    ConfigurationError,
    MaintenanceError,
    ReadOnlyBackendError,
    UnsupportedError,
)
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON

from ..conftest import RedisServerFactory
from ..support.doubles import Switchboard

MODE = "FASTAPI_MAINTENANCE_MODE"
BACKEND = "FASTAPI_MAINTENANCE_BACKEND"


# -- which backend ---------------------------------------------------------------------------------


def test_default_backend_is_the_environment_variable() -> None:
    assert backend_or_default().describe() == f"env:{MODE}"
    assert backend_or_default() is backend_or_default()


def test_default_backend_url_of_the_environment_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure_backend("file:configured.json")
    assert backend_or_default().describe() == "file:configured.json"

    monkeypatch.setenv(BACKEND, "file:named.json")
    assert backend_or_default().describe() == "file:named.json"
    assert backend_or_default() is backend_or_default()

    monkeypatch.setenv(BACKEND, "file:renamed.json")
    assert backend_or_default().describe() == "file:renamed.json"

    monkeypatch.setenv(BACKEND, "")
    assert backend_or_default().describe() == "file:configured.json"


def test_given_backend_comes_before_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BACKEND, "file:named.json")
    given = Switchboard()

    assert backend_or_default(given) is given
    assert backend_or_default("env:GIVEN").describe() == "env:GIVEN"


def test_invalid_backend_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="backend must be a backend or its URL, got 5"):
        backend_or_default(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("backend", "options", "description"),
    [
        ("env", {}, f"env:{MODE}"),
        ("env", {"var_name": "OTHER"}, "env:OTHER"),
        ("file", {"file_path": "m.json"}, "file:m.json"),
        ("file:m.json", {}, "file:m.json"),
        ("redis", {"url": "redis://localhost"}, "redis://localhost:6379/0?key=maintenance"),
        ("redis", {"url": "redis://localhost", "key": "k"}, "redis://localhost:6379/0?key=k"),
        ("redis://localhost/1", {}, "redis://localhost:6379/1?key=maintenance"),
    ],
)
def test_configure_backend_takes_a_kind_or_a_url(
    backend: str, options: dict[str, Any], description: str
) -> None:
    configure_backend(backend, **options)

    assert backend_or_default().describe() == description


def test_configure_backend_takes_an_instance() -> None:
    configure_backend(backend := Switchboard())

    assert backend_or_default() is backend


@pytest.mark.parametrize(
    ("backend", "options", "sentence"),
    [
        (
            "etcd",
            {},
            "backend must be env, file, redis or a URL like redis://.*, got 'etcd'",
        ),
        ("file", {}, "The file backend cannot take these options: .*file_path"),
        ("file", {"path": "x"}, "The file backend cannot take these options: .*path"),
        ("file", {"file_path": "x", "ttl": 0}, "ttl must be a positive number of seconds, got 0"),
        ("redis", {}, "Give a Redis URL or a client, and not both"),
        (
            "redis",
            {"url": "redis://localhost", "ttl": "soon"},
            "ttl must be a number of seconds, not 'soon'",
        ),
        ("file:x", {"ttl": 2}, "Options belong into the URL's query when a URL is given"),
        (
            "http://localhost",
            {},
            "A backend URL cannot start with 'http'; write one like redis://localhost",
        ),
        (
            Switchboard(),
            {"ttl": 2},
            "Options belong to the backend's own constructor when an instance is given",
        ),
        (None, {}, r"backend must be a kind \(env, file or redis\), a URL or a backend, got None"),
        (5, {}, r"backend must be a kind \(env, file or redis\), a URL or a backend, got 5"),
    ],
)
def test_configure_backend_with_invalid_options_changes_nothing(
    backend: Any, options: dict[str, Any], sentence: str
) -> None:
    configure_backend("env:KEPT")

    with pytest.raises(ConfigurationError, match=sentence):
        configure_backend(backend, **options)

    assert backend_or_default().describe() == "env:KEPT"


@pytest.mark.parametrize(
    "url",
    [
        "redis//:s3cret@host:6379/0",
        "http://user:s3cret@host",
        "redis://user:s3cret@host:port/0",
        "redis://user:s3cret@host/zero",
        "redis://:6/s3cret@host/0",
        "redis://:s3cret/more@host/0",
        "redis://user:s3cret@[host/0",
        "redis://user:s3cret@host/0?ttl=soon",
        "redis://user:s3cret@host/0?ttl=-1",
        "redis://user:s3cret@host/0?on_data_loss=panic",
        "redis://user:s3cret@host/0?color=red",
        "redis://user:s3cret@host/0?key=",
        "redis:/user:s3cret@host",
        "redis:user:s3cret@host",
        "unix://user:s3cret@host/redis.sock?db=one",
    ],
)
def test_url_error_never_shows_the_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(BACKEND, url)

    for configure in (
        lambda: configure_backend(url),
        backend_or_default,
        lambda: backend_or_default(url),
    ):
        with pytest.raises(ConfigurationError) as refusal:
            configure()
        assert "s3cret" not in str(refusal.value)
        assert len(str(refusal.value)) > 20


def test_two_apps_in_one_process_keep_apart(tmp_path: Path) -> None:
    one, other = client(f"file:{tmp_path / 'one'}"), client(f"file:{tmp_path / 'other'}")
    with one, other:
        assert one.post("/set/1").status_code == 200

        assert one.get("/get").json() is True
        assert other.get("/get").json() is False


# -- inside a request ------------------------------------------------------------------------------


def client(backend: str | BaseStateBackend | None) -> TestClient:
    """An application that always answers, and says and does what code in it can."""
    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware, backend=backend, exempt_handler=lambda request: True
    )

    @app.get("/get")
    async def read() -> bool:
        return await get_maintenance_mode()

    @app.post("/set/{value}")
    async def write(value: bool) -> bool:
        await set_maintenance_mode(value)
        return await get_maintenance_mode()

    @app.post("/hold")
    async def hold() -> list[bool]:
        async with maintenance_mode_on():
            inside = await get_maintenance_mode()
            async with maintenance_mode_off():
                lifted = await get_maintenance_mode()
        return [inside, lifted, await get_maintenance_mode()]

    @app.post("/hold-sync")
    def hold_sync() -> bool:
        with maintenance_mode_on():
            return True

    return TestClient(app)


@pytest.fixture
def elsewhere() -> Switchboard:
    """The process' default, which an application with a backend of its own must not touch."""
    configure_backend(backend := Switchboard())
    return backend


@pytest.mark.parametrize("lifespan", [True, False])
def test_default_inside_a_request_is_that_of_its_app(
    tmp_path: Path, elsewhere: Switchboard, lifespan: bool
) -> None:
    asked = client(f"file:{tmp_path / 'm.json'}")
    if lifespan:
        with asked:
            use(asked)
    else:
        use(asked)

    assert elsewhere.value is False
    assert elsewhere.reads == 0


def use(asked: TestClient) -> None:
    assert asked.get("/get").json() is False
    assert asked.post("/set/1").json() is True
    assert asked.get("/get").json() is True
    assert asked.post("/set/0").json() is False
    assert asked.post("/hold").json() == [True, False, False]
    assert asked.post("/hold-sync").json() is True
    assert asked.get("/get").json() is False


def test_app_without_a_backend_has_the_default(elsewhere: Switchboard) -> None:
    with client(None) as asked:
        assert asked.post("/set/1").json() is True

    assert elsewhere.value is True


async def test_default_outside_of_requests_is_that_of_the_process(elsewhere: Switchboard) -> None:
    await set_maintenance_mode(True)

    assert elsewhere.value is True
    assert await get_maintenance_mode() is True
    async with maintenance_mode_off():
        assert await get_maintenance_mode() is False


def test_given_backend_inside_a_request_is_asked(tmp_path: Path) -> None:
    other = Switchboard(True)
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=f"file:{tmp_path / 'm.json'}")

    @app.get("/")
    async def index() -> list[bool]:
        await set_maintenance_mode(False, f"file:{tmp_path / 'third'}")
        return [await get_maintenance_mode(), await get_maintenance_mode(other)]

    assert TestClient(app).get("/").json() == [False, True]
    assert (tmp_path / "third").read_text() == "0"


# -- getting and setting ---------------------------------------------------------------------------


async def test_get_mode_returns_the_effective_state(tmp_path: Path) -> None:
    backend = LocalFileBackend(tmp_path / "m.json")
    assert await get_maintenance_mode(backend) is False

    hold = await backend.acquire(Hold("a", ON), 30)
    assert await get_maintenance_mode(backend) is True
    assert await backend.get_value() is False
    await backend.release(hold)
    await backend.write(ON)
    hold = await backend.acquire(Hold("b", OFF), 30)
    assert await get_maintenance_mode(backend) is False


async def test_get_mode_with_unreadable_switch_raises(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("perhaps")
    backend = LocalFileBackend(path)

    with pytest.raises(BackendError, match="'perhaps' is not a boolean word"):
        await get_maintenance_mode(backend)

    await backend.acquire(Hold("a", ON), 30)
    assert await get_maintenance_mode(backend) is True


async def test_set_mode_takes_a_state_and_a_time_to_live(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    state = MaintenanceState(enabled=True, message="Soon")

    await set_maintenance_mode(state, backend, expires_in=600)

    reading = await backend.read()
    assert reading.switch == state
    assert reading.expires_in is not None
    assert 590 < reading.expires_in <= 600
    await set_maintenance_mode(False, redis_url)
    assert await get_maintenance_mode(redis_url) is False


@pytest.fixture
def unreachable(own_redis_server: RedisServerFactory) -> str:
    """The URL of a Redis that is down."""
    server = own_redis_server()
    server.stop()
    return server.url


async def test_set_mode_that_fails_raises(unreachable: str, tmp_path: Path) -> None:
    """A setter that returns has set."""
    broken = Switchboard()
    broken.error = ConnectionError("gone")

    with pytest.raises(BackendError, match="cannot be reached"):
        await set_maintenance_mode(True, unreachable)
    with pytest.raises(ReadOnlyBackendError, match="cannot be changed from within"):
        await set_maintenance_mode(True, "env:X")
    with pytest.raises(BackendError, match="cannot be written"):
        await set_maintenance_mode(True, f"file:{tmp_path}/missing/m.json")
    with pytest.raises(ConnectionError, match="gone"):
        await set_maintenance_mode(True, broken)
    with pytest.raises(UnsupportedError, match="keeps only on or off"):
        await set_maintenance_mode(MaintenanceState(enabled=True, message="Soon"), Switchboard())
    with pytest.raises(MaintenanceError, match="at most 65536 bytes"):
        await set_maintenance_mode(
            MaintenanceState(enabled=True, message="x" * 70_000), f"file:{tmp_path}/m.json"
        )


async def test_get_mode_that_fails_raises(unreachable: str) -> None:
    with pytest.raises(BackendError, match="cannot be reached"):
        await get_maintenance_mode(unreachable)


def test_environment_of_the_modelled_package_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODE, "1")

    assert isinstance(backend_or_default(), EnvVarBackend)
    with client(None) as asked:
        assert asked.get("/get").json() is True
        assert os.environ[MODE] == "1"
