"""The promise of the barrier, under random schedules of everything that can happen; see
`tests/checker`.
"""

from __future__ import annotations

import os
import time

import pytest

from .run import run_schedules
from .schedule import Step

# CI runs ten times as many beside the suite, by scripts/check.
SCHEDULES = int(os.environ.get("CHECKER_SCHEDULES", "20"))


@pytest.mark.timeout(1200)
async def test_strict_barrier_admits_no_request_until_the_opening() -> None:
    """Seeds are new every time and printed if one fails: `python -m tests.checker --seed SEED
    --schedules 1` runs it again.
    """
    first = int(time.time())

    outcomes = await run_schedules(range(first, first + SCHEDULES))

    broken = [outcome for outcome in outcomes if outcome.violations]
    assert not broken, "\n".join(
        f"seed {outcome.seed}: {outcome.violations[:3]}\n  {outcome.steps}" for outcome in broken
    )
    assert sum(outcome.proofs for outcome in outcomes) > SCHEDULES / 4, (
        "hardly any barrier proved anything: the checker sees nothing"
    )


@pytest.mark.timeout(600)
async def test_the_checker_notices_a_broken_fence() -> None:
    """A worker that sleeps through a closing and never closes itself lets requests in when it wakes
    up; a sound one does not.
    """

    def plan(seed: int) -> list[Step]:
        return [Step(0.0, "pause", seed / 10, 1.5), Step(0.1, "close"), Step(0.0, "barrier", 0.9)]

    broken = await run_schedules(range(10), broken=True, stop_at_first=True, plan=plan)
    sound = await run_schedules(range(4), plan=plan)

    assert any(outcome.violations for outcome in broken)
    assert not any(outcome.violations for outcome in sound)
    assert any(outcome.proofs for outcome in sound)
