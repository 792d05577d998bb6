"""docs/architecture.md: its floors are those that import-linter checks, and its drawings say in
words what they show.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final
from xml.etree import ElementTree

import pytest

from fastapi_maintenance import maintenance_mode_on
from fastapi_maintenance.backends import RedisBackend

from ..support.commands import Ran, run
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


REDIS: Final = "backends/redis/"


def entered(walk: Callable[[], object]) -> tuple[set[str], set[str]]:
    """The files of the package that a walk enters, first with the backend as one step, then all.

    The walk is gone twice, because the first one imports.
    """
    package = str(ROOT / "fastapi_maintenance") + os.sep
    steps, files = set(), set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(package) or code.co_name[0] == "<":
            return
        file = code.co_filename.removeprefix(package)
        files.add(file)
        caller = frame.f_back
        while caller and not caller.f_code.co_filename.startswith(package + REDIS):
            caller = caller.f_back
        if caller is None:
            steps.add(REDIS if file.startswith(REDIS) else file)

    walk()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        walk()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return steps, files


def named(walk: str) -> set[str]:
    """The files that the page lists for a walk."""
    (files,) = (block.text for block in Block.all_of(PAGE) if walk in block.options)
    return {*files.split()}


def test_walk_of_a_block_enters_the_ten_files_that_are_named(redis_url: str) -> None:
    backend = RedisBackend(redis_url)

    async def block() -> None:
        async with maintenance_mode_on(backend, drain=30, expect=0):
            pass

    steps, files = entered(lambda: asyncio.run(block()))

    assert steps == named("walk-of-block")
    assert (len(steps), len(files)) <= (10, 21)


def test_walk_of_run_enters_the_files_that_are_named(redis_url: str) -> None:
    ran: list[Ran] = []
    walk = ("run", "--expect", "0", "--backend", redis_url, "--", "true")

    steps, files = entered(lambda: ran.append(run(*walk)))

    assert [(one.code, one.out) for one in ran] == [(0, "")] * 2
    assert steps == named("walk-of-block") | named("walk-of-run")
    assert (len(steps), len(files)) <= (14, 27)


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.stem)
def test_drawing_is_one_file_for_light_and_dark(drawing: Path) -> None:
    text = drawing.read_text()
    root = ElementTree.fromstring(text)

    assert all(root.findtext(f"{SVG}{name}") for name in ("title", "desc"))
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"(href|src)=|url\((?!#)|<script", text)
    assert f"](diagrams/{drawing.name})" in (ROOT / PAGE).read_text()
