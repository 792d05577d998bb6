from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import pytest

from fastapi_maintenance.demo import trial as trial_module
from fastapi_maintenance.demo.client import Answer
from fastapi_maintenance.demo.crew import Crew
from fastapi_maintenance.demo.real import RealRedis
from fastapi_maintenance.demo.server import RedisServer
from fastapi_maintenance.demo.trial import Trial, complaints
from fastapi_maintenance.demo.turns import ByCommands, all_turns

pytestmark = pytest.mark.may_block

ON, OFF = [("SET", "maintenance", "1")], [("DEL", "maintenance")]
CLOSED = Answer(503, {"retry-after": "3600", "cache-control": "no-store"}, b'{"detail": "Away"}')
OPEN = Answer(200, {}, b'{"hello": "you"}')


async def test_a_worker_that_follows_every_turn_has_a_sample_for_each_and_no_complaint(redis: RealRedis, crew: Crew) -> None:
    trial = Trial(redis, crew)
    turns = all_turns(2)[:-1]  # the last takes its time
    await trial.run(turns)
    assert trial.complaints == []
    assert trial.tally.flips == 2 * len(turns)
    assert 0 < trial.tally.median < 1
    assert all(line.startswith(("turned by", "---", *(turn.name for turn in turns))) for line in trial.tally.by_turn())


async def test_a_worker_that_does_not_follow_ends_the_trial(redis: RealRedis, crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "_IN_TIME", 0.1)
    trial = Trial(redis, crew)
    nothing = ByCommands("nothing", [("PING",)], [("PING",)])
    await trial.run([nothing, nothing])
    assert trial.complaints[0] == f"nothing, on: worker {os.getpid()} answered 200 instead of 503."
    assert f"nothing, on: worker {os.getpid()} says that it has been open since " in trial.complaints[1]
    assert len(trial.complaints) == 2
    assert trial.tally.flips == 0


async def test_a_worker_that_answers_otherwise_than_agreed_is_complained_of(redis: RealRedis, crew: Crew) -> None:
    trial = Trial(redis, crew)
    await trial.run([ByCommands("SET", ON, OFF, detail="Back at four")])
    (complaint,) = trial.complaints
    assert complaint.startswith(f"SET, on: worker {os.getpid()} answered 503 with ")
    assert complaint.endswith("not with the detail 'Back at four'.")


async def test_forced_and_missing_routes_must_answer_as_ever(redis: RealRedis, crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "_ALWAYS", {"/health": 200, "/reports": 200, "/nowhere": 503})
    trial = Trial(redis, crew)
    await trial.run([ByCommands("SET", ON, OFF)])
    assert trial.complaints == [
        f"SET, on: worker {os.getpid()} answered 503 to /reports, not 200.",
        f"SET, on: worker {os.getpid()} answered 404 to /nowhere, not 503.",
    ]


@dataclass
class Backdated:
    """A turn that claims to have been made later than it was."""

    name: str = "backdated"
    detail: str = ""

    async def make(self, redis: RedisServer, *, on: bool) -> float:
        return await ByCommands("SET", ON, OFF).make(redis, on=on) + 0.5


async def test_a_change_from_before_the_flip_is_no_answer_to_it(redis: RealRedis, crew: Crew) -> None:
    trial = Trial(redis, crew)
    await trial.run([Backdated()])
    assert any("says that it has been closed since 0." in complaint for complaint in trial.complaints)


@pytest.mark.parametrize(
    ("answer", "closed"),
    [(CLOSED, True), (OPEN, False)],
)
def test_there_is_nothing_to_complain_of_in_a_right_answer(answer: Answer, closed: bool) -> None:
    assert list(complaints(answer, closed=closed, detail="Away")) == []


@pytest.mark.parametrize(
    ("answer", "closed", "complaint"),
    [
        (OPEN, True, "answered 200 instead of 503"),
        (CLOSED, False, "answered 503 instead of 200"),
        (Answer(500, {}, b"Internal Server Error"), True, "answered 500 instead of 503"),
        (Answer(200, {}, b"{}"), False, "answered 200 with {}"),
        (Answer(200, {}, b"<html>"), False, "answered 200 with b'<html>'"),
        (Answer(503, CLOSED.headers, b'{"detail": "?"}'), True, "answered 503 with {'detail': '?'}, not with the detail 'Away'"),
        (Answer(503, {"retry-after": "1"}, CLOSED.body), True, "answered 503 without Cache-Control: no-store"),
        (Answer(503, {"cache-control": "no-store"}, CLOSED.body), True, "answered 503 without Retry-After"),
    ],
)
def test_what_is_wrong_in_an_answer_is_complained_of(answer: Answer, closed: bool, complaint: str) -> None:
    assert list(complaints(answer, closed=closed, detail="Away")) == [complaint]


def test_complaints_about_a_503_come_together() -> None:
    body: dict[str, Any] = {}
    assert len(list(complaints(Answer(503, {}, json.dumps(body).encode()), closed=True, detail="Away"))) == 3
