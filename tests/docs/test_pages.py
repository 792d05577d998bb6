"""Every page of the documentation runs: README.md, docs/ and what else there is to read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Final

import pytest
from kubernetes_validate import ValidationError

from fastapi_maintenance.exceptions import InvalidStateError

from ..support import pages
from ..support.pages import PAGES, ROOT, Block, Reader, fences_of
from ..support.registering import register
from ..support.servers import RedisServer
from ..support.waiting import eventually_sync

NOT_RUN: Final = {
    ".github/CONTRIBUTING.md": 1,
    "README.md": 3,
    "backends/env/README.md": 1,
    "docs/from-a-flag.md": 2,
    "docs/from-fastapi-maintenance.md": 1,
    "docs/kubernetes.md": 2,
    "docs/reliability.md": 3,
    "docs/tutorial.md": 1,
}
"""How many blocks are only looked at: they need what no test has (ten minutes, the tests
themselves), or show what was before.
"""


@pytest.fixture
def reader(redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.chdir(tmp_path)
    # The commands of a page have somebody to wait for.
    register(redis_server, "ready", epoch=2**52, closed=True, drained=True)
    return Reader(redis_server, tmp_path)


def page_of(text: str, where: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (where / "page.md").write_text(text)
    monkeypatch.setattr(pages, "ROOT", where)
    return "page.md"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in PAGES if Block.all_of(page)])
def test_the_page_runs_from_top_to_bottom(page: str, reader: Reader) -> None:
    reader.read(page)


def test_no_block_of_a_page_is_overlooked() -> None:
    assert [page for page in PAGES if fences_of(page) != 2 * len(Block.all_of(page))] == []


def test_few_blocks_are_only_looked_at() -> None:
    looked_at = {
        page: sum("no-run" in block.options for block in Block.all_of(page)) for page in PAGES
    }
    assert {page: number for page, number in looked_at.items() if number} == NOT_RUN


def test_tests_that_pages_name_exist() -> None:
    named = [
        name
        for page in PAGES
        for name in re.findall(r"`(?:tests/)?([\w/]+\.py)::(\w+)`", (ROOT / page).read_text())
    ]
    assert named
    assert [
        name for file, name in named if f"def {name}(" not in (ROOT / "tests" / file).read_text()
    ] == []


BROKEN: Final = {
    "an unknown language": "```cobol\nSTOP RUN.\n```\n",
    "an unknown option": "```python skip\n1\n```\n",
    "python that raises": "```python\n1 / 0\n```\n",
    "python that cannot be read": "```python no-run\ndef\n```\n",
    "an option that cannot be meant": (
        "```python\nfrom fastapi import FastAPI\nfrom fastapi_maintenance import "
        "MaintenanceModeMiddleware\n\n"
        "app = FastAPI()\napp.add_middleware(MaintenanceModeMiddleware, "
        'on_unreachable="maybe")\n```\n'
    ),
    "a command that fails": "```bash\nfalse\n```\n",
    "a command that cannot be read": "```bash no-run\nif\n```\n",
    "another status than promised": "```bash\ncurl -V > /dev/null    # 503\n```\n",
    "another output than shown": "```bash\necho one\n```\n\n```text output\ntwo\n```\n",
    "a state that is none": '```json\n{"enabled": "perhaps"}\n```\n',
    "nginx in another word": "```nginx\nserver { listen_on 80; }\n```\n",
    "Kubernetes in another word": "```yaml schema=kubernetes\nkind: Deployment\napiVersion: "
    "apps/v1\nspec: {replica: 4}\n```\n",
    "a workflow without jobs": "```yaml schema=github-workflows\non: push\n```\n",
    "YAML of nobody": "```yaml\nkind: Deployment\n```\n",
    "toml that is none": "```toml\n[\n```\n",
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_page_with_a_fault_fails(
    what: str, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(BROKEN[what], tmp_path, monkeypatch)

    with pytest.raises(
        (AssertionError, SyntaxError, TOMLDecodeError, InvalidStateError, ValidationError)
    ):
        reader.read(page)


def test_a_page_is_left_as_it_was(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(
        "```bash\nsleep 77 &\necho $!\n```\n\n```text output\n…\n```\n", tmp_path, monkeypatch
    )

    reader.read(page)

    def state() -> str:
        """Of the process: nothing of one that is gone, Z of one that nobody has asked about yet."""
        return subprocess.run(
            ["ps", "-o", "stat=", "-p", reader.said.strip()],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()

    eventually_sync(lambda: state() in ("", "Z"), within=30)
