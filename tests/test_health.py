"""Readiness: a closed worker stays or leaves; an outage of the backend makes none leave."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fastapi_maintenance import MaintenanceModeMiddleware, MaintenanceState
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.health import WhileClosed, readiness
from fastapi_maintenance.testing import override

from .support.doubles import Switchboard
from .support.waiting import eventually_sync


def shop(while_closed: WhileClosed, **options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(MaintenanceModeMiddleware, **{"backend": Switchboard(ttl=0.05), **options})
    app.get("/")(lambda: None)
    app.get("/ready")(readiness(while_closed=while_closed))
    return app


@pytest.mark.parametrize(
    ("while_closed", "closed", "code", "body"),
    [
        ("stay", False, 200, {"ready": True, "maintenance": False}),
        ("stay", True, 200, {"ready": True, "maintenance": True}),
        ("leave", False, 200, {"ready": True, "maintenance": False}),
        ("leave", True, 503, {"ready": False, "maintenance": True}),
    ],
)
def test_readiness_follows_while_closed(
    while_closed: WhileClosed, closed: bool, code: int, body: dict[str, bool]
) -> None:
    app = shop(while_closed)
    with override(app, closed):
        answer = TestClient(app).get("/ready")

    assert (answer.status_code, answer.json(), answer.headers["cache-control"]) == (
        code,
        body,
        "no-store",
    )


@pytest.mark.parametrize("while_closed", get_args(WhileClosed))
def test_readiness_in_read_only_mode_is_200(while_closed: WhileClosed) -> None:
    """A balancer that drops every worker would also refuse the reads that this mode allows."""
    app = shop(while_closed)
    with override(app, MaintenanceState(enabled=True, mode="read-only")):
        answer = TestClient(app).get("/ready")

    assert (answer.status_code, answer.json()) == (200, {"ready": True, "maintenance": True})


def test_readiness_of_a_fenced_worker_is_200() -> None:
    backend = Switchboard(ttl=0.05)
    app = shop("leave", backend=backend, on_unreachable="closed", stale_after=0.1)
    with TestClient(app) as client:
        backend.error = RuntimeError("gone")
        eventually_sync(lambda: client.get("/").status_code == 503, within=30)
        answer = client.get("/ready")

    assert (answer.status_code, answer.json()) == (200, {"ready": True, "maintenance": True})


def test_readiness_without_a_middleware_is_200() -> None:
    app = FastAPI(openapi_url=None)
    app.get("/ready")(readiness(while_closed="leave"))

    assert TestClient(app).get("/ready").json() == {"ready": True, "maintenance": False}


def test_readiness_with_an_invalid_option_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="while_closed must be one of stay, leave"):
        readiness(while_closed="maybe")  # type: ignore[arg-type]
