"""Jobs in processes without requests: they pause during maintenance, and barriers wait for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Self

from ..backends import BaseStateBackend
from ..backends.default import backend_or_default
from ..exceptions import ConfigurationError
from ..runtime.mode import MaintenanceMode
from ..runtime.options import MaintenanceOptions
from ..runtime.requests import InFlightRequest

_POLL_INTERVAL: Final = 0.1  # seconds


@asynccontextmanager
async def job(mode: MaintenanceMode) -> AsyncIterator[None]:
    """Wait until the service is open, then run the block as a job: a barrier waits for its end.

    Read-only mode counts as closed. A `mode` that was not entered starts to watch its backend.
    """
    work = InFlightRequest.of(mode, {"type": "http"})  # counted like a request
    try:
        while (await mode.refresh()).closure or not _begins(work, mode):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_INTERVAL)
        yield
    finally:
        _end(work)


@dataclass(eq=False, repr=False, match_args=False)
class BackgroundMode(MaintenanceOptions):
    """A `MaintenanceMode` for programs without an event loop: a thread of its own keeps it current.

    `backend` is a backend or its URL, as for `MaintenanceModeMiddleware`; further options are those
    of `MaintenanceOptions`. Enter it, or call `start`, in each process and after a fork: threads do
    not survive a fork. Where it is not running, its methods raise `ConfigurationError`.
    """

    backend: str | BaseStateBackend | None = None
    enable_maintenance: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.mode = MaintenanceMode(
            backend_or_default(self.backend),
            enable_maintenance=self.enable_maintenance,
            **self.mode_options(),
        )
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._end_watch: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the thread in this process, unless it is running."""
        with self._lock:
            if self._is_running:
                return
            started: Future[None] = Future()
            self._thread = threading.Thread(
                target=self._run, args=(started,), name="fastapi_maintenance", daemon=True
            )
            self._thread.start()
            started.result()

    def stop(self) -> None:
        """Stop the thread if it is running."""
        with self._lock:
            if self._thread is not None and self._is_running:
                self._end_watch()
                self._thread.join()

    @property
    def closed(self) -> bool:
        """Return whether maintenance is on, from memory."""
        if not self._is_running:
            raise ConfigurationError(
                "BackgroundMode is not running in this process. Enter it after the fork, or call "
                "start(). Celery sends worker_process_init in the prefork and solo pools only: "
                "connect task_prerun, too."
            )
        return self.mode.evaluate_gate().closure is not None

    def wait_until_open(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds until maintenance is off, and return whether it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.closed:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_INTERVAL)
        return True

    @contextmanager
    def job(self) -> Iterator[None]:
        """Run a job as `job` does, in any thread; several may run at the same time."""
        work = InFlightRequest.of(self.mode, {"type": "http"})
        try:
            while self.closed or not _begins(work, self.mode):
                time.sleep(_POLL_INTERVAL)
            yield
        finally:
            _end(work)

    @property
    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()  # never in a forked process

    def _run(self, started: Future[None]) -> None:
        try:
            asyncio.run(self._watch(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)  # else start() would wait for ever

    async def _watch(self, started: Future[None]) -> None:
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        self._end_watch = lambda: loop.call_soon_threadsafe(end.set)
        async with self.mode:
            started.set_result(None)
            await end.wait()


def _begins(work: InFlightRequest, mode: MaintenanceMode) -> bool:
    """Count the job, then look at the gate again: a later closing waits for the job."""
    mode.requests.add(work)
    if mode.gate.closure is None:
        return True
    _end(work)
    return False


def _end(work: InFlightRequest) -> None:
    work.owner.requests.discard(work)
    work.owner.drain_progressed()
