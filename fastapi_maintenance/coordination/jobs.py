"""Jobs in processes without requests: they pause during maintenance, and barriers wait for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Final, Self

from ..backends import BaseStateBackend
from ..backends.default import backend_or_default
from ..exceptions import ConfigurationError
from ..runtime.mode import MaintenanceMode
from ..runtime.requests import InFlightRequest

__all__ = ["BackgroundMode", "job"]

_POLL_INTERVAL: Final = 0.1  # seconds


@asynccontextmanager
async def job(mode: MaintenanceMode) -> AsyncIterator[None]:
    """Wait until the service is open, then run the block as a job: a barrier waits for its end.

    Read-only mode counts as closed. A `mode` that was not entered starts to watch its backend.
    """
    admission = _admission(mode)
    try:
        while not _admitted(admission, (await mode.refresh()).closure is None):  # noqa: ASYNC110 - a state also goes stale without any event
            await asyncio.sleep(_POLL_INTERVAL)
        yield
    finally:
        _leave(admission)


class BackgroundMode:
    """A `MaintenanceMode` for programs without an event loop: a thread keeps it current while the block lasts.

    `backend` is a backend or its URL, as for `MaintenanceModeMiddleware`; further options are those of
    `MaintenanceMode`. Enter it, or call `start`, in each process and after a fork: threads do not survive
    a fork. Used where it is not running, it raises `ConfigurationError`.
    """

    def __init__(self, backend: str | BaseStateBackend | None = None, **options: Any) -> None:
        self.mode = MaintenanceMode(backend_or_default(backend), **options)
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the thread in this process, unless it runs already."""
        with self._starting:
            if self._is_running:
                return
            begun: Future[None] = Future()
            self._thread = threading.Thread(
                target=self._run, args=(begun,), name="fastapi_maintenance", daemon=True
            )
            self._thread.start()
            begun.result()

    def stop(self) -> None:
        """Stop the thread, if it runs."""
        with self._starting:
            if (
                self._is_running
                and self._loop is not None
                and self._over is not None
                and self._thread is not None
            ):
                self._loop.call_soon_threadsafe(self._over.set)
                self._thread.join()

    @property
    def closed(self) -> bool:
        """Return whether maintenance is on, without I/O."""
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

    @property
    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()  # in a forked process it is not

    @contextmanager
    def job(self) -> Iterator[None]:
        """Run a job as `job` does, in any thread; several may run at the same time."""
        admission = _admission(self.mode)
        try:
            while not _admitted(admission, not self.closed):
                time.sleep(_POLL_INTERVAL)
            yield
        finally:
            _leave(admission)

    def _run(self, begun: Future[None]) -> None:
        try:
            asyncio.run(self._live(begun))
        except BaseException as error:
            if begun.done():
                raise
            begun.set_exception(
                error
            )  # else start() would wait for ever, for example without file descriptors

    async def _live(self, begun: Future[None]) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with self.mode:
            begun.set_result(None)
            await self._over.wait()


def _admission(mode: MaintenanceMode) -> InFlightRequest:
    return InFlightRequest(mode, {"type": "http"})  # counted as a request is


def _admitted(admission: InFlightRequest, open_before: bool) -> bool:
    """Count the job, then look again: a closing after that look waits for it."""
    mode = admission.owner
    if not open_before:
        return False
    mode.requests.add(admission)
    if mode.gate.closure is None:
        return True
    _leave(admission)
    return False


def _leave(admission: InFlightRequest) -> None:
    admission.owner.requests.discard(admission)
    admission.owner.drain_progressed()
