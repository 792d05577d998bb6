"""The harness that the proofs against real servers stand on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import redis

from ..conftest import RedisServerFactory
from .ports import free_port, is_free
from .servers import CONFIG, USERS, RedisServer


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


@pytest.mark.parametrize(
    "options", [{"unix_socket": True}, {"tls": True}, {}], ids=["unix", "tls", "tcp"]
)
@pytest.mark.parametrize("users", [None, USERS], ids=["anybody", "users"])
def test_server_url_is_enough_for_a_client(
    own_redis_server: RedisServerFactory, options: dict[str, bool], users: Path | None
) -> None:
    server = own_redis_server(users=users, **options)
    login = {"user": "worker", "password": "change-me-worker"} if users else {}
    url = server.url_of(*login.values()) if users else server.url
    with redis.Redis.from_url(url, socket_timeout=2.0) as found:
        assert found.set("maintenance", "1")

    assert server.cli("GET", "maintenance", **login) == "1"


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


def test_port_in_use_is_not_free(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_free(redis_server.port)
    proposals = iter([redis_server.port, redis_server.port, free_port()])
    monkeypatch.setattr("random.SystemRandom.choice", lambda _self, _range: next(proposals))

    assert free_port() != redis_server.port
