"""The programs in examples/, run as they are."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import pytest

from fastapi_maintenance import wait_until_applied
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.coordination.barrier import registered_workers

from ..support.servers import RedisServer
from ..support.waiting import eventually_sync
from ..support.workers import Workers

ROOT: Final = Path(__file__).parents[2]
SOON: Final = 30.0


@contextmanager
def webhook() -> Iterator[tuple[str, list[Any]]]:
    """The URL of a server, and what was posted to it."""
    posted: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", posted
        finally:
            server.shutdown()
            thread.join()


def test_the_webhook_hears_of_each_change_once(redis_server: RedisServer) -> None:
    with webhook() as (url, posted):
        env = {"WEBHOOK": url, "REDIS_URL": redis_server.url, "no_proxy": "127.0.0.1"}
        with Workers("tests.apps.webhook:app", count=3, env=env):
            # What is set before a worker has read is no change to it.
            eventually_sync(
                lambda: len(asyncio.run(registered_workers(redis_server.url))) == 3, within=SOON
            )
            for number, value in enumerate(
                ('{"enabled": true, "reason": "OPS-417"}', "off", "on"), start=1
            ):
                redis_server.cli("SET", "maintenance", value)
                eventually_sync(lambda number=number: len(posted) == number, within=SOON)  # type: ignore[misc]

    assert [post["text"] for post in posted] == [
        "Maintenance is on: OPS-417",
        "Maintenance is off",
        "Maintenance is on",
    ]
    assert [post["was_on"] for post in posted] == [False, True, False]


def test_the_panel_is_guarded_and_flips_four_workers(redis_server: RedisServer) -> None:
    env = {"FASTAPI_MAINTENANCE_BACKEND": redis_server.url, "PANEL_PASSWORD": "letmein"}
    login = {
        "Authorization": f"Basic {base64.b64encode(b'ana:letmein').decode()}",
        "Content-Type": "application/json",
    }
    wrong = {"Authorization": f"Basic {base64.b64encode(b'ana:guessed').decode()}"}
    with Workers("tests.apps.panel:app", count=4, env=env) as workers:
        first = workers.pids[0]
        assert [
            workers.get(first, "/maintenance/", headers=headers).status
            for headers in ({}, wrong, login)
        ] == [401, 401, 200]
        registered = eventually_sync(
            lambda: json.loads(workers.get(first, "/maintenance/workers", headers=login).body)[3:],
            within=SOON,
        )
        assert len(registered) == 1
        redis_server.cli("SET", "maintenance", "1")
        eventually_sync(
            lambda: {answer.status for answer in workers.get_all("/").values()} == {503},
            within=SOON,
        )
        opened = workers.get(
            first, "/maintenance/switch", method="DELETE", headers=login | {"If-Match": "*"}
        )
        assert opened.status == 200
        eventually_sync(
            lambda: {answer.status for answer in workers.get_all("/").values()} == {200},
            within=SOON,
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_script_starts_and_ends_the_panel_of_four_workers(
    redis_server: RedisServer,
    free_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    clone = as_if_set_up(tmp_path, monkeypatch)
    env = {
        **os.environ,
        "FASTAPI_MAINTENANCE_BACKEND": redis_server.url,
        "UVICORN_PORT": str(free_port),
        "PYTHONPATH": str(ROOT),
    }
    said = tmp_path / "said"
    with said.open("w") as output:
        script = subprocess.Popen(
            [clone / "scripts/panel"], env=env, stdout=output, stderr=output, start_new_session=True
        )
    try:
        found = eventually_sync(
            lambda: re.search(
                r"(http://localhost:\d+/maintenance/), .*password (\S+)", said.read_text()
            ),
            within=SOON,
        )
        assert found is not None
        login = {"Authorization": f"Basic {base64.b64encode(f'ana:{found[2]}'.encode()).decode()}"}

        def ask(path: str) -> bytes:
            with (
                suppress(OSError),
                urlopen(Request(f"{found[1]}{path}", headers=login), timeout=10) as answer,
            ):
                content: bytes = answer.read()
                return content
            return b""

        eventually_sync(lambda: b"<title>Maintenance</title>" in ask(""), within=SOON, every=0.2)
        eventually_sync(
            lambda: len(json.loads(ask("workers") or "[]")) == 4, within=SOON, every=0.2
        )

        # To it alone, as by a service manager or a window that is closed.
        script.send_signal(number)
        assert script.wait(SOON) == 128 + number
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", free_port), timeout=10)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(script.pid, signal.SIGKILL)
        script.wait(SOON)


def test_panel_on_a_taken_port_does_not_start(
    free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = as_if_set_up(tmp_path, monkeypatch)
    env = {**os.environ, "UVICORN_PORT": str(free_port)}
    with socket.create_server(("127.0.0.1", free_port)):
        refused = subprocess.run(
            [clone / "scripts/panel"],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert refused.returncode == 1
    assert f"somebody else listens on port {free_port}" in refused.stderr
    assert "name one that is free: UVICORN_PORT=9000 scripts/panel" in refused.stderr
    assert "password" not in refused.stderr


def test_the_first_port_that_nobody_listens_on_is_taken(
    free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = as_if_set_up(tmp_path, monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ask = f". scripts/_setup; free_port {taken.getsockname()[1]} {free_port} 1"
        found = subprocess.run(
            ["sh", "-euc", ask], cwd=clone, capture_output=True, text=True, timeout=60, check=True
        )

    assert found.stdout == f"{free_port}\n"


def as_if_set_up(where: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with the environment that runs the tests, noted as complete: what it would otherwise
    install needs a network.
    """
    # By which the scripts would want another environment.
    monkeypatch.delenv("PYTHON", raising=False)
    clone = where / "clone"
    for name in ("scripts", "examples"):
        shutil.copytree(ROOT / name, clone / name)
    shutil.copy(ROOT / "pyproject.toml", clone)
    (clone / ".venv").mkdir()
    (clone / ".venv/bin").symlink_to(sysconfig.get_path("scripts"))
    with (clone / "pyproject.toml").open() as text:
        sum_of_it = subprocess.run(
            ["cksum"], stdin=text, capture_output=True, text=True, check=True
        ).stdout.strip()
    (clone / ".venv/.installed-demo").write_text(f"{sum_of_it} --editable .[demo]\n")
    return clone


