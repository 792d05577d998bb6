"""docs/proxies.md: nginx does what its blocks say, also where no worker answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path

from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware, exempt
from fastapi_maintenance.responses.content import DETAIL

from ..cli.program import Program, run
from ..support import ports
from ..support.nginx import nginx
from ..support.pages import ROOT
from ..support.serving import serving
from ..support.waiting import eventually_sync

Answer = tuple[int, Message, str]


def ask(url: str, *, method: str = "GET", **headers: str) -> Answer | None:
    """Status, headers and text; None where nobody listens."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(
        url,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        method=method,
    )
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers, answer.read().decode()
    except urllib.error.URLError:
        return None


def answer_of(url: str, *, method: str = "GET", **headers: str) -> Answer:
    answer = ask(url, method=method, **headers)
    assert answer is not None
    return answer


def shop() -> FastAPI:
    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware,
        enable_maintenance=True,
        exempt_handler=exempt.Network("192.0.2.0/24", trusted_proxies=["127.0.0.1"]),
    )

    @app.get("/")
    async def index() -> str:
        return "open"

    return app


def test_nginx_passes_the_503_and_the_client_address(tmp_path: Path, free_port: int) -> None:
    with (
        serving(shop(), proxy_headers=False) as upstream,
        nginx(upstream, free_port, tmp_path) as url,
    ):
        for _ in range(5):  # none of them counts as a failure of the server
            status, headers, text = answer_of(url, accept="text/html")
            assert (status, headers["Retry-After"], headers["Cache-Control"]) == (
                503,
                "3600",
                "no-store",
            )
            assert headers["X-Maintenance-Mode"] == "full"
            assert "<h1>" in text
        # What a client says itself stands before what nginx appends, which is the client's own
        # address and a trusted one here.
        assert answer_of(url, x_forwarded_for="192.0.2.7")[0] == 200
        assert answer_of(url, x_forwarded_for="198.51.100.7")[0] == 503


def test_nginx_serves_the_page_once_the_workers_are_killed(tmp_path: Path, free_port: int) -> None:
    for kind in ("html", "json"):
        arguments = "page", "--format", kind, "--out", str(tmp_path / f"maintenance.{kind}")
        assert run(*arguments).code == 0
    with (
        killable_workers("env:FASTAPI_MAINTENANCE_MODE") as (upstream, kill),
        nginx(upstream, free_port, tmp_path) as url,
    ):
        assert answer_of(url)[0] == 200
        assert answer_of(f"{url}maintenance.html")[0] == 404, "the file is internal"
        kill()

        status, headers, text = answer_of(url, accept="text/html,*/*;q=0.8")
        assert (status, text) == (503, (tmp_path / "maintenance.html").read_text())
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert (headers["Retry-After"], headers["Cache-Control"]) == ("60", "no-store")
        for method in ("GET", "POST"):
            status, headers, text = answer_of(url, method=method)
            assert (status, headers["Retry-After"]) == (503, "60")
            assert json.loads(text) == {"detail": DETAIL}
            assert headers["Content-Type"].startswith("application/json")


def test_nginx_sends_requests_to_the_stand_in_meanwhile(
    tmp_path: Path, free_port: int, redis_url: str
) -> None:
    stand_in = ports.free_port()
    command = "serve", "--backend", redis_url, "--port", str(stand_in)
    with (
        Program(*command) as program,
        killable_workers(redis_url) as (upstream, kill),
        nginx(upstream, free_port, tmp_path, backup=f"127.0.0.1:{stand_in}") as url,
    ):
        program.until("Answering 503")
        eventually_sync(lambda: ask(f"http://127.0.0.1:{stand_in}/"), within=30)
        assert answer_of(url)[0] == 200
        kill()

        status, headers, text = answer_of(url)
        assert (status, headers["Retry-After"]) == (503, "5")
        assert json.loads(text) == {"detail": "Service temporarily unavailable"}
        assert run("on", "--backend", redis_url, "--message", "Back soon").code == 0
        eventually_sync(lambda: answer_of(url)[1]["X-Maintenance-Mode"] == "full", within=30)
        status, headers, text = answer_of(url, accept="text/html", accept_language="de")
        assert (status, headers["Cache-Control"]) == (503, "no-store")
        assert headers["Content-Language"] == "de"
        assert "Back soon" in text
        assert run("off", "--backend", redis_url).code == 0
        with killable_workers(redis_url, at=upstream):
            assert answer_of(url)[0] == 200, "the first worker that is back gets the next request"


@contextmanager
def killable_workers(
    backend: str, *, at: str | None = None
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Run uvicorn in a process of its own; yield its address, and what kills it (SIGKILL)."""
    address = at or f"127.0.0.1:{ports.free_port()}"
    application = "tests.apps.switched:app", "--log-level", "warning"
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *application, "--port", address.partition(":")[2]],
        cwd=ROOT,
        env={**os.environ, "FASTAPI_MAINTENANCE_BACKEND": backend},
    )

    def kill() -> None:
        process.kill()
        process.wait()

    try:
        eventually_sync(lambda: ask(f"http://{address}/"), within=60, every=0.05)
        yield address, kill
    finally:
        kill()
