"""Conformance suite for backends: one check per promise, given a factory of instances.

An instance represents a process, and all share one switch, which is off at first. A backend must
refuse what it cannot do with an error of this package, and change nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import permutations
from typing import Final

from ..backends import BaseStateBackend
from ..backends.base import StateChange, SupportsHistory, SupportsLeases
from ..exceptions import BackendError, ReadOnlyBackendError, UnsupportedError
from ..model.evaluate import EffectiveState, evaluate
from ..model.holds import Hold
from ..model.snapshot import Snapshot
from ..model.state import OFF, ON, MaintenanceState

__all__ = ["CHECKS", "MakeBackend"]

MakeBackend = Callable[[], BaseStateBackend]

LEASE: Final = 30.0  # seconds; nothing here waits for it
SLACK: Final = 3.0  # seconds beyond `ttl`, for a busy machine
BRIEF: Final = 2.0  # seconds; long enough to be seen on a machine that stalls

DETAILED: Final = MaintenanceState(
    enabled=True,
    message="Back at 04:00 UTC – zurück um vier",
    reason='OPS-417: "reindex" {all}\n',
    retry_after=120,
    starts_at=datetime(2026, 1, 1, 3, 0, 0, 123456, UTC),
    ends_at=datetime.now(UTC).replace(microsecond=0) + timedelta(days=365),
    mode="read-only",
    by="ana@ops",
)


class Listener:
    """A worker that remembers what it was told."""

    changes_at: float = math.inf

    def __init__(self) -> None:
        self.readings: list[Snapshot] = []
        self.errors: list[BackendError] = []

    def update(self, snapshot: Snapshot, at: float) -> Snapshot:
        assert at <= time.monotonic()
        self.readings.append(snapshot)
        return snapshot

    def fail(self, error: BackendError) -> None:
        self.errors.append(error)

    def shows(self, enabled: bool) -> bool:
        """Return whether the last reading is on, or off; False without any."""
        return self.readings != [] and _meaning(self.readings[-1]).state.enabled is enabled


def _meaning(reading: Snapshot) -> EffectiveState:
    """Evaluate a reading at the time when it was made."""
    return evaluate(reading, reading.now)


async def _is_on(backend: BaseStateBackend) -> bool:
    """Return whether maintenance is on, by switch and holds."""
    return _meaning(await backend.read()).state.enabled


async def _switch_of(backend: BaseStateBackend) -> MaintenanceState | None:
    return (await backend.read()).switch


async def _hold(
    backend: BaseStateBackend,
    id: str,
    state: MaintenanceState = ON,
    lease: float = LEASE,
    lifts: tuple[str, ...] = (),
) -> Hold:
    return await backend.acquire(Hold(id, state, lifts=lifts), lease)


async def _writes(backend: BaseStateBackend, state: MaintenanceState, **options: float) -> bool:
    """Write and return True, or return False if the backend refuses and has changed nothing."""
    before = await backend.read()
    try:
        await backend.write(state, **options)
    except (ReadOnlyBackendError, UnsupportedError):
        after = await backend.read()
        assert (after.switch, after.holds) == (before.switch, before.holds)
        return False
    return True


async def _until(condition: Callable[[], object], within: float) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within:g} s"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def _watching(backend: BaseStateBackend) -> AsyncIterator[Listener]:
    """Yield a listener that a running watch reports to. It must report no error."""
    listener = Listener()
    watch = asyncio.create_task(backend.watch(listener))
    try:
        await _until(lambda: listener.readings, backend.ttl + SLACK)
        yield listener
        assert listener.errors == []
    finally:
        watch.cancel()
        await asyncio.wait([watch])


def _pair(make: MakeBackend) -> tuple[BaseStateBackend, BaseStateBackend]:
    """Return two instances, or one twice if holds end with their process."""
    one = make()
    return one, make() if isinstance(one, SupportsLeases) else one


async def unwritten_switch_is_off(make: MakeBackend) -> None:
    """Report off and no holds before anything is written."""
    backend = make()
    reading = await backend.read()

    assert (reading.switch, reading.holds, reading.error) == (OFF, (), None)
    assert await backend.get_value() is False
    recalled = await backend.last_known()
    assert recalled is None or recalled.switch == OFF


async def write_is_read_by_every_instance(make: MakeBackend) -> None:
    """Show a write at once, to the writing instance and to every other."""
    one, other = make(), make()
    for state in (ON, ON, OFF, OFF, ON):
        if await _writes(one, state):
            for backend in (one, other, make()):
                assert await _switch_of(backend) == state
                assert await backend.get_value() is state.enabled


async def get_value_and_set_value_agree_with_the_switch(make: MakeBackend) -> None:
    """Agree with `read` and `write`; a custom backend has only these two methods."""
    one, other = make(), make()
    for value in (True, False, True):
        try:
            await one.set_value(value)
        except ReadOnlyBackendError:
            value = False
        assert [await one.get_value(), await other.get_value()] == [value, value]
        assert await _switch_of(other) == MaintenanceState(enabled=value)


async def details_are_kept_or_refused(make: MakeBackend) -> None:
    """Keep every detail unchanged, or refuse the write."""
    one, other = make(), make()
    for state in (DETAILED, MaintenanceState(enabled=False, message="open")):
        if await _writes(one, state):
            assert await _switch_of(other) == state


async def invalid_write_is_refused(make: MakeBackend) -> None:
    """Refuse more than 64 KiB, and a time to live that is zero, negative, infinite or NaN."""
    backend = make()
    too_long = MaintenanceState(enabled=True, message="x" * 65_536)
    times_to_live = [(ON, seconds) for seconds in (0.0, -1.0, math.inf, math.nan)]
    for state, expires_in in [(too_long, None), *times_to_live]:
        try:
            await backend.write(state, expires_in=expires_in)
        except (ValueError, BackendError):
            assert await _switch_of(backend) == OFF
        else:
            raise AssertionError(f"not refused: {str(state)[:40]}, {expires_in}")


async def time_to_live_expires_or_is_refused(make: MakeBackend) -> None:
    """Turn off by itself, at a time that readers know beforehand."""
    one, other = make(), make()
    if not await _writes(one, ON, expires_in=BRIEF):
        return
    written = time.monotonic()
    reading = await other.read()
    assert _meaning(reading).state.enabled
    assert 0 < _meaning(reading).until - reading.now <= BRIEF
    await asyncio.sleep(BRIEF + 0.05 - (time.monotonic() - written))
    assert not await _is_on(other)
    assert not evaluate(reading, reading.now + BRIEF).state.enabled

    await one.write(ON)
    assert math.isinf(_meaning(await other.read()).until)


async def last_concurrent_write_wins_everywhere(make: MakeBackend) -> None:
    """Show one whole write to every instance, never a mixture."""
    backends = [make() for _ in range(4)]
    if not await _writes(backends[0], ON):
        return
    await asyncio.gather(*(backend.write(state) for state in (ON, OFF, ON) for backend in backends))
    found = [await _switch_of(backend) for backend in backends]
    assert found[0] in (ON, OFF)
    assert found == found[:1] * 4


async def last_known_state_survives_a_restart(make: MakeBackend) -> None:
    """Offer the written state to a process that starts later, as a fallback."""
    if await _writes(make(), ON):
        recalled = await make().last_known()
        assert recalled is not None
        assert recalled.switch == ON


async def compare_and_set_rejects_stale_reads(make: MakeBackend) -> None:
    """Keep one operator from overwriting another's change."""
    one, other = make(), make()
    seen = await one.read()
    if await _writes(one, ON):
        assert await other.compare_and_set(seen, OFF) is False
        assert await _switch_of(one) == ON
        assert await other.compare_and_set(await other.read(), OFF) is True
        assert await _switch_of(one) == OFF


