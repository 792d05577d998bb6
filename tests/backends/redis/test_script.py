"""Each step of maintenance.lua, run by a real server, and the commands that run it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from fastapi_maintenance.backends.redis.connection import RedisConnection
from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.backends.redis.replies import ScriptReply, read_registry, read_script
from fastapi_maintenance.backends.redis.script import Script, dump_hold
from fastapi_maintenance.backends.redis.server import SingleServer
from fastapi_maintenance.exceptions import BackendError, InvalidStateError, UnsupportedError
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON, MaintenanceState
from fastapi_maintenance.model.workers import RegistrySnapshot

from .conftest import MakeUser
from .links import knowledge

pytestmark = pytest.mark.every_redis

Step = Callable[..., Awaitable[ScriptReply]]

MINUTE = 60.0
SETTLED = "9 8 0 0 0"  # an epoch, in a life that began at the beginning of time


@pytest.fixture
def step(operator: Any, keys: Keys) -> Step:
    """Runs a step and reads its answer."""
    script = Script(keys)

    async def run(name: str, *args: str | int) -> ScriptReply:
        return read_script(await operator.execute_command(*script.whole(name, *args)))

    return run


async def numbers(operator: Any, keys: Keys) -> dict[str, int]:
    """What the epoch's record says."""
    text = await operator.get(keys.epoch)
    fields = ("epoch", "born", "parent", "cleared", "decided")
    return dict(zip(fields, map(int, text.split()), strict=True))


def as_args(hold: Hold, lease: float = 30.0) -> tuple[str, str, int]:
    return hold.id, dump_hold(hold), round(lease * 1000)


# -- read ------------------------------------------------------------------------------------------


async def test_read_of_nothing_is_off_and_writes_nothing(operator: Any, step: Step) -> None:
    answer = await step("read")

    assert (answer.reading.switch, answer.reading.holds, answer.reading.error) == (OFF, (), None)
    assert (answer.incarnation, answer.reading.epoch) == (0, 0)
    assert abs(answer.reading.now - time.time()) < 5
    assert await operator.dbsize() == 0


async def test_read_says_value_and_time_to_live_together(operator: Any, step: Step) -> None:
    await operator.set("maintenance", '{"enabled": true, "message": "soon"}', px=5000)

    reading = (await step("read")).reading

    assert reading.switch == MaintenanceState(enabled=True, message="soon")
    assert reading.expires_in is not None
    assert 4 < reading.expires_in <= 5


async def test_read_moves_no_value_that_is_too_long(operator: Any, step: Step) -> None:
    await operator.set("maintenance", "1" * 65537)
    too_long = await step("read")
    await operator.set("maintenance", "1" * 65536)
    just_fits = await step("read")

    assert too_long.reading.switch is None
    assert "longer than 65536" in str(too_long.reading.error)
    assert "not a boolean word" in str(just_fits.reading.error)


async def test_read_of_keys_of_the_wrong_type_says_which(
    operator: Any, step: Step, keys: Keys
) -> None:
    await operator.rpush("maintenance", "1")
    switch = (await step("read")).reading
    await operator.delete("maintenance")
    await operator.set(keys.holds, "x")
    holds = (await step("read")).reading

    assert (switch.switch, switch.holds) == (None, ())
    assert "not a string" in str(switch.error)
    assert (holds.switch, holds.holds) == (OFF, None)
    assert "not a hash" in str(holds.error)


@pytest.mark.parametrize(
    "garbage", ["x", "1 2", "1 2 3 4", "-1 2 3 4 5", "1 2 3 4 5 6", "9" * 400 + " 1 1 1 1", ""]
)
async def test_a_garbage_epoch_counts_as_none(
    operator: Any, step: Step, keys: Keys, garbage: str
) -> None:
    await operator.set(keys.epoch, garbage)

    answer = await step("read")

    assert (answer.reading.epoch, answer.incarnation, answer.restored_from) == (0, 0, 0)


async def test_epoch_of_the_wrong_type_is_healed_by_a_write(
    operator: Any, step: Step, keys: Keys
) -> None:
    await operator.rpush(keys.epoch, "x")

    assert (await step("read")).incarnation == 0
    assert (await step("write", "1", 0)).incarnation > 0
    assert (await numbers(operator, keys))["epoch"] > 0


