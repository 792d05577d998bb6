"""The figures that scripts/lint prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import figures
from .figures import Figure, main, retired_in


@pytest.mark.parametrize(("lines", "code"), [(10, 0), (11, 1)])
def test_figures_above_limit_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lines: int, code: int
) -> None:
    counted = [Figure("floors", 10, 10), Figure("lines", lines, 10, 5)]
    monkeypatch.setattr(figures, "figures", lambda: counted)

    assert main() == code
    assert capsys.readouterr().out.count("too many\n") == code


def test_retired_words_are_found_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text("MaintenanceAnswers\nand whoever uses MaintenanceAnswer\n")

    assert list(retired_in([tmp_path / "page.md"])) == [
        "page.md:2: whoever",
        "page.md:2: MaintenanceAnswer",
    ]