async def clear_turns_off_and_ends_every_hold(make: MakeBackend) -> None:
    """End holds of other instances too; they cannot be renewed afterwards."""
    one, other = _pair(make)
    held = await _hold(one, "a")
    await _writes(one, ON)
    await other.clear()
    reading = await one.read()
    assert (reading.switch, reading.holds) == (OFF, ())
    assert await one.renew(held, LEASE) is False
    assert not await _is_on(other)
    await one.release(held)
    assert not await _is_on(other)

    again = await _hold(one, "a")
    assert await one.renew(again, LEASE) is True
    assert await _is_on(other)


async def hold_is_active_until_released(make: MakeBackend) -> None:
    """Show a hold with its details; to other instances too if holds are leases."""
    one, other = _pair(make)
    taken = await _hold(one, "a", DETAILED)
    holds = (await other.read()).holds or ()
    assert [(standing.id, standing.state) for standing in holds] == [("a", DETAILED)]
    assert holds[0].since == taken.since > 0
    assert math.isclose(holds[0].deadline, taken.deadline, abs_tol=1e-3)
    assert await _is_on(other)
    assert await _switch_of(other) == OFF

    await one.release(taken)
    assert (await other.read()).holds == ()
    assert not await _is_on(other)


async def overlapping_holds_end_in_any_order(make: MakeBackend) -> None:
    """Stay on while any hold is active."""
    one, other = _pair(make)
    owners = {"a": one, "b": other, "c": one}
    for order in permutations(owners):
        held = {id: await _hold(backend, id) for id, backend in owners.items()}
        for id in order:
            assert [await _is_on(one), await _is_on(other)] == [True, True], order
            await owners[id].release(held[id])
        assert [await _is_on(one), await _is_on(other)] == [False, False], order


