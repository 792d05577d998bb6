"""docs/exemptions.md: its Python runs, and it names every rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from fastapi_maintenance import exemptions
from fastapi_maintenance.state import MaintenanceState

DOCUMENT: Final = (Path(__file__).parents[1] / "docs" / "exemptions.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)


def test_every_block_is_of_a_kind_that_is_run_here() -> None:
    assert set(re.findall(r"^```(\w+)", DOCUMENT, re.MULTILINE)) <= {"python", "json", "bash"}


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_runs(number: int) -> None:
    names: dict[str, object] = {}
    exec(compile(blocks("python")[number], "docs/exemptions.md", "exec"), names)
    app = names["app"]
    assert callable(app)
    getattr(app, "build_middleware_stack")()  # noqa: B009


def test_the_values_of_the_switch_are_such() -> None:
    for block in blocks("json"):
        assert MaintenanceState.parse(block).enabled


def test_every_rule_is_in_the_table() -> None:
    named = set(re.findall(r"`([A-Z]\w+)", DOCUMENT))
    assert set(exemptions.__all__) - {"Rule", "ScopeRule"} <= named
