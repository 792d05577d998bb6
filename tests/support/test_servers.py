"""The harness that the proofs against real servers stand on."""

from __future__ import annotations

import re
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest
import redis
import redis.asyncio

from ..conftest import RedisServerFactory
from .holders import stubborn
from .ports import free_port, is_free
from .servers import CONFIG, USERS, RedisServer


def client(server: RedisServer, url: str | None = None) -> redis.Redis:
    return redis.Redis.from_url(
        url or server.url, decode_responses=True, socket_timeout=2.0, retry=None
    )


def test_server_runs_the_configuration_of_production(redis_server: RedisServer) -> None:
    assert redis_server.cli("CONFIG", "GET", "maxmemory-policy") == "maxmemory-policy\nnoeviction"
    assert redis_server.cli("CONFIG", "GET", "tcp-keepalive") == "tcp-keepalive\n60"


def test_production_configuration_keeps_writes(
    own_redis_server: RedisServerFactory,
) -> None:
    (appendonly,) = re.findall(r"^appendonly (.*)$", CONFIG.read_text(), re.MULTILINE)
    server = own_redis_server(config={"appendonly": appendonly})
    server.cli("SET", "maintenance", 1)
    server.kill()
    server.start()

    assert server.cli("GET", "maintenance") == "1"


def test_killed_server_returns_empty_on_its_port(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    url = server.url
    server.cli("SET", "maintenance", 1)
    server.kill()
    with client(server) as lost, pytest.raises(redis.exceptions.ConnectionError):
        lost.ping()
    server.start()

    assert server.cli("EXISTS", "maintenance") == "0"
    assert server.url == url


def test_frozen_server_accepts_without_answering(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server()
    with client(server) as waiting:
        assert waiting.ping()
        server.pause()
        with pytest.raises(redis.exceptions.TimeoutError):
            waiting.ping()
        server.resume()
        assert waiting.ping()


def test_frozen_server_can_be_stopped(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server()
    server.pause()
    started = time.monotonic()
    server.stop()
    server.stop()

    assert time.monotonic() - started < server.patience
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.pid


def test_server_is_started_once(own_redis_server: RedisServerFactory) -> None:
    with pytest.raises(RuntimeError, match="runs already"):
        own_redis_server().start()


@pytest.mark.parametrize(
    "options", [{"unix_socket": True}, {"tls": True}, {}], ids=["unix", "tls", "tcp"]
)
@pytest.mark.parametrize("users", [None, USERS], ids=["anybody", "users"])
def test_server_url_is_enough_for_a_client(
    own_redis_server: RedisServerFactory, options: dict[str, bool], users: Path | None
) -> None:
    server = own_redis_server(users=users, **options)
    with client(
        server, server.url_of("worker", "change-me-worker") if users else server.url
    ) as found:
        assert found.set("maintenance", "1")
    command = ("GET", "maintenance")

    assert (
        server.cli(*command, user="worker", password="change-me-worker")
        if users
        else server.cli(*command)
    ) == "1"


async def test_redis_cli_does_not_block_the_event_loop(redis_server: RedisServer) -> None:
    assert await redis_server.acli("SET", "maintenance", "on") == "OK"
    async with redis.asyncio.Redis.from_url(redis_server.url) as reader:
        assert await reader.get("maintenance") == b"on"


def test_refused_command_raises_the_server_error(redis_server: RedisServer) -> None:
    with pytest.raises(RuntimeError, match=r"unknown command .NONSENSE"):
        redis_server.cli("NONSENSE")


@pytest.mark.parametrize("round_", [1, 2])
def test_shared_server_starts_empty(redis_server: RedisServer, redis_url: str, round_: int) -> None:
    assert redis_server.url == redis_url
    assert redis_server.cli("DBSIZE") == "0"
    redis_server.cli("SET", "left-over", round_)


def test_invalid_directive_is_reported_with_the_log() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)ended at once.*maxmemory-policy"):
        RedisServer(config={"maxmemory-policy": "no-such-policy"}).__enter__()


def test_server_without_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = tmp_path / "redis-server"
    stub.write_text("#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.1; done\n")
    stub.chmod(0o755)
    monkeypatch.setenv("REDIS_SERVER", str(stub))

    with pytest.raises(RuntimeError, match="did not answer"):
        RedisServer(patience=0.2).__enter__()


def test_server_that_does_not_stop_is_killed() -> None:
    with stubborn() as process, closing(RedisServer(patience=0.1)) as server:
        server._process = process
        server.stop()

        assert process.poll() == -signal.SIGKILL


def test_missing_program_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("REDIS_SERVER", raising=False)

    with pytest.raises(RuntimeError, match=r"redis-server is missing .* apt-get install"):
        RedisServer().__enter__()


def test_port_in_use_is_not_free(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_free(redis_server.port)
    proposals = iter([redis_server.port, redis_server.port, free_port()])
    monkeypatch.setattr("random.SystemRandom.choice", lambda _self, _range: next(proposals))

    assert free_port() != redis_server.port
