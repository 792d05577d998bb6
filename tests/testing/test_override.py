"""`override`: the state of one application for a block, and of no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MaintenanceState,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    get_maintenance_mode,
    maintenance_mode_off,
    maintenance_mode_on,
)
from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend, LocalFileBackend
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.testing import override
from tests.support.doubles import Switchboard

UNREACHABLE: Final = "redis://127.0.0.1:1"

MakeBackend = Callable[[], str | BaseStateBackend]


def shop(backend: str | BaseStateBackend | None = None, **options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(
        MaintenanceModeMiddleware,
        backend=backend if backend is not None else Switchboard(),
        **options,
    )

    @app.get("/")
    @app.post("/")
    async def front() -> bool:
        return await get_maintenance_mode()

    @app.get("/off")
    @force_maintenance_mode_off
    async def forced_off() -> None: ...

    @app.get("/on")
    @force_maintenance_mode_on
    async def forced_on() -> None: ...

    return app


def ask(app: ASGIApp, path: str = "/") -> int:
    return TestClient(app).get(path).status_code


@pytest.mark.parametrize(
    "backend",
    [lambda: Switchboard(True), EnvVarBackend, lambda: UNREACHABLE],
    ids=["its own", "env", "unreachable"],
)
@pytest.mark.parametrize(
    "state", [True, False, MaintenanceState(enabled=True), MaintenanceState(enabled=False)]
)
def test_override_sets_the_state(backend: MakeBackend, state: bool | MaintenanceState) -> None:
    app = shop(backend())
    enabled = state if isinstance(state, bool) else state.enabled

    with override(app, state):
        assert ask(app) == (503 if enabled else 200)


@pytest.mark.parametrize("always", [True, False])
def test_override_precedes_enable_maintenance(always: bool) -> None:
    app = shop(enable_maintenance=always)

    with override(app, not always):
        assert ask(app) == (200 if always else 503)
    assert ask(app) == (503 if always else 200)


def test_override_precedes_active_holds() -> None:
    backend = Switchboard()
    app = shop(backend)

    with maintenance_mode_on(backend):
        assert ask(app) == 503
        with override(app, False):
            assert ask(app) == 200
        assert ask(app) == 503
    with override(app, True), maintenance_mode_off(backend):
        assert ask(app) == 503


def test_override_is_seen_inside_requests() -> None:
    app = shop(Switchboard(True))

    with override(app, False):
        assert TestClient(app).get("/").json() is False
    with override(app, MaintenanceState(enabled=True, mode="read-only")):
        assert TestClient(app).get("/").json() is True


def test_override_leaves_route_marks() -> None:
    app = shop()

    with override(app, True):
        assert ask(app, "/off") == 200
    with override(app, False):
        assert ask(app, "/on") == 503


def test_override_details_are_in_the_answer() -> None:
    app = shop()

    with override(app, MaintenanceState(enabled=True, message="Back at four", retry_after=120)):
        answer = TestClient(app).get("/")

    assert (answer.json(), answer.headers["retry-after"]) == ({"detail": "Back at four"}, "120")


def test_override_read_only_lets_reads_pass() -> None:
    app = shop()

    with override(app, MaintenanceState(enabled=True, mode="read-only")):
        assert TestClient(app).get("/").status_code == 200
        assert TestClient(app).post("/").status_code == 503


def test_override_window_follows_the_local_clock() -> None:
    app, now = shop(), datetime.now(UTC)

    with override(app, MaintenanceState(enabled=True, starts_at=now + timedelta(hours=1))):
        assert ask(app) == 200
    with override(app, MaintenanceState(enabled=True, ends_at=now + timedelta(hours=1))):
        assert ask(app) == 503


@pytest.mark.parametrize(
    "backend", [lambda: Switchboard(True, ttl=0.05), EnvVarBackend], ids=["watched", "asked always"]
)
def test_override_works_around_or_inside_a_client(backend: MakeBackend) -> None:
    app = shop(backend())
    with TestClient(app) as client:
        before = client.get("/").status_code
        with override(app, before == 200):
            assert client.get("/").status_code != before
        assert client.get("/").status_code == before
    with override(app, before == 200), TestClient(app) as client:
        assert client.get("/").status_code != before
    assert ask(app) == before


def test_override_blocks_nest() -> None:
    app = shop()

    with override(app, True):
        with override(app, False):
            assert ask(app) == 200
        assert ask(app) == 503
    assert ask(app) == 200


def test_override_ends_after_an_error() -> None:
    app = shop()

    with pytest.raises(RuntimeError), override(app, True):
        raise RuntimeError
    assert ask(app) == 200


def test_override_leaves_other_applications() -> None:
    backend = Switchboard()
    app, other = shop(backend), shop(backend)

    with override(app, True):
        assert (ask(app), ask(other)) == (503, 200)
    with override(other, True):
        assert (ask(app), ask(other)) == (200, 503)


def test_override_leaves_mounted_applications() -> None:
    inner, outer = shop(), shop()
    outer.mount("/inner", inner)

    with override(inner, True):
        assert (ask(outer, "/inner/"), ask(outer)) == (503, 200)
    with override(outer, True):
        assert ask(outer) == 503


def test_override_writes_nothing() -> None:
    backend = Switchboard()
    app = shop(backend)

    with override(app, True):
        assert ask(app) == 503
        assert (backend.value, backend.reads) == (False, 0)


def test_override_ends_while_the_backend_is_on(tmp_path: Any) -> None:
    (tmp_path / "maintenance.json").write_text("1")
    app = shop(LocalFileBackend(tmp_path / "maintenance.json"))

    with override(app, False):
        assert ask(app) == 200
    assert ask(app) == 503


def around(app: FastAPI) -> ASGIApp:
    return MaintenanceModeMiddleware(app, backend=Switchboard())


def beneath_another() -> ASGIApp:
    app = shop()

    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    return app


def bare() -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.get("/")(lambda: None)
    return app


@pytest.mark.parametrize(
    "make",
    [shop, beneath_another, lambda: around(bare()), lambda: around(shop())],
    ids=["in it", "deeper", "around it", "twice"],
)
@pytest.mark.parametrize("state", [True, False])
def test_override_finds_the_middleware_anywhere(make: Any, state: bool) -> None:
    app = make()

    with override(app, state):
        assert ask(app) == (503 if state else 200)
    assert ask(app) == 200


@pytest.mark.parametrize(
    "make", [bare, lambda: bare().router, object], ids=["application", "router", "something else"]
)
def test_override_without_a_middleware_is_refused(make: Any) -> None:
    with (
        pytest.raises(
            ConfigurationError,
            match=r"no MaintenanceModeMiddleware\. Add one to it",
        ),
        override(make(), True),
    ):
        pass


def test_override_of_an_outer_application_is_refused() -> None:
    outer = bare()
    outer.mount("/inner", shop())

    with (
        pytest.raises(ConfigurationError, match="not one in which it is mounted"),
        override(outer, True),
    ):
        pass


@pytest.mark.parametrize("state", ["on", None, 1])
def test_override_with_an_invalid_state_is_refused(state: Any) -> None:
    with pytest.raises(ConfigurationError, match="True, False or a MaintenanceState"):
        override(shop(), state)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="fastapi_maintenance"):
        yield caplog


def test_override_is_logged_as_source(log: pytest.LogCaptureFixture) -> None:
    with override(shop(), True):
        pass

    assert "maintenance on (full, override)" in log.messages
