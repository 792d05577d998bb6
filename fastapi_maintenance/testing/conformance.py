"""What every backend promises: one function each, given a function that makes another instance for the same switch.

An instance stands for a process, so what one writes the other must see. The switch is off to begin with. What a backend cannot
do, it must refuse with an error of this package, and then nothing may have changed.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any, Final

from ..backends import BaseStateBackend
from ..backends.base import News
from ..exceptions import BackendError, ConfigurationError, ReadOnlyBackendError, UnsupportedError
from ..snapshot import Effective, Hold, Reading, evaluate
from ..state import OFF, ON, MaintenanceState

__all__ = ["CHECKS", "MakeBackend"]

MakeBackend = Callable[[], BaseStateBackend]

LEASE: Final = 30.0  # seconds; nothing here waits for it
SLACK: Final = 3.0  # seconds beyond `ttl`, for a busy machine
BRIEF: Final = 2.0  # seconds; of what is to be seen before it ends by itself, also by a machine that stands still for a moment

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
    """A worker's place: remembers what it was told."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.errors: list[BackendError] = []

    def update(self, reading: Reading, at: float) -> None:
        assert at <= time.monotonic()
        self.readings.append(reading)

    def confirm(self, at: float) -> None:
        assert self.readings
        assert at <= time.monotonic()

    def fail(self, error: BackendError) -> None:
        self.errors.append(error)

    def report(self) -> Mapping[str, Any]:
        return {"pid": 1}

    def is_on(self) -> bool:
        return bool(self.readings) and meaning(self.readings[-1]).state.enabled

    def is_off(self) -> bool:
        return bool(self.readings) and not meaning(self.readings[-1]).state.enabled


def meaning(reading: Reading) -> Effective:
    """What a reading said when it was made."""
    return evaluate(reading, reading.now)


async def is_on(backend: BaseStateBackend) -> bool:
    """Whether maintenance is on by switch and holds together."""
    return meaning(await backend.read()).state.enabled


async def writes(backend: BaseStateBackend, state: MaintenanceState, **options: float) -> bool:
    """Write, or find out that the backend clearly refuses and that nothing has changed."""
    before = await backend.read()
    try:
        await backend.write(state, **options)
    except (ReadOnlyBackendError, UnsupportedError):
        after = await backend.read()
        assert (after.switch, after.holds) == (before.switch, before.holds), "a refused write has changed something"
        return False
    return True


def only(holds: tuple[Hold, ...] | None) -> Hold:
    """The one hold there must be."""
    assert holds is not None
    assert len(holds) == 1, holds
    return holds[0]


async def until(condition: Callable[[], object], within: float) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within:g} s"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def watching(backend: BaseStateBackend) -> AsyncIterator[Listener]:
    """A listener that is told by a running watch."""
    listener = Listener()
    watch = asyncio.create_task(backend.watch(listener))
    try:
        await until(lambda: listener.readings, backend.ttl + SLACK)
        yield listener
    finally:
        watch.cancel()
        await asyncio.wait([watch])


def hold(id: str, state: MaintenanceState = ON, lifts: tuple[str, ...] = ()) -> Hold:
    return Hold(id, state, lifts=lifts)


# -- the switch ----------------------------------------------------------------------------------------------------------


async def nothing_is_off(make: MakeBackend) -> None:
    """Where nothing was ever written, the switch is off and nobody holds anything."""
    backend = make()
    reading = await backend.read()

    assert (reading.switch, reading.holds, reading.error) == (OFF, (), None)
    assert await backend.get_value() is False
    recalled = await backend.recall()
    assert recalled is None or recalled.switch == OFF


async def what_is_written_is_read_by_everybody(make: MakeBackend) -> None:
    """At once, by the instance that wrote it and by every other."""
    one, other = make(), make()
    for state in (ON, ON, OFF, OFF, ON):
        if not await writes(one, state):
            return
        for backend in (one, other, make()):
            assert (await backend.read()).switch == state
            assert await backend.get_value() is state.enabled


