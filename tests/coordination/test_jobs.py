"""Jobs in processes without requests: they pause during maintenance, and barriers wait for them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

import pytest

from fastapi_maintenance import wait_until_applied
from fastapi_maintenance.backends import RedisBackend
from fastapi_maintenance.coordination.jobs import BackgroundMode, job
from fastapi_maintenance.exceptions import ConfigurationError
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..support.doubles import Switchboard
from ..support.servers import RedisServer
from ..support.waiting import eventually, eventually_sync

SOON: Final = 30.0


async def test_job_begins_when_the_service_opens() -> None:
    backend = Switchboard(True)
    begun = asyncio.Event()

    async def work(mode: MaintenanceMode) -> None:
        async with job(mode):
            begun.set()

    async with MaintenanceMode(backend) as mode:
        working = asyncio.create_task(work(mode))
        await asyncio.sleep(0.4)
        assert not begun.is_set()
        assert len(mode.requests) == 0
        await backend.write(OFF)
        await eventually(begun.is_set, within=SOON)
        await working
        assert len(mode.requests) == 0


async def test_job_waits_in_read_only_mode() -> None:
    mode = MaintenanceMode(Switchboard())
    mode.override(MaintenanceState(enabled=True, mode="read-only"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), job(mode):
            pass
    assert len(mode.requests) == 0


def test_background_mode_start_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(mode: MaintenanceMode) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(MaintenanceMode, "start", fail)
    entered: Future[object] = Future()

    def enter() -> None:
        try:
            entered.set_result(BackgroundMode(Switchboard()).__enter__())
        except OSError as error:
            entered.set_exception(error)

    threading.Thread(target=enter, daemon=True).start()
    with pytest.raises(OSError, match="too many open files"):
        entered.result(SOON)


def test_background_mode_stop_error_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(mode: MaintenanceMode) -> None:
        raise OSError("no route to host")

    said: list[str] = []
    monkeypatch.setattr(MaintenanceMode, "stop", fail)
    monkeypatch.setattr(threading, "excepthook", lambda hooked: said.append(str(hooked.exc_value)))
    with BackgroundMode(Switchboard()):
        pass
    assert said == ["no route to host"]


async def test_barrier_waits_for_a_running_job(redis_url: str) -> None:
    backend, end = RedisBackend(redis_url, ttl=1.0), asyncio.Event()

    async def work(mode: MaintenanceMode) -> None:
        async with job(mode):
            await end.wait()

    async with MaintenanceMode(RedisBackend(redis_url, ttl=1.0)) as mode:
        working = asyncio.create_task(work(mode))
        await eventually(lambda: len(mode.requests) == 1, within=SOON)
        await backend.write(ON)
        result = await wait_until_applied(backend, drained=True, timeout=3.0)
        assert [worker.http for worker in result.pending] == [1]
        end.set()
        await working
        (await wait_until_applied(backend, drained=True, timeout=SOON)).check()


def test_background_mode_follows_the_switch(redis_server: RedisServer, redis_url: str) -> None:
    with BackgroundMode(redis_url) as maintenance:
        assert not maintenance.closed
        redis_server.cli("SET", "maintenance", "1")
        eventually_sync(lambda: maintenance.closed, within=SOON)
        assert maintenance.wait_until_open(timeout=0.2) is False
        threading.Timer(0.3, redis_server.cli, ("DEL", "maintenance")).start()
        assert maintenance.wait_until_open() is True
        with maintenance.job():
            assert len(maintenance.mode.requests) == 1
        assert len(maintenance.mode.requests) == 0
    assert not any(thread.name == "fastapi_maintenance" for thread in threading.enumerate())


def test_job_in_a_thread_waits_for_the_opening() -> None:
    backend, done = Switchboard(True), threading.Event()
    with BackgroundMode(backend) as maintenance:

        def work() -> None:
            with maintenance.job():
                done.set()

        thread = threading.Thread(target=work)
        thread.start()
        assert not done.wait(0.4)
        backend.value = False
        assert done.wait(SOON)
        thread.join(SOON)


def test_job_closed_between_two_looks_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, looks = Switchboard(), iter([False, False, True])
    maintenance = BackgroundMode(backend)
    maintenance.mode.override(ON)

    def closed(self: BackgroundMode) -> bool:
        now = next(looks)
        if now:
            maintenance.mode.override(OFF)
        return False

    monkeypatch.setattr(BackgroundMode, "closed", property(closed))
    with maintenance, maintenance.job():
        assert next(looks, None) is None


async def test_job_with_a_mode_never_entered_waits_for_the_opening(
    redis_server: RedisServer, redis_url: str
) -> None:
    redis_server.cli("SET", "maintenance", "1")
    mode, begun = MaintenanceMode(RedisBackend(redis_url)), asyncio.Event()

    async def work() -> None:
        async with job(mode):
            begun.set()

    working = asyncio.create_task(work())
    await eventually(lambda: mode.gate.closure, within=SOON)
    assert not begun.is_set()
    redis_server.cli("DEL", "maintenance")
    await working
    await mode.stop()


def begin(maintenance: BackgroundMode) -> None:
    with maintenance.job():
        pass


USES: Final[list[Callable[[BackgroundMode], object]]] = [
    begin,
    lambda maintenance: maintenance.closed,
    lambda maintenance: maintenance.wait_until_open(0),
]


@pytest.mark.parametrize("use", USES, ids=["job", "closed", "wait_until_open"])
def test_background_mode_outside_its_block_is_an_error(
    use: Callable[[BackgroundMode], object],
) -> None:
    """Without a watch, its memory would call the service open."""
    maintenance = BackgroundMode(Switchboard())
    with pytest.raises(ConfigurationError, match="is not running in this process"):
        use(maintenance)
    with maintenance:
        use(maintenance)
    with pytest.raises(ConfigurationError, match="is not running in this process"):
        use(maintenance)


# As Python 3.12 and later have it.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_background_mode_after_a_fork_is_an_error() -> None:
    with BackgroundMode(Switchboard()) as maintenance:
        if (child := os.fork()) == 0:
            try:
                begin(maintenance)
            except ConfigurationError:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_background_mode_whose_thread_ended_is_an_error() -> None:
    maintenance = BackgroundMode(Switchboard())
    with maintenance:
        maintenance._end_watch()
        eventually_sync(lambda: not maintenance._is_running, within=SOON)
        with pytest.raises(ConfigurationError, match="is not running in this process"):
            begin(maintenance)


def test_background_mode_starts_and_stops_once_from_any_thread() -> None:
    """As if each task of a queue started it in its own thread."""
    maintenance = BackgroundMode(Switchboard())
    starting = [threading.Thread(target=maintenance.start) for _ in range(8)]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join(SOON)
    assert [thread.name for thread in threading.enumerate()].count("fastapi_maintenance") == 1
    begin(maintenance)
    maintenance.stop()
    maintenance.stop()
    assert "fastapi_maintenance" not in [thread.name for thread in threading.enumerate()]
    with maintenance:
        begin(maintenance)
