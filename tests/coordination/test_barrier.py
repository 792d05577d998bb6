"""The barrier: who is waited for, and what is proved when it returns."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fastapi_maintenance import BarrierResult, maintenance_mode_on, wait_until_applied
from fastapi_maintenance.backends import EnvVarBackend, RedisBackend
from fastapi_maintenance.coordination.barrier import Barrier, registered_workers
from fastapi_maintenance.exceptions import (
    BackendUnavailableError,
    ConfigurationError,
    DrainTimeout,
    UnfencedError,
    UnsupportedError,
)
from fastapi_maintenance.model.snapshot import Snapshot
from fastapi_maintenance.model.state import OFF, ON
from fastapi_maintenance.model.workers import ComponentStatus, RegistrySnapshot, Worker
from fastapi_maintenance.runtime.mode import MaintenanceMode

from ..checker.crew import Crew, Nursery, ask_slowly, is_at_work, ready
from ..checker.crew import Worker as Process
from ..conftest import RedisServerFactory
from ..support.registering import register
from ..support.servers import RedisServer
from ..support.waiting import eventually, eventually_sync

# Seconds; a third of what a worker lives that has no time to register, be it because the machine
# stands still.
TTL = 1.0
LIFETIME = 3 * TTL

EPOCH = 100
LIVE = Worker(
    "a",
    pid=1,
    host="h",
    epoch=EPOCH,
    closed=True,
    drained=True,
    fence=2.0,
    lifetime=3.0,
    generation="g",
    known_for=3.0,
)
OVER = 3.0  # seconds after which a worker that has not reported has vanished for good


def roll(*workers: Worker, on: bool = True, generation: str = "g") -> RegistrySnapshot:
    return RegistrySnapshot(
        Snapshot(ON if on else OFF, now=5.0, epoch=EPOCH), generation, workers, lifetime=3.0
    )


def look(*workers: Worker, drained: bool = True, on: bool = True) -> BarrierResult:
    return Barrier(roll(on=on), drained=drained).observe(roll(*workers, on=on), 1.0)


def look_again(
    *workers: Worker, before: Worker = LIVE, drained: bool = True, on: bool = True
) -> BarrierResult:
    """What is to be said of them when they have not reported for a lifetime, seen from here."""
    barrier = Barrier(roll(on=on), drained=drained)
    barrier.observe(roll(before, *workers, on=on), 0.0)
    return barrier.observe(roll(*workers, on=on), OVER)


# -- where a worker stands, without any clock ------------------------------------------------------


def test_a_worker_that_closed_and_finished_is_drained() -> None:
    result = look(LIVE)

    assert result.drained == (LIVE,)
    assert result.ok
    result.check()


def test_a_worker_with_requests_in_flight_has_applied_only() -> None:
    busy = replace(LIVE, drained=False, http=2)

    result = look(busy)

    assert result.applied == result.pending == (busy,)
    assert not result.is_over
    with pytest.raises(DrainTimeout, match=r"1@h \(2 requests\)") as caught:
        result.check()
    assert caught.value.result is result


def test_requests_in_flight_matter_to_a_drain_only() -> None:
    assert look(replace(LIVE, drained=False, http=2), drained=False).ok


def test_a_worker_with_an_older_epoch_is_waited_for() -> None:
    behind = replace(LIVE, epoch=EPOCH - 1)

    result = look(behind, drained=False)

    assert result.waiting == result.pending == (behind,)
    with pytest.raises(DrainTimeout, match="1@h"):
        result.check()


def test_worker_kept_open_by_options_has_not_applied() -> None:
    assert look(replace(LIVE, closed=False)).waiting


def test_after_an_opening_nobody_needs_to_drain() -> None:
    assert look(replace(LIVE, closed=False, drained=False, http=5), on=False).ok


VANISHED = replace(LIVE, vanished=True, epoch=0, closed=False, drained=False)


def test_vanished_worker_fenced_and_drained_is_passed() -> None:
    result = look_again(VANISHED)

    assert result.expired == (replace(LIVE, vanished=True),)
    assert result.unfenced == ()
    assert result.ok


@pytest.mark.parametrize(
    "last",
    [
        replace(LIVE, drained=False, http=1),
        replace(LIVE, epoch=EPOCH - 1),
        replace(LIVE, closed=False),
    ],
)
def test_vanished_worker_is_drained_only_if_it_said_so(last: Worker) -> None:
    """A fence stops no request that was let in before."""
    result = look_again(VANISHED, before=last)

    assert result.unfenced == (replace(last, vanished=True),)
    assert not result.ok
    assert look_again(VANISHED, before=replace(last, fence=2.0), drained=False).unfenced == ()


def test_vanished_worker_without_fence_fails_a_strict_wait() -> None:
    result = look_again(VANISHED, before=replace(LIVE, fence=None))

    assert [worker.id for worker in result.unfenced] == ["a"]
    assert result.is_over
    assert not result.ok
    with pytest.raises(UnfencedError, match=r"1@h.*workers forget"):
        result.check()
    result.check(strict=False)


def test_worker_is_live_until_it_was_silent_for_a_lifetime_here() -> None:
    """Whatever any other clock says: the report may be gone because a clock was set."""
    barrier = Barrier(roll(), drained=True)
    barrier.observe(roll(LIVE), 0.0)

    assert barrier.observe(roll(VANISHED), OVER - 0.1).drained
    assert barrier.observe(roll(VANISHED), OVER).expired
    assert barrier.observe(roll(replace(LIVE, sequence=1)), OVER).drained


def test_worker_with_a_report_that_never_changes_has_vanished() -> None:
    assert look_again(LIVE).expired == (LIVE,)


def test_worker_that_left_or_is_proved_gone_counts_for_nothing() -> None:
    barrier = Barrier(roll(), drained=True)
    barrier.observe(roll(LIVE, replace(LIVE, id="b", closed=False)), 0.0)

    result = barrier.observe(roll(LIVE), 1.0)

    assert result.ok
    assert (len(result.drained), result.expired) == (1, ())


def test_empty_registry_proves_nothing_unless_expected() -> None:
    result = look_again(before=LIVE)

    assert result.is_over
    assert not result.ok
    with pytest.raises(UnfencedError, match="--expect 0"):
        result.check(strict=False)
    empty = Barrier(roll(), drained=True, expect=0)
    assert not empty.observe(roll(), 0.0).ok, "the registry may be young"
    assert empty.observe(roll(), OVER).ok


def test_expected_number_of_workers_is_waited_for() -> None:
    barrier = Barrier(roll(), drained=True, expect=2)

    result = barrier.observe(roll(LIVE), 1.0)
    assert not result.is_over
    with pytest.raises(DrainTimeout, match="Expected workers: 2; registered: 1"):
        result.check()
    assert barrier.observe(roll(LIVE, replace(LIVE, id="b")), 1.0).ok
    assert not barrier.observe(
        roll(LIVE, replace(LIVE, id="b"), replace(LIVE, id="c")), 1.0
    ).is_over


@pytest.mark.parametrize(
    "known",
    [
        replace(LIVE, known_for=2.9),
        replace(LIVE, generation="before"),
        replace(LIVE, epoch=EPOCH - 1, known_for=99.0),
    ],
)
def test_young_registry_is_trusted_after_a_lifetime(known: Worker) -> None:
    """Only a worker that reports after the barrier began says how long this registry has stood."""
    barrier = Barrier(roll(), drained=True)
    assert barrier.observe(roll(known), 0.0).trusted_in == OVER
    seen = replace(known, epoch=EPOCH, generation="before", sequence=1)

    result = barrier.observe(roll(seen), OVER - 0.5)
    assert 0 < result.trusted_in <= 0.5
    assert not result.is_over
    with pytest.raises(DrainTimeout, match="try again"):
        result.check()
    assert barrier.observe(roll(seen), OVER).ok


def test_fence_after_a_takeover_is_waited_for_longer() -> None:
    """A former owner may have served the worker until it noticed that it was cut off."""
    gone = replace(LIVE, id="b", vanished=True, epoch=0, known_for=99.0)
    for known_for, wait in ((3.0, OVER + 5.0), (8.0, OVER)):
        live = replace(LIVE, known_for=known_for)
        barrier = Barrier(roll(), drained=False)
        rolls = [
            replace(roll(replace(live, sequence=number), gone), settling=5.0) for number in range(3)
        ]
        barrier.observe(rolls[0], 0.0)
        assert not barrier.observe(rolls[1], wait - 0.1).is_over
        assert barrier.observe(rolls[2], wait).ok


def test_registry_of_another_generation_is_waited_for_again() -> None:
    barrier = Barrier(roll(), drained=True)
    barrier.observe(roll(LIVE), 0.0)

    result = barrier.observe(roll(replace(LIVE, sequence=1), generation="other"), 5.0)

    assert result.trusted_in == OVER
    assert not result.ok


def test_a_worker_that_came_later_is_named_and_waited_for() -> None:
    barrier = Barrier(roll(LIVE), drained=True)
    newcomer = replace(LIVE, id="b", epoch=0)

    result = barrier.observe(roll(LIVE, newcomer), 1.0)

    assert result.joined == result.waiting == (newcomer,)


def test_worker_missing_from_another_generation_is_waited_for() -> None:
    """After a FLUSHALL the registry is empty: that must not look like everybody having left."""
    barrier = Barrier(roll(LIVE), drained=True)
    barrier.observe(roll(behind := replace(LIVE, epoch=0)), 0.0)

    assert barrier.observe(roll(generation="other"), 1.0).waiting
    assert barrier.observe(roll(generation="other"), OVER).expired == (behind,)


def look_at_billing(*workers: Worker) -> BarrierResult:
    return Barrier(roll(), drained=True, component="billing").observe(roll(*workers), 1.0)


def test_worker_without_the_component_is_no_obstacle() -> None:
    open_there = replace(LIVE, id="b", components={"billing": ComponentStatus(closed=False)})
    busy_there = replace(LIVE, id="c", components={"billing": ComponentStatus(closed=True, http=1)})
    without = replace(LIVE, closed=False, drained=False, http=5)

    result = look_at_billing(without, open_there, busy_there)

    assert [
        [worker.id for worker in group]
        for group in (result.drained, result.applied, result.waiting)
    ] == [["a"], ["c"], ["b"]]


def test_a_scope_that_nobody_has_is_not_proved_closed_by_anybody() -> None:
    result = look_at_billing(
        LIVE,
        replace(LIVE, id="b", components={"search": ComponentStatus(closed=True, drained=True)}),
    )

    assert [worker.id for worker in result.waiting] == ["a", "b"]
    assert not result.ok


def test_nothing_is_proved_before_the_registry_was_read() -> None:
    result = BarrierResult()

    assert not result.is_over
    with pytest.raises(DrainTimeout, match="could not be read"):
        result.check()


# -- against a real server -------------------------------------------------------------------------


@pytest.fixture
def backend(redis_url: str) -> RedisBackend:
    return RedisBackend(redis_url, ttl=TTL)


async def test_only_redis_has_a_registry() -> None:
    with pytest.raises(UnsupportedError, match="needs Redis"):
        await wait_until_applied(EnvVarBackend())
    with pytest.raises(UnsupportedError):
        await registered_workers(EnvVarBackend())


@pytest.mark.every_redis
async def test_a_server_that_permits_no_scripts_has_none_either(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    server.cli("ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-eval", "-evalsha")

    with pytest.raises(UnsupportedError, match="permit"):
        await wait_until_applied(server.url_of("plain", "secret"), timeout=5)


async def test_a_timeout_must_be_positive(backend: RedisBackend) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        await wait_until_applied(backend, timeout=0)


@pytest.mark.every_redis
async def test_wait_without_workers_proves_nothing_unless_expected(backend: RedisBackend) -> None:
    """As with a mistyped key: all workers serve, and none of them is seen."""
    result, none = await asyncio.gather(
        wait_until_applied(backend), wait_until_applied(backend, expect=0)
    )

    assert not result.ok
    with pytest.raises(UnfencedError, match="No worker is registered"):
        result.check(strict=False)
    assert none.ok
    assert min(result.elapsed, none.elapsed) > LIFETIME - 0.1, (
        "there may be workers that a lost registry does not know of"
    )


@pytest.mark.every_redis
@pytest.mark.parametrize("on", [True, False])
async def test_it_works_after_a_bare_set_and_after_a_del(
    on: bool, backend: RedisBackend, redis_server: RedisServer
) -> None:
    if not on:
        redis_server.cli("SET", "maintenance", "1")
    async with MaintenanceMode(backend) as mode:
        await redis_server.acli(*(("SET", "maintenance", "1") if on else ("DEL", "maintenance")))

        result = await wait_until_applied(backend, drained=True, timeout=20)

        assert result.ok
        assert result.state.enabled is on
        assert (mode.gate.closure is not None) is on
        (worker,) = await registered_workers(backend)
        assert (worker.delivery, worker.fence) == ("tracking", None)
        assert worker.lifetime == pytest.approx(LIFETIME)
    assert await registered_workers(backend) == ()


@pytest.mark.every_redis
async def test_progress_is_told_of_every_change_and_of_nothing_else(
    backend: RedisBackend, redis_server: RedisServer
) -> None:
    seen: list[BarrierResult] = []
    register(redis_server, "x", epoch=0)
    waiting = asyncio.create_task(wait_until_applied(backend, timeout=20, progress=seen.append))
    await eventually(lambda: seen, within=30)
    await asyncio.sleep(0.5)  # in which it looks again and again
    register(redis_server, "x", epoch=10**17)
    result = await waiting

    assert [(len(told.waiting), len(told.drained)) for told in seen] == [(1, 0), (0, 1)]
    assert seen[-1] == result


@pytest.mark.every_redis
async def test_two_barriers_at_once_both_end(
    backend: RedisBackend, redis_server: RedisServer
) -> None:
    async with MaintenanceMode(backend):
        redis_server.cli("SET", "maintenance", "1")

        results = await asyncio.gather(
            *(wait_until_applied(backend, drained=True, timeout=20) for _ in range(3))
        )

    assert all(result.ok for result in results)


@pytest.mark.every_redis
async def test_a_flushall_in_the_middle_does_not_confuse_it(
    backend: RedisBackend, redis_server: RedisServer
) -> None:
    """The state is put back, the worker registers again, and only then is it proved."""
    redis_server.cli("SET", "maintenance", "1")
    async with MaintenanceMode(backend) as mode:
        waiting = asyncio.create_task(wait_until_applied(backend, drained=True, timeout=20))
        await asyncio.sleep(0.005)
        await redis_server.acli("FLUSHALL")
        result = await waiting

        assert result.ok
        assert result.state.enabled
        assert len(result.drained) == 1
        assert mode.gate.closure is not None


@pytest.mark.every_redis
async def test_it_begins_anew_where_the_epoch_went_back(
    backend: RedisBackend, redis_server: RedisServer
) -> None:
    """As after a failover to a server whose clock is behind: the old epoch would never
    be reached.
    """
    calls = 0

    class Rewound(RedisBackend):
        async def read_registry(self) -> RegistrySnapshot:
            nonlocal calls
            calls += 1
            if calls == 1:
                await redis_server.acli("SET", "{maintenance}:epoch", "5 5 0 0 0")
            epoch = int((await redis_server.acli("GET", "{maintenance}:epoch")).split()[0])
            await asyncio.to_thread(register, redis_server, "x", epoch=epoch)
            return await super().read_registry()

    result = await wait_until_applied(Rewound(redis_server.url), timeout=10)

    assert calls > 1
    assert result.ok


async def test_unreachable_server_is_retried_until_the_timeout(free_port: int) -> None:
    started = time.monotonic()

    result = await wait_until_applied(RedisBackend(f"redis://127.0.0.1:{free_port}"), timeout=0.3)

    assert not result.looked
    assert 0.1 < time.monotonic() - started < 15


async def test_server_lost_in_the_middle_is_named_with_pending(
    own_redis_server: RedisServerFactory,
) -> None:
    server = own_redis_server()
    register(server, "x", pid=4711, host="web-1")

    looked = asyncio.Event()

    waiting = asyncio.create_task(
        wait_until_applied(server.url, timeout=3, progress=lambda result: looked.set())
    )
    await looked.wait()
    await asyncio.to_thread(server.kill)
    result = await waiting

    assert result.looked
    assert result.elapsed > 2.5, "not only until it was lost"
    with pytest.raises(
        DrainTimeout,
        match=r"still waited for: 4711@web-1\. The registry cannot be read any more: .* cannot be "
        r"reached",
    ):
        result.check()


async def test_a_last_look_for_which_there_was_no_time_is_no_outage(
    redis_server: RedisServer,
) -> None:
    class Slower(RedisBackend):
        async def read_registry(self) -> RegistrySnapshot:
            await asyncio.sleep(60)
            return await super().read_registry()

    register(redis_server, "x", pid=4711, host="web-1")
    for timeout, told in ((0.9, False), (2.0, True)):
        result = await wait_until_applied(Slower(redis_server.url), timeout=timeout)

        assert result.looked
        assert bool(result.trouble) is told
        with pytest.raises(DrainTimeout, match="still waited for: 4711@web-1"):
            result.check()


async def test_the_registry_of_an_unreachable_server_cannot_be_listed(free_port: int) -> None:
    with pytest.raises(BackendUnavailableError):
        await registered_workers(f"redis://127.0.0.1:{free_port}")


# -- real worker processes -------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def nursery() -> AsyncIterator[Nursery]:
    async with Nursery() as nursery:
        yield nursery


@pytest.mark.timeout(120)
@pytest.mark.parametrize("policy", ["closed", "last-known"])
async def test_every_worker_is_classified_rightly(
    policy: str, nursery: Nursery, own_redis_server: RedisServerFactory, tmp_path: Path
) -> None:
    """One paused, one killed, one with a request in flight, one starting while it waits, one
    leaving in order.
    """
    server = own_redis_server()
    url = f"{server.url}?ttl={TTL}"
    async with Crew(nursery, url, tmp_path, stale_after=2 * TTL, policy=policy) as crew:
        paused, killed, busy, leaving = [await crew.start() for _ in range(4)]
        for worker in crew.workers:
            await ready(worker)
        started, end = time.monotonic(), tmp_path / "end"
        slow = asyncio.create_task(ask_slowly(busy, 60.0, end))
        await eventually(lambda: is_at_work(busy, url), within=30)
        paused.signal(signal.SIGSTOP)
        killed.signal(signal.SIGKILL)
        leaving.signal(signal.SIGTERM)
        await server.acli("SET", "maintenance", "1")

        begun, seen = time.monotonic(), list[BarrierResult]()
        barrier = asyncio.create_task(
            wait_until_applied(url, drained=True, timeout=55, progress=seen.append)
        )
        await eventually(lambda: seen, within=30)
        newcomer = await crew.start()
        await eventually(lambda: [each.pid for each in seen[-1].joined], within=30)
        ended = time.monotonic()
        end.touch()
        result = await barrier
        await slow
        assert time.monotonic() - started < 60, "it was not waited for to the end of its time"

        assert {worker.pid for worker in result.drained} == {busy.pid, newcomer.pid}
        assert {worker.pid for worker in result.expired} == {paused.pid}, (
            "the other one is proved gone by a sibling"
        )
        assert {worker.pid for worker in result.joined} == {newcomer.pid}
        assert result.applied == result.waiting == ()
        assert result.state.enabled
        assert any(
            answer.status == 200 and answer.sent < begun and answer.received >= ended
            for answer in busy.answers
        )
        assert {worker.pid for worker in result.unfenced} == {paused.pid}, (
            "what it had let in is not known"
        )
        assert not result.ok
        undrained = await wait_until_applied(url, timeout=30)
        assert undrained.ok is (policy == "closed")
        if policy == "closed":
            await _first_answer_after_waking_is_503(paused)


async def _first_answer_after_waking_is_503(paused: Process) -> None:
    seen, woken = len(paused.answers), time.monotonic()
    fresh = asyncio.create_task(_ask_first(paused))
    await asyncio.sleep(0.05)
    paused.signal(signal.SIGCONT)
    await fresh
    # A request that it had read before it was paused may be answered late; one that it reads now is
    # refused.
    late = [answer for answer in paused.answers[seen:] if answer.sent >= woken]
    assert late
    assert {answer.status for answer in late} == {503}


async def _ask_first(paused: Process) -> None:
    count = len(paused.answers)
    await ask_slowly(paused, 0.0)
    assert len(paused.answers) > count


async def test_a_block_with_drain_runs_only_when_everybody_is_done(
    nursery: Nursery, own_redis_server: RedisServerFactory, tmp_path: Path
) -> None:
    server = own_redis_server()
    url = f"{server.url}?ttl={TTL}"
    async with Crew(nursery, url, tmp_path, stale_after=2 * TTL) as crew:
        workers = [await crew.start() for _ in range(2)]
        for worker in workers:
            await ready(worker)
        slow = asyncio.create_task(ask_slowly(workers[0], 10.0))
        await eventually(lambda: is_at_work(workers[0], url), within=30)

        async with maintenance_mode_on(url, drain=30):
            await asyncio.wait_for(slow, 4)
            began = time.monotonic()
            inside = await eventually(
                lambda: [a for worker in workers for a in worker.answers if a.sent >= began],
                within=30,
            )

        assert {answer.status for answer in inside} == {503}


@pytest.mark.parametrize("on_error", ["release", "keep"])
async def test_a_block_that_cannot_drain_is_not_run(
    on_error: str, redis_server: RedisServer, redis_url: str
) -> None:
    """`DrainTimeout` names the laggards; the hold is released, or kept as asked."""
    register(redis_server, "x", pid=4711, host="web-1")
    ran = False

    with pytest.raises(DrainTimeout, match="4711@web-1"):
        async with maintenance_mode_on(redis_url, drain=2, on_error=on_error, reason="reindex"):  # type: ignore[arg-type]
            ran = True

    assert not ran
    assert redis_server.cli("HLEN", "{maintenance}:holds") == "0"
    kept = redis_server.cli("GET", "maintenance")
    assert ("reindex: DrainTimeout" in kept) is (on_error == "keep")


def test_a_synchronous_block_drains_too(redis_server: RedisServer, redis_url: str) -> None:
    register(redis_server, "x", epoch=10**17, closed=True, drained=True)
    with maintenance_mode_on(redis_url, drain=20):
        assert redis_server.cli("HLEN", "{maintenance}:holds") == "1"
    register(redis_server, "x", pid=4711)

    with pytest.raises(DrainTimeout, match="4711"), maintenance_mode_on(redis_url, drain=2):
        raise AssertionError("the block must not run")

    assert redis_server.cli("HLEN", "{maintenance}:holds") == "0"


def test_ctrl_c_ends_the_wait_of_a_synchronous_block_at_once(
    redis_server: RedisServer, redis_url: str
) -> None:
    register(redis_server, "x", pid=4711)
    started, main = time.monotonic(), threading.get_ident()

    def interrupt() -> None:
        eventually_sync(lambda: redis_server.cli("HLEN", "{maintenance}:holds") == "1", within=30)
        time.sleep(0.3)  # until it waits for the worker
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt), maintenance_mode_on(redis_url, drain=50):
        raise AssertionError("the block must not run")

    assert time.monotonic() - started < 40
    eventually_sync(lambda: redis_server.cli("HLEN", "{maintenance}:holds") == "0", within=30)


async def test_block_beside_an_unfenced_worker_is_refused(
    redis_server: RedisServer, redis_url: str
) -> None:
    register(redis_server, "x", pid=4711, host="web-1", lifetime=0.0, reports=False)

    with pytest.raises(UnfencedError, match="4711@web-1"):
        async with maintenance_mode_on(redis_url, drain=10):
            raise AssertionError("the block must not run")
    async with maintenance_mode_on(redis_url, drain=10, strict=False) as block:
        assert not block.lost


async def test_wait_cancelled_as_a_poll_ends_is_over(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Python 3.12, `asyncio.wait_for` swallows a cancellation at that moment."""
    begin = RedisBackend.begin_barrier

    async def begin_and_cancel(backend: RedisBackend) -> RegistrySnapshot:
        registry = await begin(backend)
        waiting.cancel()
        return registry

    monkeypatch.setattr(RedisBackend, "begin_barrier", begin_and_cancel)
    waiting = asyncio.create_task(wait_until_applied(redis_url, expect=1, timeout=30))

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(waiting), 10)
    assert waiting.cancelled()
