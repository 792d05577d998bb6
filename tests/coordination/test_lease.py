"""A hold that is kept alive from a thread of its own, and what its holder is told when
it is lost.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Final

import pytest

from fastapi_maintenance.backends import BaseStateBackend, LocalFileBackend, RedisBackend
from fastapi_maintenance.coordination.lease import LeaseKeeper, OnLost
from fastapi_maintenance.exceptions import BackendError, BackendUnavailableError, LeaseLostError
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import ON, MaintenanceState
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..conftest import RedisServerFactory
from ..support.doubles import LeasedBoard, Switchboard
from ..support.holders import Holder, Program
from ..support.leasing import critical_lines, lease_threads
from ..support.servers import RedisServer
from ..support.waiting import eventually, eventually_sync

HOLD: Final = Hold("a", ON)
PATIENCE: Final = 30.0  # seconds, for a busy machine


@contextmanager
def leased(
    backend: BaseStateBackend, seconds: float, on_lost: OnLost | None = None
) -> Iterator[LeaseKeeper]:
    """A lease that stands, and is ended whatever becomes of the test."""
    lease = LeaseKeeper(backend, HOLD, seconds, on_lost)
    lease.submit_acquire().result(PATIENCE)
    try:
        yield lease
    finally:
        lease.submit_release().exception(PATIENCE)


@dataclass
class LeaseClock:
    """The clock by which leases are judged: it stands still until a test moves it."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def lease_clock(monkeypatch: pytest.MonkeyPatch) -> LeaseClock:
    clock = LeaseClock()
    monkeypatch.setattr("fastapi_maintenance.coordination.lease.time", clock)
    return clock


def renewed(backend: LeasedBoard, times: int = 1) -> None:
    """Wait until it was renewed so many times more, well or not."""
    before = backend.steps.count("renew")
    eventually_sync(lambda: backend.steps.count("renew") >= before + times, within=PATIENCE)


# -- its life --------------------------------------------------------------------------------------


def test_it_is_taken_renewed_three_times_a_lease_and_released(lease_clock: LeaseClock) -> None:
    class Timed(LeasedBoard):
        renewed_at: ClassVar[list[float]] = []

        async def renew(self, hold: Hold, lease: float) -> bool:
            self.renewed_at.append(time.monotonic())
            return await super().renew(hold, lease)

    backend = Timed()

    with leased(backend, 1.5) as lease:
        assert backend.standing == {"a": HOLD}
        # That of an earlier test may be ending.
        eventually_sync(lambda: len(lease_threads()) == 1, within=PATIENCE)
        # Two renewals a lease are never so near to each other, even on a busy machine.
        eventually_sync(
            lambda: any(b - a < 0.7 for a, b in pairwise(backend.renewed_at)), within=PATIENCE
        )
        assert not lease.lost
        lease.check()

    renewals = backend.steps.count("renew")
    assert renewals >= 3, "the last when the block ends"
    assert backend.steps == ["acquire", *["renew"] * renewals, "release"]
    assert backend.standing == {}
    assert backend.kept is None
    eventually_sync(lambda: lease_threads() == [], within=PATIENCE)


def test_what_is_to_be_kept_is_handed_over_with_the_release() -> None:
    backend = LeasedBoard()

    with leased(backend, 30) as lease:
        lease.submit_release(MaintenanceState(enabled=True, reason="failed")).result(PATIENCE)

    assert backend.kept == MaintenanceState(enabled=True, reason="failed")


def test_ending_it_twice_releases_once() -> None:
    backend = LeasedBoard()

    with leased(backend, 30) as lease:
        assert lease.submit_release(ON) is lease.submit_release()
        lease.submit_release().result(PATIENCE)

    assert backend.steps.count("release") == 1
    assert backend.kept == ON


def test_what_cannot_be_taken_says_why_and_is_let_go_of() -> None:
    """The backend may have taken it, and only its reply be lost: nobody would end it before its
    lease.
    """
    backend = LeasedBoard()
    backend.faults["acquire"] = BackendUnavailableError("no reply")
    lease = LeaseKeeper(backend, HOLD, 30)

    with pytest.raises(BackendUnavailableError, match="no reply"):
        lease.submit_acquire().result(PATIENCE)

    eventually_sync(lambda: backend.standing == {}, within=PATIENCE)
    eventually_sync(lambda: lease_threads() == [], within=PATIENCE)
    assert "renew" not in backend.steps


def test_lease_neither_taken_nor_released_ends() -> None:
    backend = LeasedBoard()
    backend.faults = {
        "acquire": BackendUnavailableError("down"),
        "release": BackendUnavailableError("still down"),
    }
    lease = LeaseKeeper(backend, HOLD, 30)

    with pytest.raises(BackendUnavailableError, match=r"^down"):
        lease.submit_acquire().result(PATIENCE)
    with pytest.raises(BackendUnavailableError, match="still down"):
        lease.submit_release().result(PATIENCE)


