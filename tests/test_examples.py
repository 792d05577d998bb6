"""The programs in examples/, run as they are."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .servers import RedisServer
from .waiting import eventually_sync
from .workers import Workers

SOON = 30.0


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
            for number, value in enumerate(('{"enabled": true, "reason": "OPS-417"}', "off", "on"), start=1):
                redis_server.cli("SET", "maintenance", value)
                eventually_sync(lambda number=number: len(posted) == number, within=SOON)  # type: ignore[misc]

    assert [post["text"] for post in posted] == ["Maintenance is on: OPS-417", "Maintenance is off", "Maintenance is on"]
    assert [post["was_on"] for post in posted] == [False, True, False]
