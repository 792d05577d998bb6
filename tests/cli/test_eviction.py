"""The warning of a server that may evict the switch, in `status` and `workers`."""

from __future__ import annotations

from ..backends.redis.test_eviction import ALL_KEYS
from ..conftest import RedisServerFactory
from ..support.registering import register
from .conftest import Cli

WARNING = "maxmemory-policy must be noeviction or volatile-*, got allkeys-lru."


def test_commands_warn_of_allkeys_eviction(cli: Cli, own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server(config=ALL_KEYS)
    register(server, "a")
    for command in ("status", "workers", "on"):
        done = cli(command, "--backend", server.url)
        assert done.code == 0
        assert WARNING in " ".join(done.err.split())
        assert WARNING not in done.out
    (warning,) = cli("status", "--json", "--backend", server.url).json["warnings"]
    (worker,) = cli("workers", "--json", "--backend", server.url).json
    assert worker["warnings"] == [warning]
    assert warning.startswith(WARNING)


def test_status_and_workers_without_eviction_warn_of_nothing(cli: Cli, redis_url: str) -> None:
    for command in ("status", "workers", "on"):
        assert cli(command, "--backend", redis_url).err == ""
    assert cli("status", "--json", "--backend", redis_url).json["warnings"] == []
    assert cli("status", "--json", "--backend", "env:").json["warnings"] == []