def test_a_release_that_fails_is_told_and_leaves_no_thread() -> None:
    backend = LeasedBoard()
    backend.faults["release"] = BackendError("no")

    with leased(backend, 30) as lease, pytest.raises(BackendError, match="no"):
        lease.submit_release().result(PATIENCE)

    eventually_sync(lambda: lease_threads() == [], within=PATIENCE)


def test_local_hold_that_cannot_keep_its_state_ends() -> None:
    """It has nothing to run out: it would stand for ever."""

    class ReadOnly(Switchboard):
        async def set_value(self, value: bool) -> None:
            raise BackendError("read only")

    backend = ReadOnly()
    with leased(backend, 30) as lease, pytest.raises(BackendError, match="read only"):
        lease.submit_release(ON).result(PATIENCE)

    assert standing_in(backend) == 0


def standing_in(backend: Switchboard) -> int:
    return len(backend._local_reading(None).holds or ())


# -- losing it -------------------------------------------------------------------------------------


def test_a_hold_that_is_ended_by_force_is_lost_and_said_once(
    lease_clock: LeaseClock, caplog: pytest.LogCaptureFixture
) -> None:
    backend, told = LeasedBoard(), threading.Event()
    with leased(backend, 1.0, lambda error: told.set()) as lease:
        backend.revoked = True
        assert told.wait(PATIENCE)
        renewed(backend, 2)  # each finds it lost

        with pytest.raises(
            LeaseLostError,
            match="The hold a on LeasedBoard was lost: an operator ended it by force",
        ):
            lease.check()
    assert critical_lines(caplog) == [
        "lost the hold a on LeasedBoard while its block is running: an operator ended it by force"
    ]


def test_what_was_ended_by_force_keeps_nothing() -> None:
    """Who ended it wants the service open; that the block then failed must not close it again."""
    backend = LeasedBoard()

    with leased(backend, 1.0) as lease:
        backend.revoked = True
        eventually_sync(lambda: lease.lost, within=PATIENCE)
        lease.submit_release(ON).result(PATIENCE)

    assert backend.kept is None


@pytest.mark.parametrize(
    "fault",
    [BackendUnavailableError("gone"), RuntimeError("what?"), 600.0],
    ids=["refused", "odd", "silent"],
)
def test_who_is_cut_off_is_told_before_the_hold_can_end(
    fault: Exception | float, lease_clock: LeaseClock, caplog: pytest.LogCaptureFixture
) -> None:
    backend = LeasedBoard()
    with leased(backend, 2.0) as lease:
        backend.faults["renew"] = fault
        lease_clock.now = 1.7
        renewed(backend, 2)
        assert not lease.lost
        lease_clock.now = 1.8  # a tenth before the end
        renewed(backend, 2)
        assert "it could not be renewed in time" in lease.lost

        renewed(backend)  # which fails as well
        assert len(critical_lines(caplog)) == 1
        lease.submit_release(ON).result(PATIENCE)
    assert backend.kept == ON  # it was not ended by force, so what failed stays closed


def test_who_is_cut_off_for_less_than_the_lease_loses_nothing(lease_clock: LeaseClock) -> None:
    backend = LeasedBoard()

    with leased(backend, 3.0) as lease:
        backend.faults["renew"] = BackendUnavailableError("gone")
        lease_clock.now = 2.6
        renewed(backend, 2)
        backend.faults.clear()
        renewed(backend, 2)  # from then on it stands for another lease
        backend.faults["renew"] = BackendUnavailableError("gone")
        lease_clock.now = 5.2
        renewed(backend, 2)
        assert not lease.lost


def test_one_renewal_that_hangs_does_not_lose_the_hold(lease_clock: LeaseClock) -> None:
    backend = LeasedBoard()

    with leased(backend, 30.0) as lease:
        backend.faults["renew"] = 1.2
        assert backend.doing.wait(PATIENCE)
        lease_clock.now = 28.0
        backend.faults.clear()
        renewed(backend, 2)
        lease_clock.now = 35.0
        renewed(backend, 2)
        assert not lease.lost


def test_who_was_away_for_longer_than_the_lease_is_told(lease_clock: LeaseClock) -> None:
    """Even if the renewal then succeeds: the service was open meanwhile."""
    backend = LeasedBoard()
    with leased(backend, 3.0) as lease:
        lease_clock.now = 10.0
        eventually_sync(lambda: lease.lost, within=PATIENCE)

        assert "suspended for longer than the lease" in lease.lost
        assert "renew" in backend.steps


# -- on a real Redis -------------------------------------------------------------------------------


async def held(backend: RedisBackend | LocalFileBackend) -> bool:
    """Whether any hold counts, as the backend itself says."""
    reading = await backend.read()
    return any(reading.now < hold.deadline for hold in reading.holds or ())


