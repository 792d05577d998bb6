"""Every block of code in README.md and in the documentation beside it is run, or read by what reads such text."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastapi_maintenance import MaintenanceState

from .ports import free_port
from .servers import RedisServer
from .waiting import eventually_sync

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": 10,
    "docs/hooks.md": 2,
    "docs/metrics.md": 4,
    "docs/other-processes.md": 2,
    "docs/testing.md": 4,
}  # with the least number of blocks to run
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block; what follows the language on its first line says how to run it."""

    language: str
    options: dict[str, str]
    text: str

    @classmethod
    def all_of(cls, page: Path) -> list[Block]:
        found = FENCE.findall(page.read_text())
        return [cls(language, dict(word.partition("=")[::2] for word in rest.split()), text) for language, rest, text in found]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def shell(redis_server: RedisServer, port: int, tmp_path: Path) -> dict[str, str]:
    """An environment in which the page's addresses are those of this test's servers."""
    programs = tmp_path / "bin"
    programs.mkdir()
    commands = {
        "redis-cli": f"exec {_which('redis-cli')} -p {redis_server.port}",
        "fastapi-maintenance": f"exec {sys.executable} -m fastapi_maintenance",
        "uvicorn": f"exec {sys.executable} -m uvicorn",
        "alembic": f"exec {sys.executable} -m alembic",
        "pytest": f"exec {sys.executable} -m pytest -q -p no:cacheprovider",
    }
    for name, command in commands.items():
        (programs / name).write_text(f'#!/bin/sh\n{command} "$@"\n')
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    python_path = os.pathsep.join([str(tmp_path), str(ROOT), "."])
    return {**os.environ, "PATH": path, "PYTHONPATH": python_path, "SHOP_DATABASE": str(tmp_path / "shop.db")}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("page", "blocks"), PAGES.items())
def test_the_page_runs_from_top_to_bottom(
    page: str, blocks: int, shell: dict[str, str], redis_server: RedisServer, port: int, tmp_path: Path
) -> None:
    ran = 0
    background: list[subprocess.Popen[bytes]] = []

    def here(text: str) -> str:
        for there, ours in (("localhost:6379", f"localhost:{redis_server.port}"), (":8000", f":{port}"), ("8001", str(free_port()))):
            text = text.replace(there, ours)
        return text

    try:
        for block in Block.all_of(ROOT / page):
            if "no-run" in block.options:
                continue
            text = here(block.text)
            if block.language == "python":
                _run_python(text, block.options.get("file"), shell, tmp_path)
            elif block.language == "json":
                MaintenanceState.parse(text)
            elif "background" in block.options:
                background.append(subprocess.Popen([*shlex.split(text), "--port", str(port)], env=shell, cwd=tmp_path))
                _wait_for(port, shell)
            else:
                assert block.language == "bash"
                where = ROOT / block.options["cd"] if "cd" in block.options else tmp_path
                _run_bash(text, shell, where)
            ran += 1
    finally:
        for process in background:
            process.terminate()
            process.wait(20)

    assert ran >= blocks


def _run_python(text: str, name: str | None, shell: dict[str, str], home: Path) -> None:
    file = home / (name or "block.py")
    file.write_text(text)
    done = subprocess.run([sys.executable, str(file)], env=shell, cwd=home, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{text}\n{done.stderr}"


def _run_bash(text: str, shell: dict[str, str], where: Path) -> None:
    """Run a block, and hold it to the status codes that its comments promise."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], env=shell, cwd=where, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    promised = re.findall(r"^curl .*# (\d{3})", text, re.MULTILINE)
    assert re.findall(r"HTTP/1.1 (\d{3})", done.stdout) == promised


def _wait_for(port: int, shell: dict[str, str]) -> None:
    def answers() -> bool:
        command = ["curl", "-s", "--noproxy", "*", "-o", os.devnull, f"http://127.0.0.1:{port}/"]
        return subprocess.run(command, env=shell, check=False).returncode == 0

    eventually_sync(answers, within=60, every=0.2)
    time.sleep(0.5)  # for the slowest of several workers


def _which(program: str) -> str:
    found = subprocess.run(["sh", "-c", f"command -v {program}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
