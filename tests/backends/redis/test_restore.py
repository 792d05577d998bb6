"""The restore step after a loss of data, by workers that know different states."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from redis.exceptions import ResponseError

from fastapi_maintenance.backends.redis.keys import Keys
from fastapi_maintenance.backends.redis.registration import Registration
from fastapi_maintenance.backends.redis.replies import ScriptReply, read_script
from fastapi_maintenance.backends.redis.script import Script, dump_hold
from fastapi_maintenance.model.holds import Hold
from fastapi_maintenance.model.state import OFF, ON
from tests.support.versions import INSTALLED, VALKEY

from .links import knowledge

pytestmark = pytest.mark.every_redis(INSTALLED, VALKEY)

Step = Callable[..., Awaitable[ScriptReply]]

OLD: Final = '{"enabled":true,"message":"old"}'
NEW: Final = '{"enabled":true,"message":"new"}'
SETTLED: Final = "9 8 0 0 0"  # an epoch before that of any worker, in the life that they know


@pytest.fixture
def step(operator: Any, keys: Keys) -> Step:
    """Runs a step on the switch and one component."""
    script = Script(keys, lambda: ["billing"])

    async def run(name: str, *args: str | int) -> ScriptReply:
        return read_script(await operator.execute_command(*script.whole(name, *args)))

    return run


@pytest.fixture(params=["empty", "rolled back"])
async def lost(request: pytest.FixtureRequest, operator: Any, keys: Keys) -> None:
    """What Redis has after a loss."""
    if request.param == "rolled back":
        await operator.set(keys.epoch, SETTLED)


async def value(operator: Any, component: str = "") -> str | None:
    found = await operator.get(f"maintenance:{component}" if component else "maintenance")
    return None if found is None else str(found.decode())


async def kinds(operator: Any, keys: Keys) -> list[str]:
    return [fields[b"kind"].decode() for _, fields in await operator.xrange(keys.history)]


def a_hold(id: str = "a", *, opens: bool = False) -> Hold:
    """A hold that was taken before what any worker here knows."""
    return Hold(id, OFF if opens else ON, since=1e-6, deadline=time.time() + 30)


# -- the second worker knows more ------------------------------------------------------------------


@pytest.mark.usefixtures("lost")
@pytest.mark.parametrize("component", ["", "billing"])
@pytest.mark.parametrize(("old", "new"), [("", NEW), (OLD, ""), (OLD, NEW)])
async def test_newer_knowledge_replaces_what_older_restored(
    operator: Any, step: Step, keys: Keys, old: str, new: str, component: str
) -> None:
    def of(text: str, epoch: int) -> list[str | int]:
        states = {"value": text} if component == "" else {component: text}
        return knowledge(epoch=epoch, **states)  # type: ignore[arg-type]

    first = await step("restore", *of(old, 10))
    second = await step("restore", *of(new, 11))

    assert (first.verdict, second.verdict) == (
        "restored" if old else "nothing to restore",
        "restored",
    )
    assert await value(operator, component) == (new or None)
    assert second.reading.epoch > first.reading.epoch
    assert second.incarnation == first.incarnation
    assert await kinds(operator, keys) == ["restored" if old else "lost", "restored"]
    assert (await step("restore", *of(old, 10))).verdict == "superseded"
    assert (await step("restore", *of(new, 11))).verdict == "superseded"


@pytest.mark.usefixtures("lost")
async def test_knowledge_of_a_later_bare_write_is_newer(operator: Any, step: Step) -> None:
    await step("restore", *knowledge(OLD, epoch=10, noticed=3))
    await step("restore", *knowledge(NEW, epoch=10, noticed=2))
    assert await value(operator) == OLD
    await step("restore", *knowledge("", epoch=10, noticed=4))
    assert await value(operator) is None


@pytest.mark.usefixtures("lost")
async def test_newer_knowledge_sets_the_time_to_live(operator: Any, step: Step) -> None:
    await step("restore", *knowledge(OLD, 5000, epoch=10))
    await step("restore", *knowledge(OLD, epoch=11))

    assert await operator.pttl("maintenance") == -1


async def test_knowledge_of_a_later_life_is_newer(operator: Any, step: Step) -> None:
    await step("restore", *knowledge(OLD, life=7, epoch=99))
    await step("restore", *knowledge(NEW, life=8, epoch=9))
    assert await value(operator) == NEW
    assert (await step("restore", *knowledge("", life=7, epoch=100))).verdict == "superseded"


@pytest.mark.usefixtures("lost")
async def test_newer_knowledge_ends_an_old_hold_that_opens(step: Step) -> None:
    """One that closes is left to its lease: nobody opens under a hold by mistake."""
    await step("restore", *knowledge("", 0, a_hold("on"), a_hold("off", opens=True), epoch=10))
    answer = await step("restore", *knowledge("", 0, a_hold("more"), epoch=11))

    assert {hold.id for hold in answer.reading.holds or ()} == {"on", "more"}


@pytest.mark.usefixtures("lost")
async def test_off_hold_taken_since_stays(step: Step) -> None:
    await step("restore", *knowledge(epoch=10))
    hold = Hold("since", OFF)
    await step("acquire", hold.id, dump_hold(hold), 30_000, "")
    answer = await step("restore", *knowledge(NEW, epoch=11))

    assert [hold.id for hold in answer.reading.holds or ()] == ["since"]


@pytest.mark.usefixtures("lost")
async def test_equal_knowledge_adds_and_replaces_nothing(operator: Any, step: Step) -> None:
    """As of a worker that follows a component that the first one does not."""
    await step("restore", *knowledge(OLD, epoch=10))
    await step("restore", *knowledge(NEW, 0, a_hold(), epoch=10, billing=NEW))

    assert (await value(operator), await value(operator, "billing")) == (OLD, NEW)
    assert await operator.hlen("{maintenance}:holds") == 1


async def test_restoration_is_corrected_for_a_minute(operator: Any, step: Step, keys: Keys) -> None:
    await step("restore", *knowledge(OLD, epoch=10))
    long_ago = round((time.time() - 61) * 1e6)
    await operator.hset(keys.registry, "#restored", f"8 10 0 {long_ago}")

    assert (await step("restore", *knowledge(NEW, epoch=11))).verdict == "superseded"
    assert await value(operator) == OLD


@pytest.mark.usefixtures("lost")
async def test_record_of_wrong_type_is_restored_once(operator: Any, step: Step, keys: Keys) -> None:
    await operator.set(keys.recorded, "x")
    await step("restore", *knowledge(OLD, epoch=10))
    assert await value(operator) == OLD
    assert (await step("restore", *knowledge("", epoch=11))).verdict == "superseded"


# -- somebody decided since ------------------------------------------------------------------------


@pytest.mark.usefixtures("lost")
@pytest.mark.parametrize("component", ["", "billing"])
@pytest.mark.parametrize(
    ("old", "decision"),
    [
        *((old, word) for old in ("", OLD) for word in ("off", "on", "SET 0", "SET 1")),
        *((OLD, word) for word in ("DEL", "EXPIRE", "noticed DEL", "noticed EXPIRE")),
    ],
)
async def test_decision_after_the_first_restoration_stays(
    operator: Any, step: Step, old: str, decision: str, component: str
) -> None:
    key = f"maintenance:{component}" if component else "maintenance"
    await step("restore", *knowledge(epoch=10, **{component or "value": old}))  # type: ignore[arg-type]
    match decision.split()[-1]:
        case "off" | "on" as word:
            await step("write", "1" if word == "on" else "", 0, component, "")
        case "DEL":
            await operator.delete(key)
        case "EXPIRE":
            await operator.expire(key, 500)
        case digit:
            await operator.set(key, digit)
    if "noticed" in decision:
        await step("notice", "{}")
    before = await value(operator, component), await operator.ttl(key)
    await step("restore", *knowledge(epoch=11, **{component or "value": NEW}))  # type: ignore[arg-type]
    await step("restore", *knowledge(epoch=12))

    assert (await value(operator, component), await operator.ttl(key)) == before


@pytest.mark.usefixtures("lost")
async def test_switch_that_expired_since_is_no_decision(operator: Any, step: Step) -> None:
    await step("restore", *knowledge(OLD, 1, epoch=10))
    while await operator.exists("maintenance"):
        pass
    await step("notice", "{}")
    await step("restore", *knowledge(NEW, epoch=11))

    assert await value(operator) == NEW


@pytest.mark.usefixtures("lost")
@pytest.mark.parametrize("how", ["release", "clear"])
@pytest.mark.parametrize("restores", [True, False])
async def test_hold_ended_after_the_loss_is_not_restored(
    step: Step, how: str, restores: bool
) -> None:
    """Also one that was released while the data were gone."""
    if restores:
        await step("restore", *knowledge("", 0, a_hold(), epoch=10))
    await step(how, *(("a", "", "", "", "") if how == "release" else ("",)))
    answer = await step("restore", *knowledge("", 0, a_hold(), epoch=11, age=9))

    assert answer.reading.holds == ()


async def test_component_set_after_the_loss_is_not_restored(operator: Any, step: Step) -> None:
    await step("write", "", 0, "billing", "")
    await step("restore", *knowledge(NEW, billing=NEW))

    assert (await value(operator), await value(operator, "billing")) == (NEW, None)


async def test_release_is_remembered_for_a_minute(operator: Any, step: Step, keys: Keys) -> None:
    long_ago = round((time.time() - 61) * 1e6)
    await operator.hset(keys.recorded, mapping={"!-old": long_ago, "!-": "x", "!-new": 10**17})
    await step("release", "a", "", "", "", "")
    fields = {field.decode() for field in await operator.hkeys(keys.recorded)}

    assert fields == {"!-a"}


# -- the data were rolled back to a state that ended -----------------------------------------------


async def roll_back(operator: Any, step: Step, keys: Keys) -> None:
    """To when it was closed, and the history knew."""
    await operator.set(keys.epoch, SETTLED)
    await operator.set("maintenance", OLD)
    await step("notice", "{}")


@pytest.mark.parametrize("known", ["", NEW])
async def test_rolled_back_switch_is_set_to_the_last_known(
    operator: Any, step: Step, keys: Keys, known: str
) -> None:
    await roll_back(operator, step, keys)

    assert (await step("restore", *knowledge(known, epoch=10))).verdict == "restored"
    assert await value(operator) == (known or None)


async def test_rolled_back_hold_that_opens_is_ended(step: Step, operator: Any, keys: Keys) -> None:
    hold = Hold("since", OFF)
    await step("acquire", hold.id, dump_hold(hold), 30_000, "")
    await operator.hset(keys.holds, "garbage", "x")
    epoch, life, *_ = map(int, (await operator.get(keys.epoch)).split())
    answer = await step("restore", *knowledge("", 0, life=life, epoch=epoch + 1))

    assert [hold.id for hold in answer.reading.holds or ()] == []
    assert await operator.hkeys(keys.holds) == [b"garbage"]


@pytest.mark.parametrize("noticed", [True, False])
async def test_rolled_back_switch_set_since_stays(
    operator: Any, step: Step, keys: Keys, noticed: bool
) -> None:
    await roll_back(operator, step, keys)
    await operator.set("maintenance", "1")
    if noticed:
        await step("notice", "{}")
    await step("restore", *knowledge("", epoch=10, age=9))

    assert await value(operator) == "1"


async def test_lost_registry_opens_nobody(operator: Any, step: Step, keys: Keys) -> None:
    """A lost registry alone does not prove that the switch is old."""
    await roll_back(operator, step, keys)
    await step("restore", *knowledge("", epoch=9, rolled_back=True))
    assert await value(operator) == OLD
    await step("restore", *knowledge(NEW, epoch=10, rolled_back=True))
    assert await value(operator) == NEW


# -- a step on the rolled-back data came before the first worker ----------------------------------


async def move_on(operator: Any, step: Step, keys: Keys) -> int:
    """Roll back, and begin a barrier. Return an epoch between the two."""
    await operator.set(keys.epoch, SETTLED)
    epoch = round(time.time() * 1e6)
    await step("barrier")
    return epoch


@pytest.mark.parametrize("rolled_back", [True, False])
async def test_step_on_rolled_back_data_hides_no_loss(
    operator: Any, step: Step, keys: Keys, rolled_back: bool
) -> None:
    """If the registry shows it; else nothing tells the loss from a deletion."""
    epoch = await move_on(operator, step, keys)
    known = knowledge(NEW, 0, a_hold(), epoch=epoch, rolled_back=rolled_back, billing=NEW)
    answer = await step("restore", *known)

    expected = (NEW, NEW, 1) if rolled_back else (None, None, 0)
    found = await value(operator), await value(operator, "billing"), len(answer.reading.holds or ())
    assert found == expected


@pytest.mark.parametrize("component", ["", "billing"])
@pytest.mark.parametrize("decision", ["off", "DEL", "on"])
async def test_decision_on_rolled_back_data_stays(
    operator: Any, step: Step, keys: Keys, decision: str, component: str
) -> None:
    epoch = await move_on(operator, step, keys)
    if decision == "DEL":
        await operator.set(f"maintenance:{component}" if component else "maintenance", "1")
        await step("notice", "{}")
        await operator.delete(f"maintenance:{component}" if component else "maintenance")
    else:
        await step("write", "1" if decision == "on" else "", 0, component, "")
    states: Any = {component or "value": NEW}
    await step("restore", *knowledge(epoch=epoch, rolled_back=True, age=9, **states))

    assert await value(operator, component) == ("1" if decision == "on" else None)


async def test_data_that_lived_on_for_a_minute_stay(operator: Any, step: Step, keys: Keys) -> None:
    epoch = await move_on(operator, step, keys)
    long_ago = epoch - 61_000_000
    await operator.hset(keys.recorded, "!epochs", f" 9 {long_ago} {epoch + 1}")
    known = knowledge(NEW, epoch=long_ago - 1, rolled_back=True)

    assert (await step("restore", *known)).verdict == "superseded"


async def test_latest_epochs_are_kept(operator: Any, step: Step, keys: Keys) -> None:
    epochs = [(await step("barrier")).reading.epoch for _ in range(25)]

    kept = list(map(int, (await operator.hget(keys.recorded, "!epochs")).split()))
    assert kept == epochs[-20:]


@pytest.mark.parametrize(
    ("epochs", "lost"),
    [
        (b" 3 4 6", True),
        (b" 3 5 6", False),
        (b" 3 4", False),  # the epoch itself went back: that is told apart
        (b" 6 7", False),  # too long ago
        (b"x 3 -4 6 " + b"9" * 5000, True),
        (b"\xff", False),
        (None, False),
        (ResponseError("WRONGTYPE"), False),
    ],
)
def test_epoch_missing_among_the_latest_proves_a_rollback(epochs: Any, lost: bool) -> None:
    registration = Registration("redis", Keys.of("maintenance"), "w", None, ttl=1.0)

    assert registration.compare([None, 1, epochs], 5) == (lost, False)


@pytest.mark.parametrize(
    ("report", "recorded", "accepted", "found"),
    [
        (None, 0, 7, (True, False)),
        (None, 1, 7, (False, False)),  # it may have expired
        (b"4 {}", 1, 7, (True, True)),
        (b"4 {}", 1, 4, (False, True)),  # no newer one was accepted
        (b"5 {}", 1, 7, (False, False)),
        (b"9" * 5000, 1, 7, (False, False)),
    ],
)
def test_old_report_or_missing_record_proves_a_rollback(
    report: Any, recorded: int, accepted: int, found: tuple[bool, bool]
) -> None:
    registration = Registration("redis", Keys.of("maintenance"), "w", None, ttl=1.0)
    registration.knows_since, registration._reported = 5, accepted

    assert registration.compare([report, recorded, None], 5) == found
