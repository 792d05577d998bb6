"""The promise of the barrier, under random schedules of everything that can happen; see `tests/checker`."""

from __future__ import annotations

import os
import time

import pytest

from .checker.run import run_schedules

SCHEDULES = int(os.environ.get("CHECKER_SCHEDULES", "200"))


@pytest.mark.timeout(1200)
async def test_no_gated_request_is_let_in_after_a_strict_barrier_and_until_the_next_opening() -> None:
    """Seeds are new every time and printed if one fails: `python -m tests.checker --seed SEED --schedules 1` runs it again."""
    first = int(time.time())

    outcomes = await run_schedules(range(first, first + SCHEDULES))

    broken = [outcome for outcome in outcomes if outcome.violations]
    assert not broken, "\n".join(f"seed {outcome.seed}: {outcome.violations[:3]}\n  {outcome.steps}" for outcome in broken)
    assert sum(outcome.proofs for outcome in outcomes) > SCHEDULES / 4, "hardly any barrier proved anything: the checker sees nothing"


@pytest.mark.timeout(600)
async def test_the_checker_notices_a_broken_fence() -> None:
    """With workers that never close themselves, a paused one lets requests in when it wakes up."""
    outcomes = await run_schedules(range(1, 201), broken=True, stop_at_first=True)

    assert any(outcome.violations for outcome in outcomes)
