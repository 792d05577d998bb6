"""Hooks: every worker calls one for each change in order, one worker of all calls the other, and no
request waits for either.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fastapi_maintenance import MaintenanceModeMiddleware, maintenance_mode_on
from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend, RedisBackend
from fastapi_maintenance.backends.base import StateChange
from fastapi_maintenance.exceptions import BackendUnavailableError, ConfigurationError
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.precedence import Closure, DecidedBy
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from fastapi_maintenance.runtime.hooks import ChangeHook, ChangeHooks
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..conftest import RedisServerFactory
from ..support.doubles import Switchboard
from ..support.servers import RedisServer
from ..support.waiting import eventually

SOON: Final = 20.0
LOGGER: Final = "fastapi_maintenance"


class Diary:
    """A hook that remembers: (was on, is on, source)."""

    def __init__(self) -> None:
        self.entries: list[tuple[bool, bool, str]] = []
        self.threads: set[int] = set()

    def __call__(self, old: MaintenanceState, new: MaintenanceState, source: str) -> None:
        self.entries.append((old.enabled, new.enabled, source))
        self.threads.add(threading.get_ident())

    async def later(self, old: MaintenanceState, new: MaintenanceState, source: str) -> None:
        await asyncio.sleep(0)
        self(old, new, source)

    @property
    def flips(self) -> list[bool]:
        return [new for _, new, _ in self.entries]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger=LOGGER):
        yield caplog


def errors(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]


def is_closed(mode: MaintenanceMode) -> bool:
    return mode.gate.closure is not None


# -- in every worker -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async", "partial"])
async def test_on_change_gets_each_change_in_order(kind: str) -> None:
    diary, backend = Diary(), Switchboard()
    hooks: dict[str, ChangeHook] = {
        "sync": diary,
        "async": diary.later,
        "partial": partial(diary.later),
    }
    async with MaintenanceMode(backend, on_change=hooks[kind]):
        for value in (True, False) * 10:
            await backend.write(MaintenanceState(enabled=value))
        await eventually(lambda: len(diary.entries) == 20, within=SOON)

    assert diary.entries == [(False, True, "board"), (True, False, "board")] * 10


async def test_on_change_at_start_is_called_only_if_closed() -> None:
    for value, entries in ((True, [(False, True, "board")]), (False, [])):
        diary = Diary()
        async with MaintenanceMode(Switchboard(value), on_change=diary):
            await asyncio.sleep(0.3)
        assert diary.entries == entries


async def test_on_change_is_called_for_changed_details() -> None:
    texts: list[str | None] = []
    backend = Switchboard()
    async with MaintenanceMode(
        backend, on_change=lambda old, new, source: texts.append(new.message)
    ) as mode:
        async with maintenance_mode_on(backend, message="one"):
            async with maintenance_mode_on(backend, message="two"):
                await eventually(lambda: len(texts) == 2, within=SOON)
            await eventually(lambda: len(texts) == 3, within=SOON)
        await eventually(lambda: len(texts) == 4, within=SOON)
        assert mode.gate.closure is None

    assert texts[0] == texts[2] == "one"
    assert (texts[1], texts[3]) == ("two", None)


async def test_on_change_ignores_another_rule_with_the_same_state() -> None:
    diary, state = Diary(), MaintenanceState(enabled=True, retry_after=9)
    async with MaintenanceMode(Switchboard(ttl=30.0), on_change=diary) as mode:
        mode.update(Snapshot(state, now=1.0), time.monotonic())
        mode.update(Snapshot(OFF, (Hold("a", state),), now=2.0), time.monotonic())
        assert mode.gate.closure == Closure(DecidedBy.HOLD, state)
        mode.update(Snapshot(OFF, now=3.0), time.monotonic())
        await eventually(lambda: len(diary.entries) >= 2, within=SOON)

    assert diary.flips == [True, False]


async def test_on_change_that_fails_is_logged_and_called_again(
    log: pytest.LogCaptureFixture,
) -> None:
    told: list[bool] = []

    async def fail(old: MaintenanceState, new: MaintenanceState, source: str) -> None:
        told.append(new.enabled)
        raise RuntimeError("no chat today")

    backend = Switchboard()
    async with MaintenanceMode(backend, on_change=fail) as mode:
        await backend.write(ON)
        await backend.write(OFF)
        await eventually(lambda: told == [True, False], within=SOON)
        assert mode.gate.closure is None

    (first, second) = errors(log)
    assert first == second
    assert "on_change hook" in first
    assert "fail failed: RuntimeError('no chat today')" in first


async def test_on_change_on_two_event_loops_is_called_once() -> None:
    diary = Diary()
    hooks = ChangeHooks(diary, None)
    hooks.enqueue(None, Closure(DecidedBy.SWITCH, ON), "board")

    with hooks._running:  # as another event loop has it
        await hooks.run()
        assert diary.entries == []
    await hooks.run()
    await hooks.run()
    assert diary.entries == [(False, True, "board")]


async def test_sync_hook_runs_in_a_thread() -> None:
    diary, backend = Diary(), Switchboard(True)
    async with MaintenanceMode(backend, on_change=diary):
        await eventually(lambda: diary.entries, within=SOON)

    assert threading.get_ident() not in diary.threads


async def test_hook_that_hangs_delays_neither_gate_nor_stop(log: pytest.LogCaptureFixture) -> None:
    hanging = threading.Event()
    begun = threading.Event()

    def hang(old: MaintenanceState, new: MaintenanceState, source: str) -> None:
        begun.set()
        hanging.wait(60)

    backend = Switchboard()
    try:
        async with MaintenanceMode(backend, on_change=hang) as mode:
            await backend.write(ON)
            await eventually(begun.is_set, within=SOON)
            await backend.write(OFF)
            assert not is_closed(mode)
            await backend.write(ON)
            assert is_closed(mode)
            ending = time.monotonic()
        assert time.monotonic() - ending < 30
    finally:
        hanging.set()


def test_hook_delays_no_request() -> None:
    begun = threading.Event()

    async def hang(old: MaintenanceState, new: MaintenanceState, source: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    app = FastAPI(openapi_url=None)
    app.add_middleware(
        MaintenanceModeMiddleware, backend=Switchboard(True), on_change=hang, on_change_once=hang
    )
    app.get("/")(lambda: None)
    with TestClient(app) as client:
        assert begun.wait(SOON)
        assert client.get("/").status_code == 503


async def test_hook_that_hangs_keeps_a_bounded_queue() -> None:
    backend, told = Switchboard(), []
    mode = MaintenanceMode(backend, on_change=lambda old, new, source: told.append(new.enabled))
    for value in (True, False) * 500:  # nobody listens yet
        await backend.write(MaintenanceState(enabled=value))
    async with mode:
        await eventually(lambda: len(told) == 100, within=SOON)
        await asyncio.sleep(0.2)

    assert told == [True, False] * 50


async def test_two_event_loops_call_on_change_once_per_change() -> None:
    diary, backend = Diary(), Switchboard()
    mode = MaintenanceMode(backend, on_change=diary.later)
    over = threading.Event()

    async def live() -> None:
        async with mode:
            await eventually(over.is_set, within=60)

    other = threading.Thread(target=asyncio.run, args=(live(),))
    other.start()
    try:
        async with mode:
            for value in (True, False) * 20:
                await backend.write(MaintenanceState(enabled=value))
                await asyncio.sleep(0)
            await eventually(lambda: len(diary.entries) == 40, within=SOON)
            await asyncio.sleep(0.3)
    finally:
        over.set()
        other.join(30)

    assert diary.flips == [True, False] * 20


async def test_on_change_is_called_when_the_state_grows_stale() -> None:
    diary, backend = Diary(), Switchboard(ttl=0.1)
    async with MaintenanceMode(backend, on_change=diary, on_unreachable="closed", stale_after=0.3):
        await eventually(lambda: diary.flips[-1:] == [], within=SOON)
        backend.error = RuntimeError("gone")
        await eventually(
            lambda: diary.entries[-1:] == [(False, True, "unreachable-closed")], within=SOON
        )
        backend.error = None
        await eventually(lambda: diary.flips[-1:] == [False], within=SOON)


@pytest.mark.parametrize("option", ["on_change", "on_change_once"])
def test_hook_that_is_not_callable_is_refused(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be callable"):
        MaintenanceMode(Switchboard(), **{option: "print"})  # type: ignore[arg-type]


# -- in one worker for all -------------------------------------------------------------------------


async def test_on_change_once_is_called_in_one_of_many_workers(redis_url: str) -> None:
    diaries = [Diary() for _ in range(5)]
    backends = [RedisBackend(redis_url, ttl=0.3) for _ in diaries]
    modes = [
        MaintenanceMode(backend, on_change_once=diary.later)
        for backend, diary in zip(backends, diaries, strict=True)
    ]
    flips = (True, False, True)

    def told() -> list[tuple[bool, bool, str]]:
        return [entry for diary in diaries for entry in diary.entries]

    async with modes[0], modes[1], modes[2], modes[3], modes[4]:
        for number, value in enumerate(flips, start=1):
            await backends[0].write(MaintenanceState(enabled=value))
            await eventually(lambda number=number: len(told()) == number, within=SOON)  # type: ignore[misc]
            await asyncio.sleep(0.7)  # two polls, in which each worker has offered to tell it again
        assert len(told()) == 3

    assert sorted(told()) == [
        (False, True, "redis"),
        (False, True, "redis"),
        (True, False, "redis"),
    ]


async def test_on_change_once_is_called_for_an_expiry(redis_url: str) -> None:
    """Although each worker works out the end for itself, to another microsecond."""
    diary = Diary()
    one, other = RedisBackend(redis_url, ttl=0.3), RedisBackend(redis_url, ttl=0.3)
    async with (
        MaintenanceMode(one, on_change_once=diary),
        MaintenanceMode(other, on_change_once=diary),
    ):
        await one.write(ON, expires_in=4)
        await eventually(lambda: diary.flips == [True, False], within=SOON)
        await asyncio.sleep(0.7)

    assert diary.entries == [(False, True, "redis"), (True, False, "redis")]


async def test_on_change_once_catches_up_after_a_restart(
    redis_server: RedisServer, redis_url: str
) -> None:
    diary = Diary()
    async with MaintenanceMode(RedisBackend(redis_url), on_change_once=diary):
        redis_server.cli("SET", "maintenance", "1")
        await eventually(lambda: diary.flips == [True], within=SOON)
    redis_server.cli("DEL", "maintenance")
    async with MaintenanceMode(RedisBackend(redis_url), on_change_once=diary):
        await eventually(lambda: diary.entries[1:] == [(True, False, "redis")], within=SOON)
    async with MaintenanceMode(RedisBackend(redis_url), on_change_once=diary):
        redis_server.cli("SET", "maintenance", "1")
        await eventually(lambda: diary.flips == [True, False, True], within=SOON)


async def test_on_change_once_waits_for_redis(
    own_redis_server: RedisServerFactory, log: pytest.LogCaptureFixture
) -> None:
    server, diary = own_redis_server(), Diary()
    options: dict[str, Any] = {"on_unreachable": "closed", "stale_after": 0.5}
    async with MaintenanceMode(
        RedisBackend(server.url, ttl=0.3, timeout=0.3), on_change_once=diary, **options
    ) as mode:
        server.kill()
        await eventually(lambda: mode.gate.source == "unreachable-closed", within=SOON)
        await asyncio.sleep(0.7)
        assert diary.entries == []
        server.start()
        server.cli("SET", "maintenance", "1")
        await eventually(lambda: diary.entries == [(False, True, "redis")], within=SOON)


class Refusing(Switchboard):
    """Cannot say who is to tell, until it is told to."""

    refusal: Exception | None = BackendUnavailableError("not now")

    async def notify_once(self, news: StateChange, tell: Callable[[str], Awaitable[None]]) -> bool:
        if self.refusal is not None:
            raise self.refusal
        await tell("garbage")
        return True


async def test_on_change_once_is_retried_and_logged_once(log: pytest.LogCaptureFixture) -> None:
    diary, backend = Diary(), Refusing(True)
    async with MaintenanceMode(backend, on_change_once=diary):
        await eventually(lambda: errors(log), within=SOON)
        await asyncio.sleep(0.4)
        assert (diary.entries, errors(log)) == (
            [],
            ["on_change_once cannot be called yet: not now"],
        )
        backend.refusal = None
        await eventually(lambda: diary.entries, within=SOON)

    assert diary.entries == [(False, True, "board")]


async def test_override_calls_on_change_in_this_worker_only() -> None:
    here, everywhere = Diary(), Diary()
    async with MaintenanceMode(Switchboard(), on_change=here, on_change_once=everywhere) as mode:
        mode.override(ON)
        await eventually(lambda: here.entries == [(False, True, "override")], within=SOON)
        await asyncio.sleep(0.3)
        mode.override(None)
        await eventually(lambda: here.flips == [True, False], within=SOON)

    assert everywhere.entries == []


@pytest.mark.parametrize("make", [EnvVarBackend, Switchboard])
async def test_on_change_once_without_redis_is_called_once(
    make: type[BaseStateBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    diary, backend = Diary(), make()
    async with (
        MaintenanceMode(backend, on_change_once=diary),
        MaintenanceMode(backend, on_change_once=diary),
    ):
        async with maintenance_mode_on(backend):
            await eventually(lambda: diary.flips == [True], within=SOON)
        await eventually(lambda: diary.flips == [True, False], within=SOON)
        await asyncio.sleep(0.2)

    assert len(diary.entries) == 2
