"""`python -m tests.checker --schedules 2000 --seed 1`: the long run, with its summary."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable

from .run import Outcome, run_schedules
from .schedule import ACTIONS, SENTINEL_ACTIONS, is_behind_sentinels
from .variants import VARIANTS

_MOST_PER_VARIANT = 200


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="checker", description=__doc__)
    parser.add_argument("--schedules", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--lanes", type=int, default=5)
    parser.add_argument(
        "--variants", nargs="*", metavar="NAME", help="break one rule after the other instead"
    )
    parser.add_argument("--sentinels", action="store_true", help="run all behind Sentinels")
    options = parser.parse_args()
    logging.getLogger("fastapi_maintenance").addHandler(logging.NullHandler())
    if options.variants is not None:
        return _break_rules(options.variants or [*VARIANTS], options.seed, options.lanes)
    seeds = range(options.seed, options.seed + options.schedules)
    _say(f"seeds {seeds[0]} to {seeds[-1]}")
    started = time.monotonic()
    outcomes: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        for violation in (*outcome.violations[:2], *outcome.violations[-1:]):
            _say(f"seed {outcome.seed}: {violation}\n  {outcome.steps}")
        if len(outcomes) % (5 if options.sentinels else 50) == 0 or len(outcomes) == len(seeds):
            _say(f"{_progress(outcomes)}; {time.monotonic() - started:.0f} s")

    behind = (lambda seed: True) if options.sentinels else is_behind_sentinels
    asyncio.run(run_schedules(seeds, lanes=options.lanes, tell=tell, behind_sentinels=behind))
    for line in summary(outcomes):
        _say(line)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


def _progress(outcomes: list[Outcome]) -> str:
    proofs = sum(outcome.proofs.total() - outcome.proofs["refused"] for outcome in outcomes)
    broken = sum(bool(outcome.violations) for outcome in outcomes)
    return f"{len(outcomes)} schedules, {proofs} proofs, {broken} broken"


def summary(outcomes: list[Outcome]) -> Iterable[str]:
    """The figures of a run, as the documentation has them."""
    proofs, drawn = Counter[str](), Counter[str]()
    for outcome in outcomes:
        proofs += outcome.proofs
        drawn.update(step.action for step in outcome.steps)
    behind = sum(outcome.is_behind_sentinels for outcome in outcomes)
    yield f"{_progress(outcomes)}; {behind} schedules behind Sentinels"
    kinds = ("plain", "drained", "component", "refused")
    yield "proofs: " + ", ".join(f"{proofs[kind]} {kind}" for kind in kinds)
    yield (
        f"judged: {sum(outcome.answers for outcome in outcomes)} answers, "
        f"{sum(outcome.in_flight for outcome in outcomes)} requests in flight, "
        f"{sum(outcome.joins for outcome in outcomes)} registrations in bursts"
    )
    names = [*ACTIONS, *SENTINEL_ACTIONS]
    yield "drawn: " + ", ".join(f"{drawn[name]} {name}" for name in names)


def _break_rules(names: list[str], seed: int, lanes: int) -> int:
    missed = 0
    for name in names:
        started, seeds = time.monotonic(), range(seed, seed + _MOST_PER_VARIANT)
        running = run_schedules(seeds, lanes=lanes, variant=name, stop_at_first=True)
        outcomes = asyncio.run(running)
        found = [outcome for outcome in outcomes if outcome.violations]
        missed += not found
        what = f"found after {len(outcomes)} schedules" if found else "NOT FOUND"
        _say(f"{name}: {VARIANTS[name].rule}: {what}; {time.monotonic() - started:.0f} s")
        for outcome in found[:1]:
            _say(f"  seed {outcome.seed}: {outcome.violations[0]}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
