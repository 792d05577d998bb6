from __future__ import annotations

import asyncio
import time

import pytest

from fastapi_maintenance import get_maintenance_mode
from fastapi_maintenance.demo.real import RealRedis
from fastapi_maintenance.demo.turns import ByCommands, RunningOut, Turn, all_turns

pytestmark = pytest.mark.may_block


@pytest.mark.parametrize("turn", all_turns(1)[:-1], ids=lambda turn: turn.name)
async def test_every_turn_turns_the_switch_on_and_off_again(turn: Turn, redis: RealRedis) -> None:
    before = time.monotonic()
    at = await turn.make(redis, on=True)
    assert before <= at <= time.monotonic()
    assert await get_maintenance_mode(redis.url)
    await turn.make(redis, on=False)
    assert not await get_maintenance_mode(redis.url)


async def test_a_time_to_live_turns_the_switch_off_when_it_runs_out(redis: RealRedis) -> None:
    turn = RunningOut(3)
    at = await turn.make(redis, on=True)
    assert await redis.run("GET", "maintenance") == "1"
    assert await turn.make(redis, on=False) == at + 3
    assert time.monotonic() >= at + 3
    await asyncio.sleep(0.05)  # Redis counts from when it was told
    assert await redis.run("SET", "maintenance", "0", "NX"), "nobody has written it meanwhile"


def test_all_the_ways_a_switch_is_written_are_tried_and_the_plain_one_several_times() -> None:
    turns = all_turns(3)
    names = " ".join(turn.name for turn in turns)
    assert all(word in names for word in ("SET", "DEL", "EX 600", "RENAME", "Lua", "MULTI", "JSON", "set_maintenance_mode", "runs out"))
    assert turns[:3] == [turns[0]] * 3
    assert isinstance(turns[0], ByCommands)
    assert (turns[0].on, turns[0].off) == ([("SET", "maintenance", "1")], [("DEL", "maintenance")])
    assert len({turn.name for turn in turns}) == len(turns) - 2
