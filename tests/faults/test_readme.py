"""That the README's lists of faults are complete, and name tests that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
README: Final = (HERE / "README.md").read_text()
SCENARIOS: Final = 36
ABOUT_THE_SUITE: Final = ("test_harness.py", "test_readme.py")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its first two lines."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def named(text: str) -> list[str]:
    """The tests that a text names."""
    return re.findall(r"`([\w/]+\.py::\w+)`", text)


def defined(path: Path) -> Iterator[str]:
    """The tests in a file, by the names that `named` finds; read and not run."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
            "test_"
        ):
            yield f"{path.relative_to(HERE.parent).as_posix()}::{node.name}"


def test_every_scenario_is_listed_once() -> None:
    assert [int(number) for number, *_ in rows("Scenarios")] == list(range(1, SCENARIOS + 1))


@pytest.mark.parametrize("heading", ["Scenarios", "What a worker does, and how soon"])
def test_every_fault_is_tested_or_its_absence_argued(heading: str) -> None:
    assert [
        row
        for row in rows(heading)
        if not named(row[-1]) and not re.fullmatch(r"absent: .{10,}", row[-1])
    ] == []


def test_every_test_that_is_named_exists() -> None:
    tests = set(named(README))
    there = {
        name
        for file in {test.split("::")[0] for test in tests}
        for name in defined(HERE.parent / file)
    }

    assert len(tests) > 60
    assert tests - there == set()


def test_every_test_of_this_suite_is_named() -> None:
    files = [path for path in HERE.glob("test_*.py") if path.name not in ABOUT_THE_SUITE]

    assert [test for path in files for test in defined(path) if test not in named(README)] == []
