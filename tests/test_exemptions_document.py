"""docs/exemptions.md: its Python runs, and it names every rule."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from fastapi_maintenance import exemptions
from fastapi_maintenance.cli import app as cli
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


@pytest.fixture(autouse=True)
def _with_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_SECRET", "0123456789abcdef0123456789abcdef")


def test_the_commands_do_what_they_say(tmp_path: Path) -> None:
    for block in blocks("bash"):
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "fastapi-maintenance"
            result = CliRunner().invoke(cli, ["--backend", f"file:{tmp_path}/switch.json", *arguments], catch_exceptions=False)
            assert result.exit_code == 0, result.output


def test_every_rule_is_in_the_table() -> None:
    named = set(re.findall(r"`([A-Z]\w+)", DOCUMENT))
    assert set(exemptions.__all__) - {"Rule", "ScopeRule"} <= named
