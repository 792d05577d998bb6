"""docs/architecture.md: its floors are those that import-linter checks, and its drawings say in
words what they show.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import tomllib
from pathlib import Path
from types import FrameType
from typing import Final
from xml.etree import ElementTree

import pytest

from ..support.commands import run
from ..support.pages import ROOT, Block

PAGE: Final = "docs/architecture.md"
DRAWINGS: Final = sorted((ROOT / "docs" / "diagrams").iterdir())
SVG: Final = "{http://www.w3.org/2000/svg}"


def test_tree_has_every_entry_of_the_package() -> None:
    (tree,) = (block.text for block in Block.all_of(PAGE) if "tree" in block.options)
    entries = {path.name for path in (ROOT / "fastapi_maintenance").iterdir()}
    hidden = {"__main__.py", "__pycache__", "py.typed"}
    assert {
        name for name in entries - hidden if not re.search(rf"[ ·]{re.escape(name)}\b", tree)
    } == set()


def test_the_floors_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    (floors,) = (contract["layers"] for contract in contracts if contract["name"] == "Floors")
    text = "".join(f"{re.sub(r'[()]', '', floor)}\n" for floor in floors)
    (shown,) = (block.text for block in Block.all_of(PAGE) if "floors" in block.options)
    if os.environ.get("RENEW_DOCS"):
        (ROOT / PAGE).write_text((ROOT / PAGE).read_text().replace(shown, text))
    else:
        assert shown == text, "run this test with RENEW_DOCS=1"


def test_walk_of_run_enters_the_files_that_are_named(redis_url: str) -> None:
    package = str(ROOT / "fastapi_maintenance") + os.sep
    entered: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(package) and code.co_name[0] != "<":
            entered.add(code.co_filename.removeprefix(package))

    walk = ("run", "--expect", "0", "--backend", redis_url, "--", "true")
    run(*walk)  # everything is imported
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        ran = run(*walk)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)

    assert ran.code == 0, ran.err
    (named,) = (block.text for block in Block.all_of(PAGE) if "walk-of-run" in block.options)
    below = ("_internal/", "backends/", "model/")
    above = {name for name in entered if not name.startswith(below)}
    assert above | {"backends/default.py"} <= {*named.split()}


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.stem)
def test_drawing_is_one_file_for_light_and_dark(drawing: Path) -> None:
    text = drawing.read_text()
    root = ElementTree.fromstring(text)

    assert all(root.findtext(f"{SVG}{name}") for name in ("title", "desc"))
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"(href|src)=|url\((?!#)|<script", text)
    assert f"](diagrams/{drawing.name})" in (ROOT / PAGE).read_text()
