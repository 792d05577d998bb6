"""`python -m tests.fuzz --minutes 10`: the properties in this folder, again and again with new garbage."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from .effort import VARIABLE


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="no round begins after that; the last one is finished")
    parser.add_argument("--times", type=int, default=5, help="so many times the suite's examples in one round")
    options, more = parser.parse_known_args()
    command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), "-q", "-x", "--timeout", "3600", *more]
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
