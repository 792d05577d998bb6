"""Find the server of the switch by a URL or a client of redis-py.

One server, a master behind Sentinels, or a cluster.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from redis.asyncio.connection import Connection, SSLConnection

from ...exceptions import ConfigurationError
from .cluster import ClusterServer
from .keys import Keys
from .sentinel import SentinelServer
from .server import Server, SingleServer

_SENTINEL_PORT: Final = 26379
_ALIASES: Final = {"valkey": "redis", "valkeys": "rediss"}
_NETLOC: Final = re.compile("[^/?#]*")  # RFC 3986, appendix B
_YES_OR_NO: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def split_netloc(url: str) -> tuple[SplitResult, str]:
    """Split a URL into its parts and its list of hosts.

    Newer Pythons take the brackets of an IPv6 address among several hosts for a mistake.
    """
    scheme, colon, rest = url.partition("://")
    netloc = _NETLOC.match(rest)[0] if colon else ""  # type: ignore[index]  # it matches anything
    return urlsplit(f"{scheme}{colon}{rest[len(netloc) :]}"), netloc


def server_of_url(url: str, keys: Keys) -> Server:
    """Read a URL: `redis://`, `rediss://`, `unix://`, or `+sentinel` or `+cluster` with hosts.

    `valkey` and `valkeys` are other names for `redis` and `rediss`.
    Raises `ConfigurationError`, which quotes nothing of it.
    """
    name, colon, rest = url.partition(":")
    scheme, plus, topology = name.partition("+")
    scheme = _ALIASES.get(scheme, scheme)
    if not plus:
        return SingleServer.from_url(f"{scheme}{colon}{rest}")
    if scheme not in ("redis", "rediss") or topology not in ("sentinel", "cluster"):
        raise ConfigurationError(
            "After a + comes sentinel or cluster: redis+sentinel://, rediss+cluster:// and so on."
        )
    parts, netloc = split_netloc(url)
    login, at, hosts = netloc.rpartition("@")
    names = hosts.split(",")
    if not all(names):
        raise ConfigurationError(
            f"The Redis URL has a host without a name; write {scheme}+{topology}://one,two:6380,three/…."
        )
    # Of the parts, those of one server are checked there.
    single = parts._replace(scheme=scheme, netloc=login + at)
    if topology == "cluster":
        return ClusterServer([_at(single, name) for name in names], keys)
    return _behind_sentinels(single, names)


def _behind_sentinels(single: SplitResult, names: list[str]) -> SentinelServer:
    service, _, database = single.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError(
            "The Redis URL does not name the master; write redis+sentinel://one,two,three/mymaster/0."
        )
    if "@" in service:  # it may be part of a password
        raise ConfigurationError(
            "The Redis URL has a # or an @ where it means nothing. Percent-encode what is "
            "special in a password, as %23 for #."
        )
    query = dict(parse_qsl(single.query, keep_blank_values=True))
    own = {name: query.pop(f"sentinel_{name}", "") for name in ("username", "password", "tls")}
    tls = _YES_OR_NO.get(own["tls"].lower()) if own["tls"] else single.scheme == "rediss"
    if tls is None or (tls and single.scheme == "redis"):
        raise ConfigurationError("sentinel_tls says yes or no, in a rediss+sentinel:// URL.")
    user, password = quote(own["username"], safe=""), quote(own["password"], safe="")
    options = {name: value for name, value in query.items() if tls and name.startswith("ssl_")}
    guard = single._replace(
        scheme="rediss" if tls else "redis",
        netloc=f"{user}:{password}@" if user or password else "",
        path="",
        query=urlencode(options),
    )
    # The default port of a Sentinel differs from that of redis-py.
    sentinels = [
        _at(guard, name if ":" in name.rpartition("]")[2] else f"{name}:{_SENTINEL_PORT}")
        for name in names
    ]
    behind = single._replace(path=f"/{database}", query=urlencode(query))
    return SentinelServer(sentinels, unquote(service), _at(behind, sentinels[0].address[0]))


def _at(single: SplitResult, host: str) -> SingleServer:
    return SingleServer.from_url(single._replace(netloc=single.netloc + host).geturl())


def server_of_client(client: Any, keys: Keys) -> Server:
    """Connect like a `redis.asyncio.Redis`, also of a `Sentinel`, or a `RedisCluster`."""
    from redis.asyncio import RedisCluster  # imported already: the client is one
    from redis.asyncio.sentinel import SentinelConnectionPool

    if isinstance(client, RedisCluster):
        nodes = client.nodes_manager.startup_nodes.values()
        return ClusterServer(
            [SingleServer(node.connection_class, node.connection_kwargs) for node in nodes], keys
        )
    pool = getattr(client, "connection_pool", None)
    if isinstance(pool, SentinelConnectionPool):
        sentinels = [
            SingleServer.from_client(sentinel) for sentinel in pool.sentinel_manager.sentinels
        ]
        options = {
            name: value
            for name, value in pool.connection_kwargs.items()
            if name != "connection_pool"
        }
        kind = SSLConnection if issubclass(pool.connection_class, SSLConnection) else Connection
        return SentinelServer(sentinels, pool.service_name, SingleServer(kind, options))
    return SingleServer.from_client(client)
