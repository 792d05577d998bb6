"""Redis behind Sentinels, and Redis Cluster, as plain processes from the configuration that
production uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import trustme
from redis.crc import key_slot

from .ports import free_port
from .servers import CONFIG, RedisServer
from .waiting import eventually_sync

SENTINEL: Final = CONFIG.with_name("sentinel")
CLUSTER: Final = CONFIG.with_name("cluster")
KEY: Final = "maintenance"
MASTER: Final = "mymaster"

_MINE: Final = ("--bind", "--port", "--dir")
_PATIENCE: Final = 120.0  # seconds; a Sentinel that had to wait does nothing for 30 (TILT)
_SLOTS: Final = 16384


# -- Sentinel --------------------------------------------------------------------------------------


class Sentinel(RedisServer):
    """One Sentinel, with its own copy of sentinel.conf: `overrides` replaces lines by what they
    begin with.
    """

    def __init__(self, overrides: Mapping[str, str], **options: Any) -> None:
        super().__init__(**options)
        text = (SENTINEL / "sentinel.conf").read_text()
        for directive, value in overrides.items():
            text, changed = re.subn(
                rf"^{directive} .*$", f"{directive} {value}".strip(), text, flags=re.MULTILINE
            )
            assert changed == 1, f"sentinel.conf has no line that begins with {directive}"
        self._file = self.home / "sentinel.conf"
        self._file.write_text(text)

    def _command(self) -> list[str]:
        launch, command = len(self._launcher), super()._command()
        program, _, *options = command[launch:]
        pairs = [
            pair
            for pair in zip(options[::2], options[1::2], strict=True)
            if pair[0] in _MINE or pair[0].startswith("--tls-")
        ]
        flat = (word for pair in pairs for word in pair)
        return [*self._launcher, program, str(self._file), "--sentinel", *flat]


class SentinelGroup:
    """A master, its replicas and three Sentinels that watch it. They fail over `down_after` seconds
    after a master is gone.
    """

    def __init__(self, servers: Sequence[RedisServer], sentinels: Sequence[Sentinel]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """For a `RedisBackend`."""
        return self.url_of("")

    def url_of(self, login: str, query: str = "") -> str:
        """The same for a user; `login` ends with an @."""
        return _url("sentinel", login, self.sentinels, f"/{MASTER}/0", query)

    def master(self) -> RedisServer:
        """Whom the Sentinels call master now."""
        _, port = self.sentinels[-1].cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER).split()
        return next(server for server in self.servers if server.port == int(port))

    def fail_over(self) -> None:
        """As an operator does it, before maintenance of the master's machine; comes back when there
        is a new one.
        """
        old = self.master()
        eventually_sync(self._begin_failover, within=_PATIENCE, every=0.1)
        eventually_sync(lambda: self.master() is not old, within=_PATIENCE, every=0.02)

    def _begin_failover(self) -> bool:
        try:
            return self.sentinels[0].cli("SENTINEL", "FAILOVER", MASTER) == "OK"
        except RuntimeError:  # it knows no replica that would do, yet
            return False

    def wait_until_whole(self) -> None:
        """Wait until replicas follow the master, and every Sentinel knows of all of them and of the
        other Sentinels.
        """
        replicas, others = len(self.servers) - 1, len(self.sentinels) - 1
        # The master is asked for each time: a Sentinel may still name one that was replaced.
        eventually_sync(
            lambda: self.master().cli("INFO", "replication").count("state=online") == replicas,
            within=_PATIENCE,
            every=0.05,
        )
        for sentinel in self.sentinels:
            eventually_sync(
                partial(_knows, sentinel, replicas, others), within=_PATIENCE, every=0.05
            )


def _knows(sentinel: Sentinel, replicas: int, others: int) -> bool:
    words = sentinel.cli("SENTINEL", "MASTER", MASTER).split("\n")
    fields = dict(zip(words[::2], words[1::2], strict=False))
    return (int(fields["num-slaves"]), int(fields["num-other-sentinels"])) == (replicas, others)


@contextmanager
def sentinel_group(
    *,
    replicas: int = 1,
    down_after: float = 60.0,
    users: bool = False,
    tls: bool = False,
    config: Mapping[str, str] | None = None,
) -> Iterator[SentinelGroup]:
    """Start all of it, and end it. With `users`, as the ACL file says; else nobody needs a
    password. `config` is the servers'.
    """
    with ExitStack() as stack:
        options = _encryption(tls)
        common = {
            "min-replicas-to-write": "0",
            "repl-diskless-sync-delay": "0",
            **_access(users),
            **(config or {}),
        }
        files: dict[str, Any] = {
            "include": SENTINEL / "replication.conf",
            **_users(SENTINEL / "users.acl", stack, users),
        }

        def start(config: Mapping[str, str]) -> RedisServer:
            return stack.enter_context(RedisServer(config={**common, **config}, **files, **options))

        master = start({})
        servers = [
            master,
            *(start({"replicaof": f"127.0.0.1 {master.port}"}) for _ in range(replicas)),
        ]
        overrides = {
            "sentinel monitor mymaster": f"127.0.0.1 {master.port} 2",
            "sentinel down-after-milliseconds mymaster": f"{down_after * 1000:.0f}",
            # After a vote that nobody won, Sentinels wait for two of these before they vote again.
            "sentinel failover-timeout mymaster": f"{5 * down_after * 1000:.0f}",
        }
        if not users:
            overrides |= {
                "sentinel auth-user mymaster": "default",
                "sentinel auth-pass mymaster": "nobody-asks-for-it",
            }
        secret = {"config": {"tls-replication": "yes"}} if tls else {}
        group = SentinelGroup(
            servers,
            [stack.enter_context(Sentinel(overrides, **secret, **options)) for _ in range(3)],
        )
        group.wait_until_whole()
        yield group


def _access(users: bool) -> dict[str, str]:
    return {} if users else {"masteruser": "", "masterauth": ""}


def _users(file: Path, stack: ExitStack, wanted: bool) -> dict[str, Any]:
    """Those of the file, and one of the tests' own who may do everything."""
    if not wanted:
        return {}
    copy = Path(stack.enter_context(TemporaryDirectory(prefix="users-"))) / file.name
    copy.write_text(file.read_text() + "user tester on >test ~* &* +@all\n")
    return {"users": copy, "login": ("tester", "test")}