def test_the_worker_takes_no_job_while_maintenance_is_on(redis_server: RedisServer) -> None:
    env = {**os.environ, "REDIS_URL": redis_server.url, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "examples/worker.py"], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    ) as worker:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(worker.stdout or ()))
        reader.start()
        try:
            eventually_sync(lambda: len(lines) >= 3, within=SOON)
            redis_server.cli("SET", "maintenance", "1")
            asyncio.run(drained(redis_server.url))
            time.sleep(1)  # for what it had printed
            done = len(lines)
            time.sleep(1)
            assert len(lines) == done
            redis_server.cli("DEL", "maintenance")
            eventually_sync(lambda: len(lines) > done, within=SOON)
        finally:
            worker.terminate()
            reader.join(SOON)
    assert worker.returncode == 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("pool", "processes"), [("prefork", 2), ("threads", 1)])
def test_celery_begins_no_task_while_maintenance_is_on(
    redis_server: RedisServer, pool: str, processes: int
) -> None:
    env = {
        **os.environ,
        "REDIS_URL": redis_server.url,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")]),
    }
    celery = [sys.executable, "-m", "celery", "--app", "celery_worker"]

    def queue(*orders: int) -> None:
        call = (
            f"from celery_worker import send_invoice\nfor order in {orders}: "
            "send_invoice.delay(order)"
        )
        subprocess.run([sys.executable, "-c", call], env=env, check=True, timeout=60)

    command = [*celery, "worker", "--pool", pool, "--concurrency", "2", "--loglevel", "WARNING"]
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as worker:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(worker.stdout or ()))
        reader.start()
        try:
            queue(1, 2, 3)
            eventually_sync(lambda: done(lines) == {1, 2, 3}, within=90)
            redis_server.cli("SET", "maintenance", "1")
            assert asyncio.run(drained(redis_server.url)) == processes
            queue(4, 5, 6)
            # The others wait in their processes.
            eventually_sync(lambda: redis_server.cli("LLEN", "celery") == "1", within=SOON)
            time.sleep(1)
            assert done(lines) == {1, 2, 3}
            redis_server.cli("DEL", "maintenance")
            eventually_sync(lambda: done(lines) == {1, 2, 3, 4, 5, 6}, within=SOON)
        finally:
            worker.terminate()
            reader.join(60)
    assert worker.returncode == 0, "".join(lines)


def done(lines: list[str]) -> set[int]:
    """The orders whose invoices were sent."""
    return {int(line.rsplit(" ", 1)[1]) for line in list(lines) if "invoice " in line}


async def drained(url: str) -> int:
    """Wait until nobody is at work, and say how many processes that are."""
    result = await wait_until_applied(RedisBackend(url), drained=True, timeout=60)
    result.check()
    return len(result.drained)


def test_the_script_leaves_maintenance_alone(redis_server: RedisServer) -> None:
    def run(patience: str) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "REDIS_URL": redis_server.url,
            "PYTHONPATH": str(ROOT),
            "PATIENCE": patience,
        }
        command = [sys.executable, "examples/report.py"]
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    assert (run("0").returncode, run("0").stdout) == (0, "The report is written.\n")
    redis_server.cli("SET", "maintenance", "1")
    assert (run("0.2").returncode, run("0").stdout) == (75, "")
    redis_server.cli("SET", "maintenance", "1", "PX", "2000")
    assert run("30").returncode == 0