async def the_two_methods_of_the_modelled_package_work(make: MakeBackend) -> None:
    """`get_value` and `set_value`, which is all that a backend of a user's own has."""
    one, other = make(), make()
    for value in (True, False, True):
        try:
            await one.set_value(value)
        except ReadOnlyBackendError:
            assert await one.get_value() is False
            return
        assert await one.get_value() is value
        assert await other.get_value() is value
        assert (await other.read()).switch == MaintenanceState(enabled=value)


async def details_are_kept_or_refused(make: MakeBackend) -> None:
    """All of them, to the letter."""
    one, other = make(), make()
    for state in (DETAILED, MaintenanceState(enabled=False, message="open"), MaintenanceState(enabled=True, mode="read-only")):
        if await writes(one, state):
            assert (await other.read()).switch == state


async def a_state_that_is_too_long_is_refused(make: MakeBackend) -> None:
    """Beyond 64 KiB, which every worker would have to read."""
    backend = make()
    try:
        await backend.write(MaintenanceState(enabled=True, message="x" * 65_536))
    except (ValueError, BackendError):
        assert (await backend.read()).switch == OFF
    else:
        raise AssertionError("it was not refused")


async def a_time_to_live_ends_or_is_refused(make: MakeBackend) -> None:
    """By itself, at the time that is known beforehand."""
    one, other = make(), make()
    if not await writes(one, ON, expires_in=BRIEF):
        return
    written = time.monotonic()
    reading = await other.read()
    assert meaning(reading).state.enabled
    assert 0 < meaning(reading).until - reading.now <= BRIEF
    await asyncio.sleep(BRIEF + 0.05 - (time.monotonic() - written))
    assert not await is_on(other)
    assert not evaluate(reading, reading.now + BRIEF).state.enabled

    await one.write(ON)
    assert math.isinf(meaning(await other.read()).until)


async def a_time_to_live_that_is_none_is_refused(make: MakeBackend) -> None:
    """Zero, negative, endless and no number."""
    backend = make()
    for seconds in (0.0, -1.0, math.inf, math.nan):
        try:
            await backend.write(ON, expires_in=seconds)
        except (ConfigurationError, BackendError):
            assert (await backend.read()).switch == OFF
        else:
            raise AssertionError(f"{seconds} was not refused")


async def the_last_of_many_writes_counts_for_everybody(make: MakeBackend) -> None:
    """Whoever wrote last; and nobody reads half of anything."""
    backends = [make() for _ in range(4)]
    if not await writes(backends[0], ON):
        return
    await asyncio.gather(*(backend.write(ON if number % 2 else OFF) for number, backend in enumerate(backends * 3)))
    readings = [(await backend.read()).switch for backend in backends]
    assert readings[0] in (ON, OFF)
    assert readings.count(readings[0]) == len(readings)


async def what_was_written_is_recalled(make: MakeBackend) -> None:
    """As a fallback, by a process that starts later."""
    if await writes(make(), ON):
        recalled = await make().recall()
        assert recalled is not None
        assert recalled.switch == ON


async def only_who_has_seen_it_as_it_is_exchanges_the_switch(make: MakeBackend) -> None:
    """So that of two operators none overwrites what the other has written."""
    one, other = make(), make()
    seen = await one.read()
    if not await writes(one, ON):
        return
    assert await other.exchange(seen, OFF) is False
    assert (await one.read()).switch == ON
    assert await other.exchange(await other.read(), OFF) is True
    assert (await one.read()).switch == OFF


async def clearing_turns_off_and_ends_every_hold(make: MakeBackend) -> None:
    """Whoever has it; and it cannot be renewed."""
    one = make()
    other = make() if one.leased else one
    held = await one.acquire(hold("a"), LEASE)
    await writes(one, ON)
    await other.clear()

    reading = await one.read()
    assert (reading.switch, reading.holds) == (OFF, ())
    assert await one.renew(held, LEASE) is False
    assert not await is_on(other)
    await one.release(held)
    assert not await is_on(other)

    again = await one.acquire(hold("a"), LEASE)
    assert await one.renew(again, LEASE) is True
    assert await is_on(other)


