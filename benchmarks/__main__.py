"""Measure the named parts, or all, and write RESULTS.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from . import flips, instructions, load, page, requests, weight
from .measuring import say

PARTS: Final[dict[str, tuple[str, Callable[[], dict[str, Any]]]]] = {
    "cost": ("Cost while maintenance is off", requests.cost),
    "refusal": ("Cost of a 503", requests.refusal),
    "propagation": ("Propagation", flips.propagation),
    "load": ("Load on Redis", load.load),
    "weight": ("Weight", weight.weight),
    "barrier": ("The barrier", flips.barrier),
    "instructions": ("Instructions", instructions.instructions),
    "profile": ("A worker in a flip", flips.profile),
}
TITLES: Final = {name: title for name, (title, _) in PARTS.items()}


def main() -> int:
    """Run the command line of scripts/bench; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures benchmarks/RESULTS.md, or the named parts."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--list", action="store_true", help="list the parts")
    parser.add_argument("--render", action="store_true", help="only write the page")
    parser.add_argument("--check", action="store_true", help="instructions: fail on growth")
    parser.add_argument("--renew", action="store_true", help="instructions: commit the counts")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; choose {', '.join(PARTS)}")
    if options.list:
        print("\n".join(f"{name:14}{title}" for name, title in TITLES.items()))
        return 0
    if options.check or options.renew:
        return instructions.hold(renew_figures=options.renew)
    for name in () if options.render else options.parts or PARTS:
        title, measure = PARTS[name]
        say(f"-- {name}: {title}")
        busy, started = os.getloadavg()[0], time.monotonic()
        page.keep(name, measure(), time.monotonic() - started, busy)
    page.write(TITLES)
    say(f"written: {page.PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
