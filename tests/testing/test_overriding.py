"""`override`: one application goes by a state for the length of a block, and nothing of it is left anywhere else."""

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
from tests.doubles import Switchboard

UNREACHABLE: Final = "redis://127.0.0.1:1"

MakeBackend = Callable[[], str | BaseStateBackend]


def shop(backend: str | BaseStateBackend | None = None, **options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(MaintenanceModeMiddleware, backend=backend if backend is not None else Switchboard(), **options)

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


@pytest.mark.parametrize("backend", [lambda: Switchboard(True), EnvVarBackend, lambda: UNREACHABLE], ids=["its own", "env", "unreachable"])
@pytest.mark.parametrize("state", [True, False, MaintenanceState(enabled=True), MaintenanceState(enabled=False)])
def test_the_application_goes_by_what_is_given(backend: MakeBackend, state: bool | MaintenanceState) -> None:
    app = shop(backend())
    enabled = state if isinstance(state, bool) else state.enabled

    with override(app, state):
        assert ask(app) == (503 if enabled else 200)


@pytest.mark.parametrize("always", [True, False])
def test_it_goes_before_what_the_middleware_was_told(always: bool) -> None:
    app = shop(enable_maintenance=always)

    with override(app, not always):
        assert ask(app) == (200 if always else 503)
    assert ask(app) == (503 if always else 200)


def test_it_goes_before_the_holds_that_stand() -> None:
    backend = Switchboard()
    app = shop(backend)

    with maintenance_mode_on(backend):
        assert ask(app) == 503
        with override(app, False):
            assert ask(app) == 200
        assert ask(app) == 503
    with override(app, True), maintenance_mode_off(backend):
        assert ask(app) == 503


def test_inside_a_request_the_package_says_what_is_given() -> None:
    app = shop(Switchboard(True))

    with override(app, False):
        assert TestClient(app).get("/").json() is False
    with override(app, MaintenanceState(enabled=True, mode="read-only")):
        assert TestClient(app).get("/").json() is True


def test_marks_on_routes_stay_what_they_are() -> None:
    app = shop()

    with override(app, True):
        assert ask(app, "/off") == 200
    with override(app, False):
        assert ask(app, "/on") == 503


def test_the_answer_has_the_details_that_are_given() -> None:
    app = shop()

    with override(app, MaintenanceState(enabled=True, message="Back at four", retry_after=120)):
        answer = TestClient(app).get("/")

    assert (answer.json(), answer.headers["retry-after"]) == ({"detail": "Back at four"}, "120")


def test_read_only_mode_lets_reading_pass() -> None:
    app = shop()

    with override(app, MaintenanceState(enabled=True, mode="read-only")):
        assert TestClient(app).get("/").status_code == 200
        assert TestClient(app).post("/").status_code == 503


def test_a_window_counts_by_the_clock_of_this_machine() -> None:
    app, now = shop(), datetime.now(UTC)

    with override(app, MaintenanceState(enabled=True, starts_at=now + timedelta(hours=1))):
        assert ask(app) == 200
    with override(app, MaintenanceState(enabled=True, ends_at=now + timedelta(hours=1))):
        assert ask(app) == 503


@pytest.mark.parametrize("backend", [lambda: Switchboard(True, ttl=0.05), EnvVarBackend], ids=["watched", "asked always"])
def test_a_client_may_be_entered_before_or_after_it(backend: MakeBackend) -> None:
    app = shop(backend())
    with TestClient(app) as client:
        before = client.get("/").status_code
        with override(app, before == 200):
            assert client.get("/").status_code != before
        assert client.get("/").status_code == before
    with override(app, before == 200), TestClient(app) as client:
        assert client.get("/").status_code != before
    assert ask(app) == before


def test_blocks_nest_and_the_innermost_counts() -> None:
    app = shop()

    with override(app, True):
        with override(app, False):
            assert ask(app) == 200
        assert ask(app) == 503
    assert ask(app) == 200


def test_after_an_error_in_the_block_nothing_is_left() -> None:
    app = shop()

    with pytest.raises(RuntimeError), override(app, True):
        raise RuntimeError
    assert ask(app) == 200


def test_another_application_with_the_same_backend_does_not_notice() -> None:
    backend = Switchboard()
    app, other = shop(backend), shop(backend)

    with override(app, True):
        assert (ask(app), ask(other)) == (503, 200)
    with override(other, True):
        assert (ask(app), ask(other)) == (200, 503)


def test_an_application_that_is_mounted_has_a_state_of_its_own() -> None:
    inner, outer = shop(), shop()
    outer.mount("/inner", inner)

    with override(inner, True):
        assert (ask(outer, "/inner/"), ask(outer)) == (503, 200)
    with override(outer, True):
        assert ask(outer) == 503


def test_nothing_is_written() -> None:
    backend = Switchboard()
    app = shop(backend)

    with override(app, True):
        assert ask(app) == 503
        assert (backend.value, backend.reads) == (False, 0)


def test_it_ends_while_the_backend_says_on(tmp_path: Any) -> None:
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
    "make", [shop, beneath_another, lambda: around(bare()), lambda: around(shop())], ids=["in it", "deeper", "around it", "twice"]
)
@pytest.mark.parametrize("state", [True, False])
def test_the_middleware_is_found_wherever_it_is(make: Any, state: bool) -> None:
    app = make()

    with override(app, state):
        assert ask(app) == (503 if state else 200)
    assert ask(app) == 200


@pytest.mark.parametrize("make", [bare, lambda: bare().router, object], ids=["application", "router", "something else"])
def test_without_the_middleware_it_says_what_to_do(make: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"no MaintenanceModeMiddleware .* add one by app\.add_middleware"), override(make(), True):
        pass


def test_an_application_in_which_one_is_mounted_is_the_wrong_one() -> None:
    outer = bare()
    outer.mount("/inner", shop())

    with pytest.raises(ConfigurationError, match="not one in which that is mounted"), override(outer, True):
        pass


@pytest.mark.parametrize("state", ["on", None, 1])
def test_what_is_no_state_is_refused(state: Any) -> None:
    with pytest.raises(ConfigurationError, match="True, False or a MaintenanceState"):
        override(shop(), state)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="fastapi_maintenance"):
        yield caplog


def test_the_log_says_where_the_state_comes_from(log: pytest.LogCaptureFixture) -> None:
    with override(shop(), True):
        pass

    assert "maintenance on (full, override)" in log.messages