# -- holds ---------------------------------------------------------------------------------------------------------------


async def a_hold_stands_until_it_is_released(make: MakeBackend) -> None:
    """For this process at least; where holds are leases, for everybody, with its details."""
    one = make()
    other = make() if one.leased else one
    taken = await one.acquire(hold("a", DETAILED), LEASE)

    standing = only((await other.read()).holds)
    assert (standing.id, standing.state) == ("a", DETAILED)
    assert standing.since == taken.since > 0
    assert math.isclose(standing.deadline, taken.deadline, abs_tol=1e-3) or standing.deadline == taken.deadline
    assert await is_on(other)
    assert (await other.read()).switch == OFF

    await one.release(taken)
    assert (await other.read()).holds == ()
    assert not await is_on(other)


async def holds_overlap_in_any_order_of_release(make: MakeBackend) -> None:
    """It is on while any of them stands."""
    one = make()
    other = make() if one.leased else one
    for order in _orders():
        held: dict[str, Hold] = {}
        for step in order:
            event, id = step[0], step[1]
            backend = one if id != "b" else other
            if event == "+":
                held[id] = await backend.acquire(hold(id), LEASE)
            else:
                await backend.release(held.pop(id))
            assert await is_on(one) is bool(held), order
            assert await is_on(other) is bool(held), order


def _orders() -> Iterator[tuple[str, ...]]:
    """Two holds taken and released in every order, and three released in every order."""
    for order in permutations(["+a", "-a", "+b", "-b"]):
        if order.index("+a") < order.index("-a") and order.index("+b") < order.index("-b"):
            yield order
    for releases in permutations(["-a", "-b", "-c"]):
        yield ("+a", "+b", "+c", *releases)


async def an_off_hold_lifts_the_switch_and_what_it_names(make: MakeBackend) -> None:
    """And never somebody else's hold."""
    one = make()
    other = make() if one.leased else one
    if await writes(one, ON):
        alone = await one.acquire(hold("alone", OFF), LEASE)
        assert not await is_on(other)
        await one.release(alone)
        assert await is_on(other)
        await one.write(OFF)

    mine = await one.acquire(hold("mine"), LEASE)
    opened = await one.acquire(hold("opened", OFF, lifts=("mine",)), LEASE)
    assert not await is_on(other)
    theirs = await other.acquire(hold("theirs"), LEASE)
    assert await is_on(one)
    await one.release(mine)
    assert await is_on(one)
    await other.release(theirs)
    assert not await is_on(other)
    await one.release(opened)
    assert not await is_on(other)


async def an_off_hold_that_names_nothing_lifts_no_hold(make: MakeBackend) -> None:
    """Opening the service under another's migration must be impossible."""
    backend = make()
    await backend.acquire(hold("theirs"), LEASE)
    await backend.acquire(hold("mine", OFF), LEASE)

    assert await is_on(backend)


async def releasing_twice_does_nothing(make: MakeBackend) -> None:
    """Nor does releasing what was never taken."""
    backend = make()
    first = await backend.acquire(hold("a"), LEASE)
    second = await backend.acquire(hold("b"), LEASE)
    for _ in range(2):
        await backend.release(first)
        await backend.release(hold("never"))
    assert await is_on(backend)
    await backend.release(second)
    assert not await is_on(backend)


async def a_hold_can_be_renewed_as_often_as_wanted(make: MakeBackend) -> None:
    """It stays the same hold, with a later end."""
    one = make()
    other = make() if one.leased else one
    taken = await one.acquire(hold("a", DETAILED), LEASE)
    for _ in range(3):
        assert await one.renew(taken, 2 * LEASE) is True
        standing = only((await other.read()).holds)
        assert (standing.id, standing.state, standing.since) == (taken.id, taken.state, taken.since)
        assert standing.deadline > taken.deadline or math.isinf(taken.deadline)


