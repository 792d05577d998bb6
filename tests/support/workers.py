"""Real worker processes of any server, each reached over a connection of its own."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

from .ports import free_port
from .waiting import eventually_sync

_ROOT: Final = Path(__file__).parents[2]
# connections opened before the first is used, so that more than one process is woken to accept them
_AT_ONCE: Final = 8
# seconds to keep connections alive; else they last five
_UVICORN: Final = (
    "uvicorn {app} --port {port} --workers {count} --http h11 --loop asyncio"
    " --no-access-log --timeout-keep-alive 600"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one worker answered."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def text(self) -> str:
        """The body, decoded."""
        return self.body.decode()


class Workers:
    """A server with N workers on a port of 127.0.0.1, with one keep-alive connection to every
    worker process.

    `app` is an import string such as `tests.apps.bare:app`, `env` is added to this process's
    environment. The application must answer GET `pid_path`, also in maintenance, with
    `os.getpid()`: that is how a connection learns whose it is. `command` is a module with its
    arguments, in which `{app}`, `{port}` and `{count}` are replaced.
    """

    def __init__(
        self,
        app: str,
        *,
        count: int = 2,
        env: Mapping[str, str] | None = None,
        options: tuple[str, ...] = (),
        port: int | None = None,
        pid_path: str = "/pid",
        patience: float = 90.0,
        command: str = _UVICORN,
        cwd: Path = _ROOT,
    ) -> None:
        self.count = count
        self.patience = patience  # seconds, for starting and for stopping
        self.port = port or free_port()
        words = command.format(app=app, port=self.port, count=count)
        self._command = [sys.executable, "-m", *shlex.split(words), *options]
        self._cwd = cwd
        self._environment = os.environ | dict(env or {})
        self._pid_path = pid_path
        self._home = TemporaryDirectory(prefix="workers-")
        self._process: subprocess.Popen[bytes] | None = None
        self._connections: dict[int, HTTPConnection] = {}

    # -- their life --------------------------------------------------------------------------------

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
        """Start them and connect to each. Raises `RuntimeError` with their log if that fails."""
        with self.log_file.open("ab") as log:
            # A session of its own: no worker can outlive `stop`, and Ctrl-C is pytest's to handle.
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.connect(within=self.patience)

    def stop(self) -> None:
        """End all of them in order (SIGTERM), and by force what is still there when patience ends.
        Stopping twice does nothing.
        """
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self.terminate()
            self.wait()
        process, self._process = self._process, None
        process.kill()
        process.wait()
        # Nobody is left, as it should be; macOS says it by the second.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Ask all of them to end in order (SIGTERM), without waiting."""
        assert self._process is not None
        for pid in self.pids:
            _signal(pid, signal.SIGCONT)  # a frozen one notices no SIGTERM
        self._disconnect()
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self) -> int:
        """Wait for the end of the server, and return its exit code."""
        assert self._process is not None
        return self._process.wait(self.patience)

    def close(self) -> None:
        """Stop them for good and remove their log."""
        self.stop()
        self._home.cleanup()

    def kill(self, pid: int) -> None:
        """End one as a crash does (SIGKILL). uvicorn starts another; `connect` finds it."""
        _signal(pid, signal.SIGKILL)

    def pause(self, pid: int) -> None:
        """Freeze one (SIGSTOP). uvicorn replaces it after `--timeout-worker-healthcheck`, five
        seconds; until then it replaces no other.
        """
        _signal(pid, signal.SIGSTOP)

    def resume(self, pid: int) -> None:
        """Let it go on (SIGCONT)."""
        _signal(pid, signal.SIGCONT)

    # -- asking them -------------------------------------------------------------------------------

    @property
    def pids(self) -> list[int]:
        """The worker processes that there is a connection to."""
        return sorted(self._connections)

    def connect(self, *, within: float) -> None:
        """Forget all connections and open one to every worker process there is now, within so many
        seconds.
        """
        self._disconnect()
        try:
            eventually_sync(self._find, within=within, every=0.05)
        except AssertionError:
            raise RuntimeError(
                f"There are {len(self.pids)} of {self.count} workers after {within} s; their "
                f"log:\n{self.log}"
            ) from None

    def get(
        self, pid: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask one of them."""
        return _ask(self._connections[pid], method, path, headers or {})

    def get_all(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> dict[int, Answer]:
        """Ask each of them, one after the other."""
        return {pid: self.get(pid, path, method=method, headers=headers) for pid in self.pids}

    @property
    def log_file(self) -> Path:
        """What they print."""
        return Path(self._home.name) / "server.log"

    @property
    def log(self) -> str:
        """What they have printed so far."""
        return self.log_file.read_text(errors="replace")

    # ----------------------------------------------------------------------------------------------

    def _find(self) -> bool:
        """Open some connections at once, keep one a process, and say whether all processes are
        found.
        """
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"The server is not running; its log:\n{self.log}")
        batch = [HTTPConnection("127.0.0.1", self.port, timeout=10) for _ in range(_AT_ONCE)]
        new: dict[int, HTTPConnection] = {}
        try:
            with suppress(OSError, HTTPException):  # not up yet
                for connection in batch:
                    connection.connect()
                for connection in batch:
                    new.setdefault(self._owner(connection), connection)
            self._connections = new | self._connections
        finally:
            for connection in set(batch) - set(self._connections.values()):
                connection.close()
        return len(self._connections) == self.count

    def _owner(self, connection: HTTPConnection) -> int:
        answer = _ask(connection, "GET", self._pid_path, {})
        if answer.status != 200:
            raise RuntimeError(
                f"GET {self._pid_path} must answer os.getpid(), not {answer.status}: {answer.text}"
            )
        return int(answer.text)

    def _disconnect(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


def _ask(connection: HTTPConnection, method: str, path: str, headers: Mapping[str, str]) -> Answer:
    connection.request(method, path, headers=dict(headers))
    response = connection.getresponse()
    return Answer(
        response.status,
        {name.lower(): value for name, value in response.getheaders()},
        response.read(),
    )


def _signal(pid: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, what)
