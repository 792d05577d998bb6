"""From URLs and clients to where the switch is; never with a password in what is shown."""

from __future__ import annotations

import re
from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.sentinel import Sentinel

from fastapi_maintenance.backends import RedisBackend, backend_from_url
from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.backends.redis.sentinel import SentinelServer
from fastapi_maintenance.backends.redis.topology import server_of_client, server_of_url
from fastapi_maintenance.exceptions import ConfigurationError
from tests.support.servers import RedisServer

KEYS = Keys.of("maintenance")
SECRET = "s3cr#t/p@ss:w%rd?"
ENCODED = "s3cr%23t%2Fp%40ss%3Aw%25rd%3F"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h:6379/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock?db=0"),
        (
            "redis+sentinel://one,two:26380,[::1]/mymaster",
            "redis+sentinel://one:26379,two:26380,[::1]:26379/mymaster/0",
        ),
        ("redis+sentinel://one/mymaster/3", "redis+sentinel://one:26379/mymaster/3"),
        (
            f"redis+sentinel://ana:{ENCODED}@one/my%20master/0",
            "redis+sentinel://one:26379/my master/0",
        ),
        (
            f"redis+sentinel://one/m/0?sentinel_username=s&sentinel_password={ENCODED}",
            "redis+sentinel://one:26379/m/0",
        ),
        (
            "rediss+sentinel://one,two/mymaster/0",
            "rediss+sentinel://one:26379,two:26379/mymaster/0",
        ),
        (
            "redis+cluster://one,two:7001,[::1]:7002",
            "redis+cluster://one:6379,two:7001,[::1]:7002/0",
        ),
        (
            f"rediss+cluster://ana:{ENCODED}@one/0?ssl_ca_certs=/ca.pem",
            "rediss+cluster://one:6379/0",
        ),
        ("valkey://h", "redis://h:6379/0"),
        (f"valkeys://ana:{ENCODED}@h:1/2", "rediss://h:1/2"),
        (
            "valkey+sentinel://one,[::1]/mymaster",
            "redis+sentinel://one:26379,[::1]:26379/mymaster/0",
        ),
        ("valkeys+sentinel://one/m/0?sentinel_tls=no", "rediss+sentinel://one:26379/m/0"),
        ("valkey+cluster://one,two:7001", "redis+cluster://one:6379,two:7001/0"),
        ("valkeys+cluster://one/0?ssl_ca_certs=/ca.pem", "rediss+cluster://one:6379/0"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert server_of_url(url, KEYS).describe() == shown
    assert (
        backend_from_url(url).describe() == f"{shown}{'&' if '?' in shown else '?'}key=maintenance"
    )


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis+sentinel://one,two", "does not name the master"),
        ("redis+sentinel://one,two/", "does not name the master"),
        ("redis+sentinel://one/mymaster/zero", "database that is not a number"),
        ("redis+sentinel:///mymaster", "host without a name"),
        ("redis+sentinel://one,,two/mymaster", "host without a name"),
        ("redis+sentinel://one:port/mymaster", "port that is not a number"),
        ("redis+sentinel://one/mymaster?sentinel_tls=maybe", "sentinel_tls says yes or no"),
        ("redis+sentinel://one/mymaster?sentinel_tls=yes", "in a rediss"),
        ("redis+cluster://", "host without a name"),
        ("redis+cluster://one#two", "has a # or an @ where it means nothing"),
        ("redis+cluster://[one/0", "cannot be read"),
        ("redis+cluster://one/0?colour=red", "cannot be given these options"),
        ("redis+cluster://one/1x", "database that is not a number"),
        ("redis+ring://one", "After a + comes sentinel or cluster"),
        ("unix+cluster:///run/redis.sock", "After a + comes sentinel or cluster"),
        ("valkey+ring://one", "After a + comes sentinel or cluster"),
        ("valkey+unix:///run/valkey.sock", "After a + comes sentinel or cluster"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        RedisBackend(url)


@pytest.mark.parametrize("topology", ["sentinel", "cluster"])
@pytest.mark.parametrize(
    "rest",
    [
        "ana:hunter2@one:port/m",
        "ana:hun#ter2@one/m",
        "ana:hunter2@[one/m",
        "ana:hunter2@one/m/hunter2",
        "one/m?password=hunter2&x=1",
    ],
)
def test_no_error_quotes_a_password(topology: str, rest: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisBackend(f"redis+{topology}://{rest}")
    assert "hun" not in str(caught.value)


def options_of(server: Any) -> dict[str, Any]:
    options: dict[str, Any] = server._options
    return options


def test_sentinels_and_master_have_separate_credentials() -> None:
    server: Any = server_of_url(
        f"redis+sentinel://ana:{ENCODED}@one,two/m/2?sentinel_username=s&sentinel_password={ENCODED}2",
        KEYS,
    )

    master = options_of(server._master)
    assert (master["username"], master["password"], master["db"]) == ("ana", SECRET, 2)
    for sentinel in server._sentinels:
        options = options_of(sentinel)
        assert (options["username"], options["password"]) == ("s", f"{SECRET}2")
        assert "db" not in options


def test_sentinels_without_credentials_are_not_given_the_masters() -> None:
    server: Any = server_of_url(f"redis+sentinel://ana:{ENCODED}@one/m", KEYS)

    assert not {"username", "password"} & set(options_of(server._sentinels[0]))


def test_tls_is_for_sentinels_too_unless_they_have_none() -> None:
    query = "ssl_ca_certs=/ca.pem&ssl_certfile=/me.pem&ssl_keyfile=/me.key&socket_keepalive=yes"
    secured: Any = server_of_url(f"rediss+sentinel://one/m?{query}", KEYS)
    mixed: Any = server_of_url(f"rediss+sentinel://one/m?{query}&sentinel_tls=no", KEYS)

    for server in (secured._master, secured._sentinels[0], mixed._master):
        assert server._class is SSLConnection
        assert (options_of(server)["ssl_ca_certs"], options_of(server)["ssl_keyfile"]) == (
            "/ca.pem",
            "/me.key",
        )
    assert mixed._sentinels[0]._class is Connection
    assert "ssl_ca_certs" not in options_of(mixed._sentinels[0])


def test_every_node_of_a_cluster_is_reached_in_the_same_way() -> None:
    server: Any = server_of_url(
        f"redis+cluster://ana:{ENCODED}@one,two:7001/0?socket_keepalive=yes", KEYS
    )

    node = server._node.at(("three", 7002))
    assert node.address == ("three", 7002)
    assert (options_of(node)["password"], options_of(node)["socket_keepalive"]) == (SECRET, True)
    assert server._node.address == ("one", 6379)


@pytest.mark.parametrize(
    "url", ["redis://elsewhere", "redis+sentinel://elsewhere/mymaster", "redis+cluster://elsewhere"]
)
async def test_whoever_is_pointed_to_another_server_can_go_there(
    url: str, redis_server: RedisServer
) -> None:
    other = server_of_url(url, KEYS).at((redis_server.host, redis_server.port))
    connection: Any = await other.connect(timeout=10.0)

    assert (connection.host, connection.port) == (redis_server.host, redis_server.port)
    await connection.disconnect(nowait=True)


# -- clients ---------------------------------------------------------------------------------------


def test_a_client_of_one_server() -> None:
    assert server_of_client(Redis(host="h", port=1), KEYS).describe() == "redis://h:1/0"


@pytest.mark.parametrize(("ssl", "kind"), [(False, Connection), (True, SSLConnection)])
def test_a_client_that_sentinels_gave(ssl: bool, kind: type[Connection]) -> None:
    sentinels: Any = Sentinel(
        [("one", 26379), ("two", 26380)], sentinel_kwargs={"password": "other"}
    )  # type: ignore[no-untyped-call]
    client = sentinels.master_for("mymaster", password=SECRET, db=2, ssl=ssl)

    server: Any = server_of_client(client, KEYS)

    assert isinstance(server, SentinelServer)
    assert (
        server.describe()
        == f"{'rediss' if ssl else 'redis'}+sentinel://one:26379,two:26380/mymaster/2"
    )
    assert server._master._class is kind
    assert options_of(server._master)["password"] == SECRET
    assert options_of(server._sentinels[1])["password"] == "other"


@pytest.mark.parametrize(("ssl", "kind"), [(False, Connection), (True, SSLConnection)])
def test_a_client_of_a_cluster(ssl: bool, kind: type[Connection]) -> None:
    client = RedisCluster(
        startup_nodes=[ClusterNode("one", 7001), ClusterNode("two", 7002)], password=SECRET, ssl=ssl
    )

    server: Any = server_of_client(client, KEYS)

    assert server.describe() == f"{'rediss' if ssl else 'redis'}+cluster://one:7001,two:7002/0"
    assert server._node._class is kind
    assert options_of(server._node)["password"] == SECRET


@pytest.mark.parametrize("client", ["redis://h", object(), None])
def test_what_is_no_client_is_refused(client: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"client must be a redis.asyncio.Redis"):
        server_of_client(client, KEYS)