@pytest.mark.parametrize(
    "garbage", ["", "x", "1", "1 2", "9" * 17 + " 1 {}", "1 " + "9" * 17 + " {}", " 1 2 {}"]
)
async def test_a_garbage_hold_is_told_of_and_swept_by_the_next_hold(
    operator: Any, step: Step, keys: Keys, garbage: str
) -> None:
    await operator.hset(keys.holds, "bad", garbage)

    assert "'bad' cannot be read" in str((await step("read")).reading.error)

    reading = (await step("acquire", *as_args(Hold("good", ON)))).reading
    assert [hold.id for hold in reading.holds or ()] == ["good"]
    assert reading.error is None


async def test_fingerprint_depends_on_switch_and_holds_alone(operator: Any, step: Step) -> None:
    seen = [(await step("read")).reading.fingerprint]
    await operator.set("maintenance", "1")
    seen.append((await step("read")).reading.fingerprint)
    first = await step("acquire", *as_args(Hold("a", ON)))
    seen.append(first.reading.fingerprint)
    seen.append((await step("acquire", *as_args(Hold("b", OFF)))).reading.fingerprint)

    assert len(set(seen)) == 4

    await step("begin")
    await step("barrier")
    renewed = await step("renew", *as_args(Hold("a", ON), 99.0), int(first.verdict))
    await operator.expire("maintenance", 100)
    assert renewed.reading.fingerprint == (await step("read")).reading.fingerprint == seen[3]


@pytest.mark.parametrize("missing", ["-strlen", "-hgetall"])
async def test_an_error_that_is_not_about_types_is_not_taken_for_one(
    make_user: MakeUser, keys: Keys, missing: str
) -> None:
    """Else a missing permission would be told of as a switch that somebody should delete."""
    user: Any = Redis.from_url((await make_user(missing)).url)
    async with user:
        with pytest.raises(ResponseError, match=r"permission|can.t run"):
            await user.execute_command(*Script(keys).whole("read"))


# -- write and clear -------------------------------------------------------------------------------


async def test_write_sets_the_switch_for_as_long_as_asked(operator: Any, step: Step) -> None:
    assert (await step("write", "1", 0)).reading.switch == ON
    assert await operator.pttl("maintenance") == -1

    await step("write", '{"enabled":true,"message":"x"}', 5000)
    assert 0 < await operator.pttl("maintenance") <= 5000

    assert (await step("write", "", 0)).reading.switch == OFF
    assert await operator.exists("maintenance") == 0


async def test_write_replaces_a_switch_of_any_type(operator: Any, step: Step) -> None:
    await operator.rpush("maintenance", "1")

    assert (await step("write", "1", 0)).reading.switch == ON


async def test_change_other_than_renewal_advances_the_epoch(
    operator: Any, step: Step, keys: Keys
) -> None:
    async with operator.pubsub(ignore_subscribe_messages=True) as listener:
        await listener.subscribe(keys.events)
        await listener.get_message(timeout=1)
        epochs = [0]

        async def published(answer: ScriptReply) -> None:
            message = await listener.get_message(timeout=1)
            assert message is not None
            assert int(message["data"]) == answer.reading.epoch > epochs[-1]
            epochs.append(answer.reading.epoch)

        await published(await step("write", "1", 0))
        taken = await step("acquire", *as_args(Hold("a", ON)))
        await published(taken)
        await published(await step("barrier"))
        await step("renew", *as_args(Hold("a", ON)), int(taken.verdict))
        await step("notice", "{}")
        await step("read")
        await step("workers")
        await published(await step("release", "a", ""))
        await step("release", "a", "")
        await published(await step("release", "a", "1"))
        await published(await step("clear"))
        assert await listener.get_message(timeout=0.1) is None


async def test_the_epoch_never_goes_back_even_if_the_clock_did(
    operator: Any, step: Step, keys: Keys
) -> None:
    future = round(time.time() * 1e6) + 10**12
    await operator.set(keys.epoch, f"{future} 8 0 0 0")

    assert (await step("write", "1", 0)).reading.epoch == future + 1
    assert (await step("write", "1", 0)).reading.epoch == future + 2