async def a_lease_that_is_not_renewed_ends(make: MakeBackend) -> None:
    """As when its holder died; where holds live in the process, they die with that."""
    one, other = make(), make()
    if not one.leased:
        return
    await one.acquire(hold("a"), BRIEF)
    reading = await other.read()
    assert meaning(reading).state.enabled
    assert 0 < meaning(reading).until - reading.now <= BRIEF
    await asyncio.sleep(BRIEF + 0.05)
    assert not await is_on(other)


async def a_failed_block_can_keep_the_switch_on(make: MakeBackend) -> None:
    """In the same step as its release; with as many of the details as the backend can keep, or with an error."""
    one = make()
    other = make() if one.leased else one
    taken = await one.acquire(hold("a"), LEASE)
    try:
        await one.release(taken, keep=MaintenanceState(enabled=True, reason="it failed"))
    except ReadOnlyBackendError:
        return
    reading = await other.read()
    assert reading.switch in (MaintenanceState(enabled=True, reason="it failed"), ON)
    assert reading.holds == ()


# -- watching ------------------------------------------------------------------------------------------------------------


async def a_watch_hears_of_what_others_change(make: MakeBackend) -> None:
    """Within `ttl`."""
    one, other = make(), make()
    async with watching(one) as listener:
        assert listener.is_off()
        for state in (ON, OFF, ON):
            if not await writes(other, state):
                return
            await until(listener.is_on if state.enabled else listener.is_off, one.ttl + SLACK)
        assert listener.errors == []


async def a_watch_hears_of_the_holds_of_others(make: MakeBackend) -> None:
    """Where holds are leases; also of one that ends by itself."""
    one, other = make(), make()
    if not one.leased:
        return
    async with watching(one) as listener:
        taken = await other.acquire(hold("a"), LEASE)
        await until(listener.is_on, one.ttl + SLACK)
        await other.release(taken)
        await until(listener.is_off, one.ttl + SLACK)
        lease = one.ttl + BRIEF
        await other.acquire(hold("b"), lease)
        await until(listener.is_on, one.ttl + SLACK)
        await until(listener.is_off, lease + one.ttl + SLACK)
        assert listener.errors == []


async def what_an_instance_changes_its_own_workers_know_at_once(make: MakeBackend) -> None:
    """Before the change returns, and whether anything is watched or not."""
    backend = make()
    listener = Listener()
    backend.attach(listener)
    if await writes(backend, ON):
        assert listener.is_on()
        await backend.clear()
        assert listener.is_off()
    taken = await backend.acquire(hold("a"), LEASE)
    assert listener.is_on()
    await backend.release(taken)
    assert listener.is_off()


async def a_watch_that_is_cancelled_ends(make: MakeBackend) -> None:
    """At whatever moment, and leaves no task behind."""
    tasks = asyncio.all_tasks()
    for pause in (0.0, 0.0, 0.001, 0.01, 0.05):
        watch = asyncio.create_task(make().watch(Listener()))
        await asyncio.sleep(pause)
        watch.cancel()
        await asyncio.wait([watch], timeout=SLACK)
        assert watch.cancelled()
    await until(lambda: asyncio.all_tasks() == tasks, SLACK)


async def one_instance_serves_several_loops_and_threads(make: MakeBackend) -> None:
    """One after the other and at the same time: an application, its tests and its scripts share one."""
    backend = make()

    async def use(number: int) -> bool:
        await is_on(backend)
        taken = await backend.acquire(hold(f"thread-{number}"), LEASE)
        held = await is_on(backend)
        await backend.release(taken)
        async with watching(backend) as listener:
            return held and bool(listener.readings)

    async def in_a_thread(number: int) -> bool:
        return await asyncio.to_thread(asyncio.run, use(number))

    assert await use(0)
    assert await in_a_thread(1)
    assert await in_a_thread(2)
    assert all(await asyncio.gather(use(3), in_a_thread(4), in_a_thread(5)))
    assert not await is_on(backend)


