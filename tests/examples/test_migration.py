"""`fastapi-maintenance run` around a real Alembic migration, while four workers write through the
application.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.coordination.barrier import registered_workers

from ..support.servers import RedisServer
from ..support.waiting import eventually_sync

EXAMPLE = Path(__file__).parents[2] / "examples" / "migration"


@pytest.fixture
def environment(redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(EXAMPLE.parents[1])]),
        "SHOP_DATABASE": str(tmp_path / "shop.db"),
        "FASTAPI_MAINTENANCE_BACKEND": redis_url,
    }


@pytest.fixture
def shop(environment: dict[str, str], free_port: int, redis_url: str) -> Iterator[str]:
    """The shop's address, four workers behind it."""
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "0001"],
        cwd=EXAMPLE,
        env=environment,
        check=True,
    )
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "shop:app",
        "--workers",
        "4",
        "--port",
        str(free_port),
        "--log-level",
        "warning",
    ]
    server = subprocess.Popen(command, env=environment)
    try:
        backend = RedisBackend(redis_url)
        eventually_sync(
            lambda: len(asyncio.run(registered_workers(backend))) == 4, within=60, every=0.2
        )
        yield f"http://127.0.0.1:{free_port}"
    finally:
        server.terminate()
        server.wait(20)


class Customers:
    """Place orders all the time, from several threads."""

    def __init__(self, shop: str) -> None:
        self._request = urllib.request.Request(f"{shop}/orders", method="POST")
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._order) for _ in range(4)]
        self.statuses: list[int] = []

    def __enter__(self) -> Customers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _order(self) -> None:
        while not self._done.is_set():
            try:
                with urllib.request.urlopen(self._request, timeout=20) as answer:
                    self.statuses.append(answer.status)
            except urllib.error.HTTPError as refused:
                self.statuses.append(refused.code)
            time.sleep(0.005)


@pytest.mark.timeout(180)
def test_no_row_is_written_during_the_migration(
    shop: str, environment: dict[str, str], redis_server: RedisServer, tmp_path: Path
) -> None:
    alembic = f"{sys.executable} -m alembic upgrade head"
    script = f"date +%s.%N > {tmp_path}/start; {alembic} && date +%s.%N > {tmp_path}/end"
    with Customers(shop) as customers:
        eventually_sync(lambda: customers.statuses.count(200) > 20, within=30)
        ran = subprocess.run(
            [
                sys.executable,
                "-m",
                "fastapi_maintenance",
                "run",
                "--drain",
                "30s",
                "--reason",
                "OPS-417",
                "--",
                "sh",
                "-c",
                script,
            ],
            cwd=EXAMPLE,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        served = customers.statuses.count(200)
        eventually_sync(lambda: customers.statuses.count(200) > served + 20, within=30)

    assert ran.returncode == 0, ran.stderr
    start, end = (float((tmp_path / name).read_text()) for name in ("start", "end"))
    with sqlite3.connect(tmp_path / "shop.db") as database:
        placed = [row[0] for row in database.execute("SELECT placed FROM orders")]
        unpaid = database.execute(
            "SELECT count(*) FROM orders WHERE paid IS NULL AND placed < ?", (start,)
        ).fetchone()[0]
    assert end - start > 1
    assert [moment for moment in placed if start <= moment <= end] == []
    assert any(moment < start for moment in placed)
    assert any(moment > end for moment in placed)
    assert unpaid == 0
    assert set(customers.statuses) == {200, 503}
    assert redis_server.cli("HLEN", "{maintenance}:holds") == "0"