async def test_clear_turns_the_switch_off_and_ends_every_hold(step: Step) -> None:
    await step("write", "1", 0)
    await step("acquire", *as_args(Hold("a", ON)))

    reading = (await step("clear")).reading

    assert (reading.switch, reading.holds) == (OFF, ())


async def test_a_change_is_made_although_the_channel_is_forbidden(
    make_user: MakeUser, keys: Keys
) -> None:
    mute: Any = Redis.from_url((await make_user("resetchannels")).url)
    async with mute:
        assert (
            read_script(
                await mute.execute_command(*Script(keys).whole("write", "1", 0))
            ).reading.switch
            == ON
        )


# -- holds -----------------------------------------------------------------------------------------


async def test_acquire_lets_a_hold_stand_for_its_lease(
    operator: Any, step: Step, keys: Keys
) -> None:
    answer = await step(
        "acquire",
        *as_args(Hold("a", MaintenanceState(enabled=True, reason="why"), lifts=("b",)), 0.15),
    )

    (hold,) = answer.reading.holds or ()
    assert (hold.id, hold.state.reason, hold.lifts) == ("a", "why", ("b",))
    assert int(answer.verdict) == answer.reading.epoch == round(hold.since * 1e6)
    assert hold.deadline == pytest.approx(answer.reading.now + 0.15, abs=1e-3)
    assert await operator.pttl(keys.holds) == -1


async def test_renew_moves_the_deadline_and_nothing_else(
    operator: Any, step: Step, keys: Keys
) -> None:
    hold = Hold("a", ON)
    since = int((await step("acquire", *as_args(hold))).verdict)
    before = await operator.get(keys.epoch)

    answer = await step("renew", *as_args(hold, 99.0), since)

    (renewed,) = answer.reading.holds or ()
    assert answer.verdict == ""
    assert renewed.deadline == pytest.approx(answer.reading.now + 99, abs=1e-3)
    assert round(renewed.since * 1e6) == since
    assert await operator.get(keys.epoch) == before


async def test_renew_puts_back_a_hold_that_was_lost(operator: Any, step: Step) -> None:
    since = int((await step("acquire", *as_args(Hold("a", ON)))).verdict)
    await operator.flushall()

    answer = await step("renew", *as_args(Hold("a", ON)), since)

    assert answer.verdict == ""
    assert [hold.id for hold in answer.reading.holds or ()] == ["a"]
    assert answer.reading.epoch > since


async def test_renew_of_a_hold_that_was_ended_by_force_is_refused(step: Step) -> None:
    since = int((await step("acquire", *as_args(Hold("a", ON)))).verdict)
    await step("clear")

    answer = await step("renew", *as_args(Hold("a", ON)), since)

    assert (answer.verdict, answer.reading.holds) == ("revoked", ())

    again = await step("acquire", *as_args(Hold("a", ON)))
    assert (await step("renew", *as_args(Hold("a", ON)), int(again.verdict))).verdict == ""


async def test_release_ends_one_hold_and_keeps_what_is_asked(operator: Any, step: Step) -> None:
    await step("acquire", *as_args(Hold("a", ON)))
    await step("acquire", *as_args(Hold("b", ON)))

    reading = (await step("release", "a", "")).reading
    assert [hold.id for hold in reading.holds or ()] == ["b"]
    assert reading.switch == OFF

    reading = (await step("release", "b", "1")).reading
    assert (reading.holds, reading.switch) == ((), ON)
    assert await operator.pttl("maintenance") == -1


async def test_release_over_garbage_holds_keeps_the_switch_on(
    operator: Any, step: Step, keys: Keys
) -> None:
    await operator.set(keys.holds, "x")

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await step("release", "a", "1")
    assert await operator.get("maintenance") == b"1"


# -- the registry ----------------------------------------------------------------------------------


async def roll(operator: Any, keys: Keys) -> RegistrySnapshot:
    return read_registry(await operator.execute_command(*Script(keys).whole("workers")))


async def test_begin_begins_a_life_only_where_there_is_none(
    operator: Any, step: Step, keys: Keys
) -> None:
    answer = await step("begin")
    assert answer.incarnation == answer.reading.epoch > 0

    await operator.set(keys.epoch, SETTLED)
    await step("begin")
    assert (await operator.get(keys.epoch)).decode() == SETTLED