async def off_hold_lifts_the_switch_and_named_holds(make: MakeBackend) -> None:
    """Lift no other hold: never open the service while another migration holds it closed."""
    one, other = _pair(make)
    if await _writes(one, ON):
        alone = await _hold(one, "alone", OFF)
        assert not await _is_on(other)
        await one.release(alone)
        assert await _is_on(other)
        await one.write(OFF)

    mine = await _hold(one, "mine")
    opened = await _hold(one, "opened", OFF, lifts=("mine",))
    assert not await _is_on(other)
    theirs = await _hold(other, "theirs")
    assert await _is_on(one)
    nameless = await _hold(one, "nameless", OFF)
    assert await _is_on(other)
    await one.release(nameless)
    await one.release(mine)
    assert await _is_on(one)
    await other.release(theirs)
    assert not await _is_on(other)
    await one.release(opened)
    assert not await _is_on(other)


async def second_release_does_nothing(make: MakeBackend) -> None:
    """Ignore the release of a hold that was released or never acquired."""
    backend = make()
    first, second = await _hold(backend, "a"), await _hold(backend, "b")
    for _ in range(2):
        await backend.release(first)
        await backend.release(Hold("never", ON))
    assert await _is_on(backend)
    await backend.release(second)
    assert not await _is_on(backend)


async def hold_can_be_renewed_repeatedly(make: MakeBackend) -> None:
    """Move only the end of the hold."""
    one, other = _pair(make)
    taken = await _hold(one, "a", DETAILED)
    for _ in range(3):
        assert await one.renew(taken, 2 * LEASE) is True
        (standing,) = (await other.read()).holds or ()
        assert (standing.id, standing.state, standing.since) == (taken.id, taken.state, taken.since)
        assert standing.deadline > taken.deadline or math.isinf(taken.deadline)


async def lease_without_renewal_expires(make: MakeBackend) -> None:
    """End the hold of a dead holder, if holds are leases."""
    one, other = make(), make()
    if not isinstance(one, SupportsLeases):
        return
    await _hold(one, "a", lease=BRIEF)
    reading = await other.read()
    assert _meaning(reading).state.enabled
    assert 0 < _meaning(reading).until - reading.now <= BRIEF
    await asyncio.sleep(BRIEF + 0.05)
    assert not await _is_on(other)


async def release_can_turn_the_switch_on(make: MakeBackend) -> None:
    """Release and turn on in one step, or raise an error."""
    one, other = _pair(make)
    taken, failed = await _hold(one, "a"), MaintenanceState(enabled=True, reason="it failed")
    with suppress(ReadOnlyBackendError):
        await one.release(taken, keep=failed)
        reading = await other.read()
        assert reading.switch in (failed, ON)
        assert reading.holds == ()


async def watch_reports_changes_by_others(make: MakeBackend) -> None:
    """Report a change within `ttl`."""
    one, other = make(), make()
    async with _watching(one) as listener:
        assert listener.shows(False)
        for state in (ON, OFF, ON):
            if await _writes(other, state):
                await _until(partial(listener.shows, state.enabled), one.ttl + SLACK)


