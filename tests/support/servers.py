"""Real redis-server processes, started from the configuration that production uses."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final, Self

import anyio.to_thread
import trustme

from .ports import free_port
from .waiting import eventually_sync

CONFIG: Final = Path(__file__).parents[2] / "backends" / "redis" / "redis.conf"
USERS: Final = CONFIG.with_name("users.acl")
TLS: Final = CONFIG.with_name("tls.conf")
UNIX: Final = CONFIG.with_name("unix.conf")

_INSTALL: Final = "install it (Debian: apt-get install redis-server; macOS: brew install redis)"


class RedisServer:
    """One redis-server of its own, on a port of its own, with its own directory.

    `config` overrides redis.conf, and its keys are directives: `{"appendonly": "yes"}`. Nothing is
    persisted and nobody needs a password unless `config` or `users`, an ACL file, says so.
    `unix_socket` and `tls` add those ways in, and `url` then is theirs. With `tls`, `authority`
    signs its certificate, one of its own by default, and `client_certificates` demands them. `host`
    is where it listens, and `launcher` is a command that starts it there, if that is elsewhere.
    `include` is a configuration file that comes after redis.conf and before all that. `login` is
    whom `cli` logs in as, where nobody else is named. `program` is the server to run; None
    for the one that the environment variable REDIS_SERVER names, else `redis-server`.
    """

    def __init__(
        self,
        *,
        config: Mapping[str, str] | None = None,
        include: Path | None = None,
        users: Path | None = None,
        unix_socket: bool = False,
        tls: bool = False,
        authority: trustme.CA | None = None,
        client_certificates: bool = False,
        port: int | None = None,
        program: str | None = None,
        host: str = "127.0.0.1",
        launcher: Sequence[str] = (),
        login: tuple[str, str] | None = None,
        patience: float = 60.0,
    ) -> None:
        self.port = port or free_port()
        self.host = host
        self.program = program or os.environ.get("REDIS_SERVER", "redis-server")
        self.unix_socket = unix_socket
        self.tls = tls
        self._authority = authority
        self._mutual = client_certificates
        self._config = dict(config or {})
        self._includes = [
            *([include] if include else []),
            *([TLS] if tls else []),
            *([UNIX] if unix_socket else []),
        ]
        self._users = users
        self._login = login
        self._launcher = launcher
        self.patience = patience  # seconds, for starting and for stopping
        self._home = TemporaryDirectory(prefix="redis-")
        # A Sentinel that fails over has it rewritten.
        self._config_file = shutil.copy(CONFIG, self.home)
        self._process: subprocess.Popen[bytes] | None = None

    # -- its life ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it and wait until it answers. Raises `RuntimeError` with its log if it does not."""
        if self._process is not None:
            raise RuntimeError("This server runs already; stop() or kill() it first.")
        if self.tls and not self.ca_file.exists():
            self._write_certificates()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            eventually_sync(self._answers, within=self.patience, every=0.002)
        except AssertionError:
            self.kill()
            raise RuntimeError(f"redis-server did not answer; its log:\n{self.log}") from None

    def stop(self) -> None:
        """End it as a shutdown does: data is saved where it is configured to be. Stopping twice
        does nothing.
        """
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it and start it again, on the same port, with what is in its directory."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it for good and remove its directory."""
        # nobody will miss what a shutdown would save, and that takes a tenth of a second
        self.kill()
        self._home.cleanup()

    # -- how it is reached -------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where it is, for a client without a user name."""
        if self.unix_socket:
            return f"unix://{self.socket_file}?db=0"
        if self.tls:
            shown = (
                f"&ssl_certfile={self.home}/client.pem&ssl_keyfile={self.home}/client.key"
                if self._mutual
                else ""
            )
            return f"rediss://{self.host}:{self.port}/0?ssl_ca_certs={self.ca_file}{shown}"
        return f"redis://{self.host}:{self.port}/0"

    def url_of(self, user: str, password: str) -> str:
        """Where it is, for one of the users in its ACL file."""
        scheme, rest = self.url.split("://", 1)
        return f"{scheme}://{user}:{password}@{rest}"

    @property
    def home(self) -> Path:
        """Its working directory."""
        return Path(self._home.name)

    @property
    def socket_file(self) -> Path:
        """Its Unix socket, if it has one."""
        return self.home / "redis.sock"

    @property
    def ca_file(self) -> Path:
        """What a client must trust to reach it by TLS."""
        return self.home / "ca.pem"

    @property
    def log_file(self) -> Path:
        """What it prints, over all its starts."""
        return self.home / "redis.log"

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self.log_file.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither stopped nor killed since."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Its process."""
        if self._process is None:
            raise RuntimeError("This server is not running; start() it first.")
        return self._process.pid

    def cli(
        self, *arguments: str | int | float, user: str | None = None, password: str | None = None
    ) -> str:
        """Send one command and return its reply as redis-cli prints it to a pipe.

        Raises `RuntimeError` with the server's words if the command is refused. A redis-cli would
        take twenty times as long to start.
        """
        if user is None and password is None and self._login is not None:
            user, password = self._login
        login = () if password is None else ("AUTH", *([user] if user else []), password)
        try:
            return self._exchange(*([login] if login else []), arguments)
        except (OSError, EOFError) as error:
            raise RuntimeError(f"{' '.join(map(str, arguments))}: {error}") from error

    async def acli(self, *arguments: str | int | float) -> str:
        """The same without blocking the event loop."""
        return await anyio.to_thread.run_sync(self.cli, *arguments)

    # ----------------------------------------------------------------------------------------------

    def _command(self) -> list[str]:
        options = {
            "bind": self.host,
            "port": "0" if self.tls else str(self.port),
            "dir": str(self.home),
            "aclfile": "" if self._users is None else str(self._users),
            "appendonly": "no",
        }
        if self.unix_socket:
            options |= {"unixsocket": str(self.socket_file), "unixsocketperm": "700"}
        if self.tls:
            options |= self._tls_options()
        options |= self._config
        includes = [word for file in self._includes for word in ("--include", str(file))]
        flat = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [*self._launcher, _program(self.program), str(self._config_file), *includes, *flat]

    def _tls_options(self) -> dict[str, str]:
        return {
            "tls-port": str(self.port),
            "tls-ca-cert-file": str(self.ca_file),
            "tls-cert-file": str(self.home / "server.pem"),
            "tls-key-file": str(self.home / "server.key"),
            "tls-auth-clients": "yes" if self._mutual else "no",
        }

    def _write_certificates(self) -> None:
        authority = self._authority or trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        for name, certificate in (
            ("server", authority.issue_cert("127.0.0.1", "localhost")),
            ("client", authority.issue_cert("worker")),
        ):
            certificate.cert_chain_pems[0].write_to_path(self.home / f"{name}.pem")
            certificate.private_key_pem.write_to_path(self.home / f"{name}.key")

    def _answers(self) -> bool:
        """Whether it is up and has loaded its data."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            raise RuntimeError(f"redis-server ended at once; its log:\n{self.log}")
        try:
            return self._exchange(("PING",), timeout=1.0) == "PONG"
        except (OSError, EOFError):
            return False
        except RuntimeError as error:
            return "NOAUTH" in str(error)

    def _exchange(self, *commands: Sequence[object], timeout: float = 20.0) -> str:
        """Send commands over a connection of their own; return the last reply."""
        said = ""
        with self._connect(timeout) as connection, connection.makefile("rb") as replies:
            for command in commands:
                words = [str(word).encode() for word in command]
                parts = (b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
                connection.sendall(b"*%d\r\n%b" % (len(words), b"".join(parts)))
                said = _read(replies)
        return said

    @contextmanager
    def _connect(self, timeout: float) -> Iterator[socket.socket]:
        family, address = (
            (socket.AF_UNIX, str(self.socket_file))
            if self.unix_socket
            else (socket.AF_INET, (self.host, self.port))
        )
        with socket.socket(family) as plain:
            plain.settimeout(timeout)
            plain.connect(address)
            if not self.tls or self.unix_socket:
                yield plain
                return
            context = ssl.create_default_context(cafile=self.ca_file)
            context.check_hostname = False
            if self._mutual:
                context.load_cert_chain(self.home / "client.pem", self.home / "client.key")
            with context.wrap_socket(plain) as encrypted:
                yield encrypted

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # a frozen process notices no SIGTERM
        try:
            process.wait(self.patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read(replies: BinaryIO) -> str:
    """Read one reply of RESP2."""
    line = replies.readline()
    kind, rest = line[:1], line[1:-2]
    if kind == b"*":
        return "\n".join(_read(replies) for _ in range(int(rest)))
    if kind == b"$":
        return replies.read(int(rest) + 2)[:-2].decode() if rest != b"-1" else ""
    if kind == b"-":
        raise RuntimeError(rest.decode())
    if not kind:
        raise EOFError("the connection was closed")
    return rest.decode()


def _program(name: str) -> str:
    """Where a program is. Raises `RuntimeError` that says how to get it: without a real server
    these tests prove nothing.
    """
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is missing and the tests need a real one: {_INSTALL}.")
    return found
