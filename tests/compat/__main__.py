"""Compare a test suite without and with the middleware: python -m tests.compat PYTHON SUITE [PYTEST
ARGUMENT]...
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

PLUGIN: Final = Path(__file__).parent
RANDOM: Final = re.compile("[A-Za-z0-9_-]{40,}")


def run(python: str, suite: Path, mode: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a suite with its own interpreter, and return what the plugin has written down."""
    with TemporaryDirectory() as directory:
        results = Path(directory, "results.json")
        options = ["-q", "-p", "no:cacheprovider", "-p", "outermost", "--outermost", mode]
        done = subprocess.run(
            [python, "-m", "pytest", *options, "--outermost-results", results, *arguments],
            cwd=suite,
            env={**os.environ, "PYTHONPATH": str(PLUGIN)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if not results.exists():
            raise SystemExit(f"{done.stdout}\nThe suite could not be run.")
        found: dict[str, Any] = json.loads(results.read_text())
    return found


def changed(bare: dict[str, str], outermost: dict[str, str]) -> Iterator[str]:
    """Yield the tests that the middleware gives another outcome."""
    before, after = _by_test(bare), _by_test(outermost)
    for test in sorted({*before, *after}):
        if before[test] != after[test]:
            yield f"{test}: {_joined(before[test])}, with the middleware {_joined(after[test])}"


def _by_test(outcomes: dict[str, str]) -> defaultdict[str, Counter[str]]:
    """Count the outcomes of each test. Parameters that are random differ from run to run."""
    tests: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for test, outcome in outcomes.items():
        name, bracket, parameters = test.partition("[")
        tests[name + bracket + RANDOM.sub("*", parameters)][outcome] += 1
    return tests


def _joined(outcomes: Counter[str]) -> str:
    return " and ".join(sorted(outcomes.elements())) or "missing"


def compare(python: str, suite: Path, arguments: Sequence[str]) -> Iterator[str]:
    """Yield figures for each way of running the suite, each difference, and a row of a table."""
    bare = run(python, suite, "bare", arguments)
    yield f"{suite.name}, bare: {_counted(bare['outcomes'])}"
    if not bare["outcomes"]:
        raise SystemExit(f"{suite.name} has no tests.")
    outermost = run(python, suite, "open", arguments)
    yield f"{suite.name}, open: {_counted(outermost['outcomes'])}"
    judged = run(python, suite, "judged", arguments)
    yield f"{suite.name}, asking a closed gate: {_counted(judged['outcomes'])}"
    agreed = judged["compared"] - len(judged["differences"])
    yield (
        f"{suite.name}, closed: as the application routes it in {agreed} of {judged['compared']} "
        "requests, "
        f"{judged['not_routed']} others reached no router"
    )
    yield from (f"DIFFERENT {line}" for line in changed(bare["outcomes"], outermost["outcomes"]))
    yield from (f"DIFFERENT {line}" for line in judged["differences"])
    before, after = _counted(bare["outcomes"]), _counted(outermost["outcomes"])
    yield f"| {suite.name} | {before} | {after} | {agreed:,} of {judged['compared']:,} |"


def _counted(outcomes: dict[str, str]) -> str:
    return ", ".join(
        f"{count:,} {name}" for name, count in sorted(Counter(outcomes.values()).items())
    )


def main(python: str, suite: str, *arguments: str) -> int:
    """Print the figures and the differences. Return 1 if there are any."""
    differ = 0
    for line in compare(os.path.abspath(python), Path(suite), arguments):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        differ |= line.startswith("DIFFERENT ")
        if line.startswith("| ") and (table := os.environ.get("COMPAT_TABLE")):
            with Path(table).open("a") as rows:
                rows.write(f"{line}\n")
    return differ


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
