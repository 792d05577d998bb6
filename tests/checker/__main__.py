"""`python -m tests.checker --schedules 2000 --seed 1`: the long run, with progress."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from .run import run_schedules


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="checker", description=__doc__)
    parser.add_argument("--schedules", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument(
        "--break-fence",
        action="store_true",
        help="let workers never close themselves: violations must appear",
    )
    options = parser.parse_args()
    _say(f"seeds {options.seed} to {options.seed + options.schedules - 1}")
    violations = proofs = answers = done = 0
    started = time.monotonic()
    while done < options.schedules:
        first = options.seed + done
        batch = range(first, min(first + 50, options.seed + options.schedules))
        for outcome in asyncio.run(
            run_schedules(batch, lanes=options.lanes, broken=options.break_fence)
        ):
            done, proofs, answers = done + 1, proofs + outcome.proofs, answers + outcome.answers
            violations += bool(outcome.violations)
            for violation in outcome.violations[:3]:
                _say(f"seed {outcome.seed}: {violation}\n  {outcome.steps}")
        _say(
            f"{done} schedules, {proofs} proofs, {answers} answers, {violations} broken; "
            f"{time.monotonic() - started:.0f} s"
        )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