async def test_roll_call_finds_workers_of_both_formats(operator: Any, keys: Keys) -> None:
    await operator.hset(
        keys.registry,
        mapping={"#generation": "g", "#noticed": "3", "w": '{"pid": 7}', "gone": '{"pid": 8}'},
    )
    await operator.set(keys.report("w"), '5 {"epoch": 3}')
    await operator.hset(
        keys.workers,
        mapping={"old": f'{time.time_ns()} {{"pid": 9}}', "left": "1 left", "w": '9 {"format": 2}'},
    )

    called = await roll(operator, keys)

    assert called.generation == "g"
    assert {
        worker.id: (worker.pid, worker.sequence, worker.vanished) for worker in called.workers
    } == {
        "w": (7, 5, False),
        "gone": (8, 0, True),
        "old": (9, called.workers[-1].sequence, False),
    }


async def test_registry_lists_the_vanished_with_proofs(operator: Any, keys: Keys) -> None:
    await operator.hset(keys.registry, mapping={"w": "{}", "gone": "{}"})
    await operator.set(keys.report("w"), "1 {}")
    await roll(operator, keys)
    listed = await operator.hget(keys.registry, "#vanished")
    assert listed.split()[0] == b"gone"
    await roll(operator, keys)
    assert await operator.hget(keys.registry, "#vanished") == listed, "with when it was first seen"

    await operator.set(keys.report("gone"), "2 {}")
    await roll(operator, keys)
    assert not await operator.hexists(keys.registry, "#vanished")


async def test_worker_that_vanished_is_forgotten_after_a_day(operator: Any, keys: Keys) -> None:
    yesterday = round((time.time() - 86_401) * 1e6)
    await operator.hset(keys.registry, mapping={"gone": "{}", "#vanished": f"gone {yesterday}"})

    await roll(operator, keys)
    assert (await roll(operator, keys)).workers == ()


async def test_neither_holds_nor_registry_have_a_time_to_live(
    operator: Any, step: Step, keys: Keys
) -> None:
    """Under a policy of volatile-*, Redis evicts what has one."""
    await operator.hset(keys.registry, "w", "{}")
    await step("acquire", *as_args(Hold("a", ON)))
    await roll(operator, keys)

    assert await operator.pttl(keys.holds) == await operator.pttl(keys.registry) == -1


async def test_notice_counts_what_was_written_past_us_once(
    operator: Any, step: Step, keys: Keys
) -> None:
    await operator.set("maintenance", "1")
    await step("notice", "{}")
    await step("notice", "{}")
    assert await operator.hget(keys.registry, "#noticed") == b"1"
    await operator.delete("maintenance")
    await step("notice", "{}")
    assert await operator.hget(keys.registry, "#noticed") == b"2"


async def test_lapse_ends_a_hold_only_as_it_was_observed(
    operator: Any, step: Step, keys: Keys
) -> None:
    await step("acquire", *as_args(Hold("a", ON)))
    entry = (await operator.hget(keys.holds, "a")).decode()

    assert [hold.id for hold in (await step("lapse", "a", f"{entry} ")).reading.holds or ()] == [
        "a"
    ]
    before = (await step("read")).reading.epoch
    answer = await step("lapse", "a", entry)
    assert (answer.reading.holds, answer.reading.epoch > before) == ((), True)
    assert (await step("lapse", "a", entry)).reading.epoch == answer.reading.epoch


async def test_hold_of_yesterday_is_swept_by_the_next_one(
    operator: Any, step: Step, keys: Keys
) -> None:
    yesterday = round((time.time() - 2 * 86_400) * 1e6)
    await operator.hset(keys.holds, "a", f"{yesterday} 1 {dump_hold(Hold('a', ON))}")

    await step("acquire", *as_args(Hold("b", ON)))

    assert await operator.hkeys(keys.holds) == [b"b"]


async def test_generation_is_replaced_only_by_those_who_know_it(
    operator: Any, step: Step, keys: Keys
) -> None:
    await operator.hset(keys.registry, "#generation", "g")

    assert (await step("regenerate", "f", "h")).verdict == ""
    assert (await step("regenerate", "g", "h")).verdict == "regenerated"
    assert await operator.hget(keys.registry, "#generation") == b"h"


