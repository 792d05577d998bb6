"""Applications with the admin router, and clients of it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute
from starlette.testclient import TestClient

from fastapi_maintenance import MaintenanceModeMiddleware, maintenance_component
from fastapi_maintenance.admin import maintenance_admin
from fastapi_maintenance.backends import RedisBackend, backend_from_url

from ..apps.administered import PASSWORD

JSON: Final = {"Content-Type": "application/json"}
ANY: Final = {"If-Match": "*"}
# Of tests/apps/administered.py.
LOGIN: Final = {"Authorization": f"Basic {b64encode(f'ana:{PASSWORD}'.encode()).decode()}"}
SHOP: Final = "http://testserver/"
BILLING: Final = "http://testserver/billing"


class Administer(Protocol):
    """Starts an application with these middleware options; returns a client of its router."""

    def __call__(
        self, backend: Any, /, *, operator: Callable[..., Any] | None = None, **options: Any
    ) -> TestClient: ...


def shop(backend: Any, *, operator: Callable[..., Any] | None = None, **options: Any) -> FastAPI:
    """An application with one route and the admin router."""
    app = FastAPI(routes=_routes(operator))
    app.add_middleware(MaintenanceModeMiddleware, backend=backend, **options)
    return app


@cache
def _routes(operator: Callable[..., Any] | None) -> list[BaseRoute]:
    """The routes of all of them: FastAPI takes longer to make these than a test to ask them."""
    app = FastAPI(openapi_url=None)
    app.get("/")(lambda: "open")
    app.include_router(maintenance_admin(public=True, operator=operator))
    return app.routes


def with_billing(app: FastAPI) -> FastAPI:
    """The same application with a component."""
    app.get("/billing")(maintenance_component("billing")(lambda: "open"))
    return app


@pytest.fixture
def administer() -> Iterator[Administer]:
    """See `Administer`."""
    with ExitStack() as clients:

        def start(
            backend: Any, /, *, operator: Callable[..., Any] | None = None, **options: Any
        ) -> TestClient:
            if isinstance(backend, str):
                # Here and not in the event loop, for that imports what it needs.
                backend = backend_from_url(backend)
            app = shop(backend, operator=operator, **options)
            if isinstance(backend, RedisBackend):
                with_billing(app)
            client = clients.enter_context(TestClient(app, headers=JSON))
            client.base_url = client.base_url.join("/maintenance/")
            return client

        yield start


@pytest.fixture(params=["file", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a backend with details."""
    return (
        f"file:{tmp_path}/switch.json"
        if request.param == "file"
        else request.getfixturevalue("redis_url")
    )
