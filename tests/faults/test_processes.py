"""Server programs that fork, replace and reload their processes: each that serves has one link, and
nobody else has any.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.holders import Program
from tests.support.ports import free_port
from tests.support.registering import reports
from tests.support.servers import RedisServer
from tests.support.waiting import eventually_sync

from .bounds import BOOT, BY_PUSH, SLACK

APPLICATION = """
from fastapi import FastAPI
from fastapi_maintenance import MaintenanceModeMiddleware

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware, backend={url!r})
"""


@pytest.fixture
def application(tmp_path: Path, redis_server: RedisServer) -> Path:
    """A module that uvicorn can import and somebody can edit."""
    eventually_sync(lambda: links(redis_server) == 0, within=SLACK)
    module = tmp_path / "edited.py"
    module.write_text(APPLICATION.format(url=f"{redis_server.url}?ttl=5"))
    return module


def links(server: RedisServer) -> int:
    return server.cli("CLIENT", "LIST").count("name=fastapi-maintenance:")


def applied(server: RedisServer) -> list[str]:
    """The reports of workers that are closed."""
    return [report for report in reports(server) if '"closed": true' in report]


def test_after_a_reload_there_is_one_link_as_before(
    application: Path, redis_server: RedisServer
) -> None:
    options = (
        "--reload",
        "--reload-dir",
        str(application.parent),
        "--app-dir",
        str(application.parent),
        "--port",
        str(free_port()),
    )
    with Program("-m", "uvicorn", "edited:app", *options) as server:
        server.expect("Application startup complete", within=BOOT)
        assert links(redis_server) == 1
        application.write_text(application.read_text() + "# edited\n")
        server.expect("Reloading", within=BOOT)
        server.expect("Application startup complete", within=BOOT)
        eventually_sync(lambda: links(redis_server) == 1, within=SLACK)
        redis_server.cli("SET", "maintenance", 1)
        eventually_sync(lambda: len(applied(redis_server)) == 1, within=BY_PUSH)
        server.signal(signal.SIGINT)
        server.wait(BOOT)
    eventually_sync(lambda: links(redis_server) == 0, within=SLACK)


def test_workers_of_a_preloaded_app_have_one_link_each(
    application: Path, redis_server: RedisServer
) -> None:
    address, home = f"127.0.0.1:{free_port()}", str(application.parent)
    options = (
        "--preload",
        "--workers",
        "2",
        "--worker-class",
        "uvicorn_worker.UvicornWorker",
        "--bind",
        address,
        "--chdir",
        home,
    )
    with Program("-m", "gunicorn", *options, "edited:app") as server:
        for _ in range(2):
            server.expect("Application startup complete", within=BOOT)
        assert links(redis_server) == 2
        redis_server.cli("SET", "maintenance", 1)
        eventually_sync(lambda: len(applied(redis_server)) == 2, within=BY_PUSH)
        server.signal(signal.SIGTERM)
        server.wait(BOOT)
    eventually_sync(lambda: links(redis_server) == 0, within=SLACK)