@pytest.mark.every_redis
async def test_killed_holder_keeps_its_hold_until_the_lease_ends(
    redis_url: str, redis_server: RedisServer
) -> None:
    backend = RedisBackend(redis_url, ttl=0.2)

    async with MaintenanceMode(backend) as mode:
        with Holder(redis_url, lease=3.0) as holder:
            await eventually(lambda: mode.gate.closure is not None, within=PATIENCE)
            first = await asyncio.to_thread(deadline_of, redis_server)
            await eventually(lambda: time.time() > first + 0.2, within=PATIENCE)
            assert await held(backend), "it is renewed"
            holder.signal(signal.SIGKILL)
            deadline = await asyncio.to_thread(deadline_of, redis_server)
            await eventually(lambda: mode.evaluate_gate().closure is None, within=PATIENCE)

        assert time.time() > deadline - 0.1

        async def is_over() -> bool:
            return not await held(backend)

        await eventually(is_over, within=PATIENCE)  # a worker that saw it end takes it away


async def test_killed_holder_of_a_file_lets_go_with_its_lease(tmp_path: Path) -> None:
    """Another package saves the value and restores it, so a killed process leaves it closed."""
    backend = LocalFileBackend(tmp_path / "m.json", ttl=0.5)

    async with MaintenanceMode(backend) as mode:
        with Holder(backend.describe(), lease=3) as holder:
            await eventually(lambda: mode.gate.closure is not None, within=PATIENCE)
            holder.signal(signal.SIGKILL)
            await eventually(lambda: mode.gate.closure is None, within=PATIENCE)


async def test_holder_frozen_longer_than_its_lease_is_told(
    redis_url: str,
) -> None:
    backend = RedisBackend(redis_url)

    with Holder(redis_url, lease=2.0) as holder:
        assert await held(backend)
        holder.signal(signal.SIGSTOP)
        await eventually(lambda: is_free(backend), within=PATIENCE)
        holder.signal(signal.SIGCONT)
        holder.expect(
            "lost the hold .* (suspended for longer than the lease|could not be renewed in time)"
        )
        assert holder.lost
        # Whatever its block still does, it does closed.
        await eventually(lambda: held(backend), within=PATIENCE)
        holder.leave()
    assert not await held(backend)


async def is_free(backend: RedisBackend) -> bool:
    return not await held(backend)


def deadline_of(server: RedisServer) -> float:
    """When the only hold ends, on Redis' clock, which on one machine is our wall clock."""
    (entry,) = server.cli("HVALS", "{maintenance}:holds").splitlines()
    return int(entry.split()[0]) / 1e6


def test_holder_cut_off_by_redis_is_told_before_the_end(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    lost_at: list[float] = []
    with leased(RedisBackend(server.url), 4.0, lambda error: lost_at.append(time.time())) as lease:
        deadline = deadline_of(server)  # or up to a second later, if it is renewed until the pause
        server.pause()
        try:
            eventually_sync(lambda: lost_at, within=PATIENCE)
        finally:
            server.resume()
        assert deadline - 2.0 < lost_at[0]
        assert "it could not be renewed in time" in lease.lost
    eventually_sync(lambda: server.cli("HLEN", "{maintenance}:holds") == "0", within=PATIENCE)


@pytest.mark.every_redis
def test_a_hold_survives_a_redis_that_loses_its_data(own_redis_server: RedisServerFactory) -> None:
    server = own_redis_server()
    with leased(RedisBackend(server.url), 30.0) as lease:
        server.restart()
        eventually_sync(lambda: server.cli("HLEN", "{maintenance}:holds") == "1", within=PATIENCE)
        kinds = server.cli("XRANGE", "{maintenance}:history", "-", "+").split()
        assert "restored" in kinds
        assert "taken" not in kinds  # the history began anew
        assert not lease.lost
    assert server.cli("EXISTS", "{maintenance}:holds") == "0"


# -- fork ------------------------------------------------------------------------------------------


def test_forked_child_leaving_the_block_keeps_the_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = LeasedBoard()

    with leased(backend, 30) as lease:
        with monkeypatch.context() as child:
            child.setattr("fastapi_maintenance.coordination.lease.os.getpid", lambda: -1)
            lease.submit_release(ON).result(0)
        time.sleep(0.1)
        assert backend.steps == ["acquire"]
    assert backend.kept is None


_LATE_BLOCK: Final = """
import sys, threading, time
from fastapi_maintenance import maintenance_mode_on
entered = threading.Event()

def migrate():
    with maintenance_mode_on(sys.argv[1], lease=1.0) as block:
        entered.set()
        time.sleep(4.0)
        print("lost" if block.lost else "kept", flush=True)

threading.Thread(target=migrate).start()
entered.wait()
"""


def test_lease_of_a_thread_outlives_the_main_thread(redis_server: RedisServer) -> None:
    """The default executor is shut down then, which would have resolved the name."""
    url = f"redis://localhost:{redis_server.port}/0"
    with Program("-c", _LATE_BLOCK, url) as program:
        assert program.expect("^(kept|lost)$", within=30.0)[0] == "kept"
        assert program.wait(10.0) == 0
    assert redis_server.cli("EXISTS", "{maintenance}:holds") == "0"
