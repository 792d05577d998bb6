"""The figures that scripts/lint prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import figures
from .figures import Figure, main, retired_in


def test_figures_above_limit_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        figures, "figures", lambda: [Figure("floors", 10, 10), Figure("lines", 11, 10, 5)]
    )

    assert main() == 1
    assert [line.endswith("too many") for line in capsys.readouterr().out.splitlines()] == [
        False,
        True,
    ]


def test_figures_within_limits_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "figures", lambda: [Figure("floors", 10, 10)])

    assert main() == 0


def test_retired_words_are_found_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text("MaintenanceAnswers\nand whoever uses MaintenanceAnswer\n")

    assert list(retired_in([tmp_path / "page.md"])) == [
        "page.md:2: whoever",
        "page.md:2: MaintenanceAnswer",
    ]
