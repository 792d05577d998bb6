"""The promise of the barrier, under random schedules; see `tests/checker`."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Final

import pytest

from .__main__ import summary
from .run import Outcome, run_schedules
from .schedule import ACTIONS, SENTINEL_ACTIONS, Step
from .variants import VARIANTS

# CI runs ten times as many beside the suite, by scripts/check.
SCHEDULES: Final = int(os.environ.get("CHECKER_SCHEDULES", "20"))
PAGE: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
MOST: Final = 200  # schedules within which each broken variant must be found


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
    proofs = sum(outcome.proofs.total() - outcome.proofs["refused"] for outcome in outcomes)
    assert proofs > SCHEDULES / 4, "hardly any barrier proved anything: the checker sees nothing"


# A drawn schedule that shows each; again and again, as its timing is never the same. The document
# says how many different ones it took. `scripts/check --variants` runs all variants on all seeds.
FOUND: Final = {
    "ahead": 1,
    "component": 6,
    "data": 29,
    "dead": 6,
    "empty": 3,
    "fence": 11,
    "first sight": 5,
    "lost": 10,
    "silence": 5,
    "stray": 43,
    "vanished": 3,
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FOUND)
async def test_broken_variant_is_found(name: str) -> None:
    seeds = [FOUND[name]] * MOST
    outcomes = await run_schedules(seeds, lanes=2, variant=name, stop_at_first=True)
    assert any(outcome.violations for outcome in outcomes), VARIANTS[name].rule


def test_document_has_the_figures_of_a_long_run() -> None:
    """They are pasted from the last lines of a long run, so they have the same words."""
    outcome = Outcome(seed=1, steps=[Step(0.0, name) for name in (*ACTIONS, *SENTINEL_ACTIONS)])
    page, words = PAGE.read_text(), re.compile(r"\d+")

    said = [words.sub("N", line) for line in summary([outcome])]

    block = page.split("```text\n", 1)[1].split("```", 1)[0]
    assert [words.sub("N", line) for line in block.splitlines()] == said
    assert " 0 broken" in block


def test_document_has_a_row_for_every_variant() -> None:
    section = PAGE.read_text().split("\n## The checker", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| ")]
    assert [row[1].strip() for row in rows[2:]] == [one.rule for one in VARIANTS.values()]
    assert all(int(row[2]) <= MOST for row in rows[2:])


def test_variants_take_different_rules_away() -> None:
    rules = {variant.rule for variant in VARIANTS.values()}
    assert len(rules) == len(VARIANTS) >= 10
    assert set(FOUND) <= set(VARIANTS)