async def what_was_told_is_not_told_again(make: MakeBackend) -> None:
    """Nothing is told before something changes; and whoever tells hears what was told before."""
    backend = make()
    told: list[tuple[str, str]] = []
    for before, now in (("0", "0"), ("0", "1"), ("0", "1"), ("1", "0"), ("1", "0")):

        async def tell(old: str, now: str = now) -> None:
            told.append((old, now))

        assert await backend.tell_once(News(before, now, time.time()), tell) is True
    assert told == [("0", "1"), ("1", "0")]


async def what_changes_is_recorded_or_that_is_refused(make: MakeBackend) -> None:
    """Who changed switch and holds, oldest first, for everybody; or there is no history."""
    one, other = make(), make()
    if not one.recorded:
        try:
            await one.history()
        except UnsupportedError:
            return
        raise AssertionError("a backend that records nothing has a history")
    standing = await one.signed("ana").acquire(hold("a"), LEASE)
    await one.write(ON)
    await one.release(standing)
    await one.signed("ben").write(OFF)
    changes = await other.history()
    assert [(change.kind, change.by) for change in changes] == [("taken", "ana"), ("set", None), ("released", None), ("set", "ben")]
    assert [change.state for change in changes] == [ON, ON, ON, OFF]
    assert await other.history(limit=1) == changes[-1:]


# -- what is shown -------------------------------------------------------------------------------------------------------


async def it_has_a_name_for_messages(make: MakeBackend) -> None:
    """One line, the same for each instance; and one word for where a state comes from."""
    backend = make()

    assert backend.describe() == make().describe()
    assert backend.describe().splitlines() == [backend.describe()]
    assert backend.kind.split() == [backend.kind]
    assert backend.ttl > 0


async def a_reading_without_io_says_the_same(make: MakeBackend) -> None:
    """For backends that can be asked at every request."""
    backend = make()
    peeked = backend.peek()
    if peeked is None:
        return
    await backend.acquire(hold("a"), LEASE)
    peeked = backend.peek()
    assert peeked is not None
    assert meaning(peeked).state == meaning(await backend.read()).state


def _checks() -> Iterator[Callable[[MakeBackend], Awaitable[None]]]:
    yield nothing_is_off
    yield what_is_written_is_read_by_everybody
    yield the_two_methods_of_the_modelled_package_work
    yield details_are_kept_or_refused
    yield a_state_that_is_too_long_is_refused
    yield a_time_to_live_ends_or_is_refused
    yield a_time_to_live_that_is_none_is_refused
    yield the_last_of_many_writes_counts_for_everybody
    yield what_was_written_is_recalled
    yield only_who_has_seen_it_as_it_is_exchanges_the_switch
    yield clearing_turns_off_and_ends_every_hold
    yield a_hold_stands_until_it_is_released
    yield holds_overlap_in_any_order_of_release
    yield an_off_hold_lifts_the_switch_and_what_it_names
    yield an_off_hold_that_names_nothing_lifts_no_hold
    yield releasing_twice_does_nothing
    yield a_hold_can_be_renewed_as_often_as_wanted
    yield a_lease_that_is_not_renewed_ends
    yield a_failed_block_can_keep_the_switch_on
    yield a_watch_hears_of_what_others_change
    yield a_watch_hears_of_the_holds_of_others
    yield what_an_instance_changes_its_own_workers_know_at_once
    yield a_watch_that_is_cancelled_ends
    yield one_instance_serves_several_loops_and_threads
    yield what_was_told_is_not_told_again
    yield what_changes_is_recorded_or_that_is_refused
    yield it_has_a_name_for_messages
    yield a_reading_without_io_says_the_same


CHECKS: Final = tuple(_checks())
