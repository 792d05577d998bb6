"""The soak: that it judges rightly, that it notices what is broken, and that its document says what
it does; see `tests/soak`.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Final

import pytest

from . import __main__ as program
from .faults import FAULTS
from .report import COLUMNS, table, to_json
from .run import Outcome, Plan, Sample, soak
from .truth import CLOSED, GONE, ODD, OPEN, Batch, Truth, Verdict

PAGE: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
SLACK: Final = 0.5


# -- judging ---------------------------------------------------------------------------------------


def closed_at_ten() -> Truth:
    """Open from 0 on; the closing was sent at 10.0 and confirmed at 10.1, and all must follow
    within a second.
    """
    truth = Truth(0.0, SLACK)
    flip = truth.begin(True, 10.0)
    flip.reference, flip.bound = 10.1, 1.0
    return truth


@pytest.mark.parametrize(
    ("sent", "received", "status", "wrong"),
    [
        (5.0, 5.1, OPEN, 0),
        (5.0, 5.1, CLOSED, 1),  # before anybody had sent it
        (9.9, 10.01, CLOSED, 0),
        (10.05, 10.06, CLOSED, 0),
        (10.05, 10.06, OPEN, 0),
        (11.5, 11.6, OPEN, 0),
        (11.7, 11.8, OPEN, 1),
        (11.5, 60.0, OPEN, 0),  # it was asked in time, and waited
        (11.7, 11.8, CLOSED, 0),
    ],
)
def test_an_answer_is_right_while_its_state_may_be_believed(
    sent: float, received: float, status: int, wrong: int
) -> None:
    verdict = closed_at_ten().judge([Batch(0, sent, received, status, 7)])

    assert (verdict.answers, verdict.wrong) == (7, 7 * wrong)


def test_the_worst_age_is_that_of_the_last_old_answer() -> None:
    truth = closed_at_ten()

    assert truth.judge(
        [Batch(0, 10.05, 10.06, OPEN, 1), Batch(1, 10.4, 10.5, OPEN, 1)]
    ).worst == pytest.approx(0.3)
    assert truth.judge([Batch(0, 10.05, 10.06, CLOSED, 1)]).worst == 0.0
    assert truth.due() == pytest.approx(11.6)


def test_a_worker_that_was_away_has_its_own_reference() -> None:
    truth = closed_at_ten()
    truth.begin(False, 12.0).late = {3: 20.0}
    flip = truth._flips[-1]
    flip.reference, flip.bound = 12.0, 1.0

    late = [Batch(worker, 20.9, 21.0, CLOSED, 1) for worker in (2, 3)]

    assert truth.judge(late[1:]).wrong == 0
    assert truth.judge(late[:1]).wrong == 1
    assert truth.due() == pytest.approx(21.5)


def test_an_answer_between_two_flips_may_be_any() -> None:
    truth = closed_at_ten()
    flip = truth.begin(False, 10.2)
    flip.reference, flip.bound = 10.3, 1.0

    verdict = truth.judge([Batch(0, 10.2, 10.3, status, 1) for status in (OPEN, CLOSED)])

    assert verdict.wrong == 0


def test_errors_and_lost_connections_are_counted_apart() -> None:
    verdict = closed_at_ten().judge(
        [Batch(0, 5.0, 5.1, ODD, 3), Batch(0, 5.0, 5.1, GONE, 1), Batch(9, 5.0, 5.1, GONE, 1)],
        frozenset({9}),
    )

    assert (verdict.answers, verdict.odd, verdict.gone) == (0, 3, 1)


def test_every_broken_promise_is_a_violation() -> None:
    outcome = Outcome(
        Plan(), verdicts={"x": Verdict(answers=9, wrong=1, odd=2, gone=3)}, failures=["it stumbled"]
    )
    outcome.before, outcome.after = [Sample(50.0, 10)], [Sample(70.0, 20)]

    assert len(outcome.violations) == 6
    outcome.after = [Sample(51.0, 11)]
    assert len(outcome.violations) == 4
    assert not Outcome(Plan(), verdicts={"x": Verdict(answers=9)}).violations


# -- running ---------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
async def test_a_short_soak_breaks_no_promise() -> None:
    lines: list[str] = []

    # Generous, as the suite runs on machines that are several times slower; the long run is the one
    # that measures.
    outcome = await soak(Plan(minutes=0.4, seed=7, rate=400, slack=3.0), lines.append)

    assert not outcome.violations, (outcome.violations, outcome.total.examples, lines)
    assert len(lines) == sum(outcome.times.values()) > 1
    assert outcome.total.answers > 400
    assert to_json(outcome)["wrong"] == 0
    assert all(name in table(outcome) for name in outcome.times)


@pytest.mark.timeout(300)
def test_the_soak_notices_workers_that_are_too_slow(capsys: pytest.CaptureFixture[str]) -> None:
    """Without pushes, a worker with ten times the ttl follows too late."""
    words = [
        "--minutes",
        "0.15",
        "--rate",
        "200",
        "--seed",
        "1",
        "--ttl",
        "0.5",
        "--only",
        "ACL forbids tracking and messages",
        "--sabotage",
        "--json",
    ]

    code = program.main(words)

    said = capsys.readouterr()
    assert code == 1
    assert '"wrong": 0,' not in said.out.split('"faults"')[0]
    assert "wrong later than their bound" in said.err


# -- what the document says ------------------------------------------------------------------------


def test_document_has_a_row_for_every_fault() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text().split("\n## ")[1].splitlines()
        if line.startswith("| ")
    ]

    assert tuple(rows[0]) == COLUMNS
    assert [(row[0], row[2]) for row in rows[2:]] == [(fault.name, fault.bound) for fault in FAULTS]
    assert all(
        int(row[1]) > 0 and re.fullmatch(r"\d+ ms", row[3]) and row[4] == "0" for row in rows[2:]
    )


def test_the_commands_of_the_document_are_there() -> None:
    commands = [
        shlex.split(line) for line in PAGE.read_text().splitlines() if line.startswith("scripts/")
    ]

    names = ["scripts/soak", "scripts/check", "scripts/check", "scripts/fuzz"]
    assert [command[0] for command in commands] == names
    assert all(os.access(PAGE.parents[1] / command[0], os.X_OK) for command in commands)
    assert program._options(commands[0][1:]).minutes == 10.0
