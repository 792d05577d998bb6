"""`python -m tests.soak --minutes 10`: random faults under steady load; the table at the end, and 1
if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys

from .faults import FAULTS
from .report import table, to_json
from .run import Outcome, Plan, soak


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument(
        "--workers",
        type=int,
        default=4,
        help="at least 3: two live for the whole run, the others are killed",
    )
    parser.add_argument(
        "--rate", type=int, default=3000, help="requests a second, over all workers"
    )
    parser.add_argument("--ttl", type=float, default=1.0)
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="only faults with this in their names"
    )
    parser.add_argument(
        "--sabotage",
        action="store_true",
        help="give the workers ten times the ttl: violations must appear",
    )
    parser.add_argument(
        "--json", action="store_true", help="print everything that was counted, and not the table"
    )
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    options = _options(words)
    chosen = [fault for fault in FAULTS if options.only in fault.name]
    _say(
        f"seed {options.seed}, {options.minutes:g} minutes, {options.workers} workers, "
        f"{options.rate} requests a second"
    )
    ttl = options.ttl * (10 if options.sabotage else 1)
    plan = Plan(
        options.minutes,
        options.seed,
        options.workers,
        options.rate,
        ttl,
        options.ttl,
        faults=chosen,
    )
    outcome = asyncio.run(soak(plan, _say))
    _print(outcome, as_json=options.json)
    for line in [*outcome.violations, *outcome.total.examples]:
        _say(f"seed {options.seed}: {line}")
    return 1 if outcome.violations else 0


def _print(outcome: Outcome, *, as_json: bool) -> None:
    found = to_json(outcome)
    sys.stdout.write((json.dumps(found, indent=1) if as_json else table(outcome)) + "\n")
    if not as_json:
        found.pop("faults")
        sys.stdout.write(f"\n{json.dumps(found)}\n")


if __name__ == "__main__":
    sys.exit(main())