async def test_earlier_versions_find_a_worker_only_while_they_run(
    operator: Any, step: Step, keys: Keys
) -> None:
    await step("earlier", "w", '{"format": 2}', 3000)
    assert not await operator.exists(keys.workers)

    await operator.hset(keys.workers, "old", "1 {}")
    now = (await step("earlier", "w", '{"format": 2}', 3000)).reading.now
    deadline, _, text = (await operator.hget(keys.workers, "w")).partition(b" ")
    assert text == b'{"format": 2}'
    assert int(deadline) / 1e6 == pytest.approx(now + 3, abs=2.0)
    await step("earlier", "w", "", 0)
    assert (await operator.hget(keys.workers, "w")).endswith(b" left")


# -- restore ---------------------------------------------------------------------------------------


def a_hold(id: str = "a") -> Hold:
    return Hold(id, ON, since=time.time() - 5, deadline=time.time() + 30)


async def test_restore_into_nothing_writes_switch_and_holds(operator: Any, step: Step) -> None:
    hold = a_hold()
    answer = await step("restore", *knowledge("1", 5000, hold))

    assert (answer.verdict, answer.restored_from) == ("restored", 8)
    assert answer.reading.switch == ON
    assert 0 < await operator.pttl("maintenance") <= 5000
    (put_back,) = answer.reading.holds or ()
    assert put_back.id == "a"
    assert [put_back.deadline, put_back.since] == pytest.approx(
        [hold.deadline, hold.since], abs=2.0
    )
    assert answer.reading.epoch > 9
    assert answer.incarnation > 0


async def test_the_second_who_remembers_finds_it_done(operator: Any, step: Step) -> None:
    await step("restore", *knowledge("1", 0))
    await operator.delete("maintenance")

    answer = await step("restore", *knowledge("1", 0))

    assert (answer.verdict, answer.reading.switch, answer.reading.holds) == ("superseded", OFF, ())


async def test_restore_of_nothing_still_says_that_it_was_done(step: Step) -> None:
    answer = await step("restore", *knowledge("", 0))

    assert (answer.verdict, answer.restored_from, answer.reading.switch) == (
        "nothing to restore",
        8,
        OFF,
    )


async def test_restore_in_a_life_that_a_worker_without_memory_began(step: Step) -> None:
    await step("begin")

    assert (await step("restore", *knowledge("1", 0))).verdict == "restored"


async def test_restore_after_a_rollback(operator: Any, step: Step, keys: Keys) -> None:
    await operator.set(keys.epoch, SETTLED)

    answer = await step("restore", *knowledge("1", 0, a_hold(), epoch=10))

    assert (answer.verdict, answer.reading.switch, answer.incarnation, answer.restored_from) == (
        "restored",
        ON,
        8,
        0,
    )
    assert len(answer.reading.holds or ()) == 1
    assert answer.reading.epoch > 10


async def test_restore_where_nothing_was_lost_changes_nothing(
    operator: Any, step: Step, keys: Keys
) -> None:
    await operator.set(keys.epoch, SETTLED)

    assert (await step("restore", *knowledge("1", 0))).verdict == "superseded"
    assert await operator.exists("maintenance") == 0


@pytest.mark.parametrize("value", ["0", "1", '{"enabled": false}', "garbage"])
async def test_restore_keeps_a_switch_set_since(operator: Any, step: Step, value: str) -> None:
    await operator.set("maintenance", value)

    answer = await step("restore", *knowledge('{"enabled":true,"message":"old"}', 0, a_hold()))

    assert await operator.get("maintenance") == value.encode()
    assert len(answer.reading.holds or ()) == 1


async def test_restore_keeps_a_switch_turned_off_since(step: Step) -> None:
    """Off leaves no key behind that could be seen; the epoch's record says that it was meant."""
    await step("write", "", 0)

    answer = await step("restore", *knowledge("1", 0, a_hold()))

    assert (answer.reading.switch, len(answer.reading.holds or ())) == (OFF, 1)


