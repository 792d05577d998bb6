"""A small application behind the middleware, and waiting for it to follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    force_maintenance_mode_off,
)

from .waiting import eventually_sync

SOON: Final = 30.0  # seconds; generous, for what takes milliseconds


def shop(**options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.get("/")
    async def index() -> str:
        return "open"

    @app.get("/health")
    @force_maintenance_mode_off
    async def health() -> str:
        return "ok"

    return app


def closable(app: FastAPI | None = None, **options: Any) -> FastAPI:
    app = app or shop()
    app.add_middleware(MaintenanceModeMiddleware, **options)
    return app


@contextmanager
def worker(url: str, **options: Any) -> Iterator[TestClient]:
    """A worker on Redis, as far as Redis can tell: with a link of its own."""
    with TestClient(closable(backend=url, **options)) as client:
        yield client


def becomes(client: TestClient, status: int, within: float = SOON) -> None:
    eventually_sync(lambda: client.get("/").status_code == status, within=within)


def in_(seconds: float) -> str:
    """So many seconds from now, as the switch's JSON has it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
