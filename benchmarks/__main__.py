"""Runs the parts that are named, or all, and writes RESULTS.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from types import ModuleType
from typing import Final

from . import (
    barrier,
    cost,
    counted,
    instructions,
    profiled,
    propagation,
    redis_load,
    refusal,
    weight,
)
from .progress import say
from .results import PAGE, keep, write

PARTS: Final[dict[str, ModuleType]] = {
    "cost": cost,
    "refusal": refusal,
    "propagation": propagation,
    "load": redis_load,
    "weight": weight,
    "barrier": barrier,
    "instructions": counted,
    "profile": profiled,
}


def main() -> int:
    """Measure, or hold the instruction counts to what is committed."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures everything of benchmarks/RESULTS.md, or the parts that are named.",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--list", action="store_true", help="name the parts, and measure nothing")
    parser.add_argument(
        "--render",
        action="store_true",
        help="write the page from what was measured last, and measure nothing",
    )
    parser.add_argument(
        "--check", action="store_true", help="with `instructions`: fail if they have grown"
    )
    parser.add_argument(
        "--renew", action="store_true", help="with `instructions`: commit to what is counted now"
    )
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if options.list:
        for name, part in PARTS.items():
            print(f"{name:14}{part.TITLE}")
        return 0
    if options.check or options.renew:
        return _hold_instructions(renew=options.renew)
    for name in () if options.render else options.parts or PARTS:
        say(f"-- {name}: {PARTS[name].TITLE}")
        load, started = os.getloadavg()[0], time.monotonic()
        keep(name, PARTS[name].measure(), time.monotonic() - started, load)
    write(PARTS)
    say(f"written: {PAGE}")
    return 0


def _hold_instructions(*, renew: bool) -> int:
    try:
        counted = instructions.count()
    except RuntimeError as error:
        say(f"the instructions were not counted: {error}")
        return 0 if "there is no valgrind" in str(error) else 1
    if renew:
        instructions.renew(counted)
        return 0
    committed = instructions.read()
    if instructions.interpreter() not in committed:
        say(
            f"there are no figures for {instructions.interpreter()}, so nothing was compared; scripts/bench instructions --renew makes them."
        )
    problems = instructions.check(counted, committed)
    for problem in problems:
        say(problem)
    say(
        "instructions: "
        + ", ".join(
            f"{name} {ratio:.4f}" for name, ratio in instructions.in_yardsticks(counted).items()
        )
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