async def watch_reports_holds_of_others(make: MakeBackend) -> None:
    """Report leases, including one that expires."""
    one, other = make(), make()
    if not isinstance(one, SupportsLeases):
        return
    async with _watching(one) as listener:
        on, off = partial(listener.shows, True), partial(listener.shows, False)
        taken = await _hold(other, "a")
        await _until(on, one.ttl + SLACK)
        await other.release(taken)
        await _until(off, one.ttl + SLACK)
        lease = one.ttl + BRIEF
        await _hold(other, "b", lease=lease)
        await _until(on, one.ttl + SLACK)
        await _until(off, lease + one.ttl + SLACK)


async def own_change_is_published_at_once(make: MakeBackend) -> None:
    """Publish a change to subscribers before the call returns, watched or not."""
    backend, listener = make(), Listener()
    backend.subscribe(listener)
    if await _writes(backend, ON):
        assert listener.shows(True)
        await backend.clear()
        assert listener.shows(False)
    taken = await _hold(backend, "a")
    assert listener.shows(True)
    await backend.release(taken)
    assert listener.shows(False)


async def cancelled_watch_ends(make: MakeBackend) -> None:
    """End at any moment and leave no task behind."""
    tasks = asyncio.all_tasks()
    for pause in (0.0, 0.0, 0.001, 0.01, 0.05):
        watch = asyncio.create_task(make().watch(Listener()))
        await asyncio.sleep(pause)
        watch.cancel()
        await asyncio.wait([watch], timeout=SLACK)
        assert watch.cancelled()
    await _until(lambda: asyncio.all_tasks() == tasks, SLACK)


async def instance_serves_several_loops_and_threads(make: MakeBackend) -> None:
    """Work in turn and concurrently, as an application, its tests and its scripts do."""
    backend = make()

    async def use(number: int) -> bool:
        await _is_on(backend)
        taken = await _hold(backend, f"thread-{number}")
        held = await _is_on(backend)
        await backend.release(taken)
        async with _watching(backend) as listener:
            return held and bool(listener.readings)

    async def in_a_thread(number: int) -> bool:
        return await asyncio.to_thread(asyncio.run, use(number))

    assert await use(0)
    assert await in_a_thread(1)
    assert await in_a_thread(2)
    assert all(await asyncio.gather(use(3), in_a_thread(4), in_a_thread(5)))
    assert not await _is_on(backend)


async def notification_is_not_repeated(make: MakeBackend) -> None:
    """Notify once per change, and pass on what was notified before."""
    backend = make()
    told: list[tuple[str, str]] = []
    for before, now in (("0", "0"), ("0", "1"), ("0", "1"), ("1", "0"), ("1", "0")):

        async def tell(old: str, now: str = now) -> None:
            told.append((old, now))

        assert await backend.notify_once(StateChange(before, now, time.time()), tell) is True
    assert told == [("0", "1"), ("1", "0")]


async def changes_are_recorded_or_history_is_refused(make: MakeBackend) -> None:
    """Record who changed the switch and holds, oldest first."""
    one, other = make(), make()
    if not isinstance(one, SupportsHistory):
        with suppress(UnsupportedError):
            await one.history()
            raise AssertionError("a backend without SupportsHistory has a history")
        return
    standing = await _hold(one.as_operator("ana"), "a")
    await one.write(ON)
    await one.release(standing)
    await one.as_operator("ben").write(OFF)
    changes = await other.history()
    assert [change.kind for change in changes] == ["taken", "set", "released", "set"]
    assert [change.by for change in changes] == ["ana", None, None, "ben"]
    assert [change.state for change in changes] == [ON, ON, ON, OFF]
    assert await other.history(limit=1) == changes[-1:]


async def description_is_one_stable_line(make: MakeBackend) -> None:
    """Describe every instance alike, for messages."""
    backend = make()

    assert backend.describe() == make().describe()
    assert backend.describe().splitlines() == [backend.describe()]
    assert backend.kind.split() == [backend.kind]
    assert backend.ttl > 0


async def read_without_io_agrees_with_read(make: MakeBackend) -> None:
    """Agree with `read`, if the backend can be read without I/O."""
    backend = make()
    if backend.read_nowait() is not None:
        await _hold(backend, "a")
        peeked = backend.read_nowait()
        assert peeked is not None
        assert _meaning(peeked).state == _meaning(await backend.read()).state


_ASYNC: Final = [*filter(inspect.iscoroutinefunction, globals().values())]
CHECKS: Final = tuple(check for check in _ASYNC if not check.__name__.startswith("_"))
