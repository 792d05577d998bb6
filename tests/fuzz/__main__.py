"""`python -m tests.fuzz --minutes 10`: the properties in this folder, again and again with new
garbage.

`python -m tests.fuzz --routes 1000000`: so many requests to drawn route trees, and how many were
judged otherwise than they ran.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from .effort import VARIABLE
from .routes import compare


def compare_routes(requests: int, seed: int, at_once: int = 200) -> int:
    seeds = range(seed, seed + -(-requests // at_once))
    sys.stdout.write(f"seeds {seeds.start} to {seeds.stop - 1}, {at_once} requests each\n")
    differences = 0
    for part in (seeds[start : start + 100] for start in range(0, len(seeds), 100)):
        found = compare(part, requests=at_once)
        sys.stdout.write("".join(f"{difference[:2000]}\n" for difference in found))
        differences += len(found)
        asked = (part.stop - seeds.start) * at_once
        sys.stdout.write(f"after {asked} requests: {differences} differences\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(seeds) * at_once} requests, {differences} differences\n")
    return 1 if differences else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument(
        "--minutes",
        type=float,
        default=10.0,
        help="no round begins after that; the last one is finished",
    )
    parser.add_argument(
        "--times", type=int, default=5, help="so many times the suite's examples in one round"
    )
    parser.add_argument(
        "--routes", type=int, metavar="REQUESTS", help="only compare what is judged with what runs"
    )
    parser.add_argument(
        "--seed", type=int, default=int.from_bytes(os.urandom(4)), help="the first tree of --routes"
    )
    options, more = parser.parse_known_args()
    if options.routes:
        return compare_routes(options.routes, options.seed)
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(Path(__file__).parent),
        "-q",
        "-x",
        "--timeout",
        "3600",
        *more,
    ]
    until, rounds = time.monotonic() + 60 * options.minutes, 0
    while time.monotonic() < until:
        rounds += 1
        sys.stdout.write(f"round {rounds}\n")
        sys.stdout.flush()
        if failed := subprocess.call(command, env=os.environ | {VARIABLE: str(options.times)}):
            return failed
    return 0


if __name__ == "__main__":
    sys.exit(main())