async def test_restore_is_not_over_a_force_off(step: Step) -> None:
    await step("clear")

    answer = await step("restore", *knowledge("1", 0, a_hold()))

    assert (answer.reading.switch, answer.reading.holds) == (OFF, ())


async def test_restore_is_under_a_hold_that_was_taken_since(step: Step) -> None:
    """Taking a hold says nothing about the switch, so that one is put back."""
    await step("acquire", *as_args(Hold("new", ON)))

    answer = await step("restore", *knowledge("1", 0, a_hold()))

    assert answer.reading.switch == ON
    assert {hold.id for hold in answer.reading.holds or ()} == {"a", "new"}


async def test_restore_keeps_a_hold_that_was_renewed(step: Step) -> None:
    hold = a_hold()
    renewed = await step("renew", *as_args(hold, 99.0), round(hold.since * 1e6))
    answer = await step("restore", *knowledge("", 0, hold))

    assert answer.reading.holds == renewed.reading.holds


async def test_worker_long_away_restores_nothing_over_others(
    operator: Any, step: Step, keys: Keys
) -> None:
    """As a suspended laptop that remembers last week's maintenance."""
    long_ago = round((time.time() - MINUTE - 1) * 1e6)
    await operator.set(keys.epoch, f"{long_ago} {long_ago} 0 0 0")
    answer = await step("restore", *knowledge("1", 0, a_hold()))

    assert (answer.verdict, answer.reading.switch, answer.reading.holds) == ("superseded", OFF, ())


# -- running it ------------------------------------------------------------------------------------


@pytest.fixture
async def wire(redis_url: str) -> AsyncIterator[RedisConnection]:
    """A connection of our own."""
    connection = await SingleServer.from_url(redis_url).connect(timeout=5.0, protocol=3)
    async with RedisConnection(connection, within=5.0) as wire:
        yield wire


async def test_a_script_that_the_server_does_not_know_is_sent_whole(
    wire: RedisConnection, keys: Keys, operator: Any
) -> None:
    script = Script(keys)
    (unknown,) = await wire.call(script.by_digest("read"), within=5.0)
    assert isinstance(unknown, NoScriptError)

    for _ in range(2):
        assert read_script(await script.run(wire, "read")).reading.switch == OFF
    await operator.script_flush()
    assert read_script(await script.run(wire, "read")).reading.switch == OFF
    assert not isinstance((await wire.call(script.by_digest("read"), within=5.0))[0], Exception)


async def test_refusal_of_the_server_is_a_backend_error(wire: RedisConnection, keys: Keys) -> None:
    with pytest.raises(
        BackendError, match=r"Redis refused: .*(not an integer|invalid expire)"
    ) as refused:
        await Script(keys).run(wire, "write", "1", 2**70)
    assert not isinstance(refused.value, UnsupportedError)


class Refusing:
    """A wire on which every command gets the same reply."""

    def __init__(self, reply: object) -> None:
        self.reply = reply

    async def call(self, *commands: Any) -> list[object]:
        return [self.reply for _ in commands]


@pytest.mark.parametrize(
    "words",
    [
        "unknown command 'EVALSHA', with args beginning with: 'x'",
        "unknown command `EVALSHA`, with args beginning with: `x`",
        "Unknown Redis command called from script script: x, on @user_script:15.",
        "ACL failure in script: this user has no permissions to run the 'hset' command",
        "The user executing the script can't run this command or subcommand",
    ],
)
async def test_refused_scripts_of_other_servers_are_understood(keys: Keys, words: str) -> None:
    wire: Any = Refusing(ResponseError(words))

    with pytest.raises(UnsupportedError, match="does not permit"):
        await Script(keys).run(wire, "read")


# -- what is stored of a hold ----------------------------------------------------------------------


def test_a_hold_is_stored_the_same_before_and_after_it_was_taken() -> None:
    """Else its first renewal would change the fingerprint that the workers report."""
    hold = Hold("a", MaintenanceState(enabled=True, reason="why"), lifts=("b",))

    assert dump_hold(hold) == dump_hold(Hold(hold.id, hold.state, 17.5, 99.0, hold.lifts))


def test_a_hold_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidStateError, match="65536 is the most"):
        dump_hold(Hold("a", MaintenanceState(enabled=True, reason="x" * 65536)))