def _encryption(tls: bool) -> dict[str, Any]:
    return {"tls": True, "authority": trustme.CA()} if tls else {}


def _url(topology: str, login: str, servers: Sequence[RedisServer], path: str, query: str) -> str:
    scheme = "rediss" if servers[0].tls else "redis"
    trust = [f"ssl_ca_certs={servers[0].ca_file}"] if servers[0].tls else []
    options = "&".join([*trust, *([query] if query else [])])
    hosts = ",".join(f"{server.host}:{server.port}" for server in servers)
    return f"{scheme}+{topology}://{login}{hosts}{path}{'?' if options else ''}{options}"


# -- Cluster ---------------------------------------------------------------------------------------


class Cluster:
    """Three masters that share the slots, and a replica of the one that owns the switch
    at first.
    """

    def __init__(self, masters: Sequence[RedisServer], replica: RedisServer) -> None:
        self.masters = masters
        self.replica = replica
        self.nodes = [*masters, replica]
        self.slot = key_slot(KEY.encode())
        self.owner = masters[self.slot * len(masters) // _SLOTS]

    @property
    def url(self) -> str:
        """For a `RedisBackend`."""
        return self.url_of("")

    def url_of(self, login: str, query: str = "") -> str:
        """The same for a user; `login` ends with an @."""
        return _url("cluster", login, self.nodes, "/0", query)

    def form(self) -> None:
        """Make a cluster of nodes that know nothing of each other yet."""
        share = -(-_SLOTS // len(self.masters))
        for number, node in enumerate(self.masters):
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.cli(
                "CLUSTER", "ADDSLOTSRANGE", number * share, min((number + 1) * share, _SLOTS) - 1
            )
        first = self.masters[0]
        for node in self.nodes[1:]:
            node.cli("CLUSTER", "MEET", "127.0.0.1", first.port, _bus_port(first))
        for node in self.nodes:
            eventually_sync(partial(_has_met, node, len(self.nodes)), within=_PATIENCE)
        eventually_sync(
            lambda: self.replica.cli("CLUSTER", "REPLICATE", self.id_of(self.owner)) == "OK",
            within=_PATIENCE,
        )
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Wait until every node finds the cluster in order, and the replica follows.

        An owner that has not heard of its replica yet ignores the replica's wish to take over.
        """
        for node in self.nodes:
            eventually_sync(partial(_is_in_order, node), within=_PATIENCE)
            knows = partial(node.cli, "CLUSTER", "REPLICAS", self.id_of(self.owner))
            eventually_sync(knows, within=_PATIENCE)
        eventually_sync(
            lambda: "master_link_status:up" in self.replica.cli("INFO", "replication"),
            within=_PATIENCE,
        )

    def id_of(self, node: RedisServer) -> str:
        """What the cluster calls a node."""
        return node.cli("CLUSTER", "MYID")

    def begin_move(self, target: RedisServer) -> None:
        """Begin to move the switch's slot to another master: the old owner sends on whoever asks
        for a key it does not have.
        """
        target.cli("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.id_of(self.owner))
        self.owner.cli("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.id_of(target))

    def move_keys(self, target: RedisServer) -> None:
        """Hand the keys over, those that there are."""
        keys = self.owner.cli("CLUSTER", "GETKEYSINSLOT", self.slot, 100).split()
        if keys:
            self.owner.cli("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, target: RedisServer) -> None:
        """Let everybody know who owns the slot now."""
        for node in (
            target,
            self.owner,
            *(master for master in self.masters if master not in (target, self.owner)),
        ):
            node.cli("CLUSTER", "SETSLOT", self.slot, "NODE", self.id_of(target))
        self.owner = target


def _has_met(node: RedisServer, nodes: int) -> bool:
    return node.cli("CLUSTER", "NODES").count("connected") == nodes


def _is_in_order(node: RedisServer) -> bool:
    return "cluster_state:ok" in node.cli("CLUSTER", "INFO")


def _bus_port(node: RedisServer) -> int:
    return int(node.cli("CONFIG", "GET", "cluster-port").split()[-1])


@contextmanager
def cluster(
    *,
    node_timeout: float = 60.0,
    users: bool = False,
    tls: bool = False,
    config: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """Start a cluster, and end it. A node that is gone is replaced after `node_timeout` seconds.
    `config` is the nodes'.
    """
    with ExitStack() as stack:
        options = _encryption(tls)
        timing = {
            "cluster-node-timeout": f"{node_timeout * 1000:.0f}",
            "repl-diskless-sync-delay": "0",
        }
        common = {**timing, **_access(users), **(config or {})}
        files: dict[str, Any] = {
            "include": CLUSTER / "cluster.conf",
            **_users(CLUSTER / "users.acl", stack, users),
        }
        *masters, replica = (
            stack.enter_context(
                RedisServer(config={**common, "cluster-port": str(free_port())}, **files, **options)
            )
            for _ in range(4)
        )
        formed = Cluster(masters, replica)
        formed.form()
        yield formed
