"""The package as users get it: built, installed into an environment of its own far from the source
tree, and used there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from fastapi_maintenance._internal.version import VERSION

from .support.servers import RedisServer
from .support.waiting import eventually_sync

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = ROOT / "fastapi_maintenance"
OFFLINE: Final = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|dns error|Temporary failure in name "
    r"resolution"
)
APP: Final = """
from fastapi import FastAPI
from fastapi_maintenance import MaintenanceModeMiddleware

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware)


@app.get("/")
async def index() -> str:
    return "open"
"""


def build(source: Path, where: Path, *targets: str) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--directory",
        where,
        *(f"--target={target}" for target in targets),
    ]
    subprocess.run(command, cwd=source, capture_output=True, timeout=60, check=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what would be published."""
    where = tmp_path_factory.mktemp("dist")
    build(ROOT, where, "sdist", "wheel")
    return where


def files_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def the(pattern: str, where: Path) -> Path:
    (found,) = where.glob(pattern)
    return found


@pytest.mark.timeout(120)
def test_the_wheel_has_the_whole_package_and_nothing_else(built: Path) -> None:
    there = {
        str(file.relative_to(ROOT))
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }

    assert files_in(the("*.whl", built)) == there
    assert {Path(name).suffix for name in there} >= {
        ".py",
        ".typed",
        ".lua",
        ".html",
        ".css",
        ".js",
    }


@pytest.mark.timeout(120)
def test_what_is_built_from_the_source_distribution_is_the_same(
    built: Path, tmp_path: Path
) -> None:
    with tarfile.open(the("*.tar.gz", built)) as archive:
        if hasattr(tarfile, "data_filter"):  # Debian's 3.11 has it not
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(tmp_path)
    source = the("fastapi_maintenance_cluster-*", tmp_path)
    assert {
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "docs",
        "tests",
        "scripts",
        "zensical.toml",
    } <= {path.name for path in source.iterdir()}

    build(source, tmp_path / "again", "wheel")

    assert files_in(the("again/*.whl", tmp_path)) == files_in(the("*.whl", built))


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel with its command line, and what
    that needs.
    """
    home = tmp_path_factory.mktemp("elsewhere") / "venv"
    wanted = [f"{the('*.whl', built)}[cli]", "uvicorn"]
    commands: list[list[str | Path]]
    if uv := shutil.which("uv"):
        commands = [
            [uv, "venv", "--python", sys.executable, home],
            [uv, "pip", "install", "--python", home / "bin/python", *wanted],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", "--without-pip", home],
            [sys.executable, "-m", "pip", "--python", home, "install", "--quiet", *wanted],
        ]
    for command in commands:
        done = subprocess.run(
            command, cwd=home.parent, capture_output=True, text=True, timeout=240, check=False
        )
        if OFFLINE.search(done.stderr):
            pytest.skip("There is no network, and so nothing to install beside the wheel.")
        assert done.returncode == 0, done.stderr
    return home / "bin"


@pytest.fixture
def environment(redis_server: RedisServer) -> dict[str, str]:
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))
    }
    return {**ours, "FASTAPI_MAINTENANCE_BACKEND": redis_server.url, "no_proxy": "127.0.0.1"}


def run(program: Path, *arguments: str, environment: dict[str, str], where: Path) -> str:
    done = subprocess.run(
        [program, *arguments],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.timeout(300)
def test_it_is_imported_from_there_and_knows_its_version(
    installed: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    say = "import fastapi_maintenance.backends.redis as it; print(it.__file__)"

    assert Path(
        run(installed / "python", "-c", say, environment=environment, where=tmp_path)
    ).is_relative_to(installed.parent.resolve())
    assert VERSION in run(
        installed / "fastapi-maintenance", "--version", environment=environment, where=tmp_path
    )


@pytest.mark.timeout(300)
def test_it_serves_and_is_flipped(
    installed: Path,
    environment: dict[str, str],
    redis_server: RedisServer,
    free_port: int,
    tmp_path: Path,
) -> None:
    (tmp_path / "main.py").write_text(APP)
    with serving(installed, environment, free_port, tmp_path) as url:
        eventually_sync(lambda: ask(url)[0] == 200, within=60, every=0.1)
        redis_server.cli("SET", "maintenance", '{"enabled": true, "message": "Back at four"}')
        eventually_sync(lambda: ask(url)[0] == 503, within=30)
        assert "Back at four" in ask(url, "text/html")[1]
        assert "Back at four" in run(
            installed / "fastapi-maintenance", "status", environment=environment, where=tmp_path
        )
        run(installed / "fastapi-maintenance", "off", environment=environment, where=tmp_path)
        eventually_sync(lambda: ask(url)[0] == 200, within=30)


@contextmanager
def serving(installed: Path, environment: dict[str, str], port: int, where: Path) -> Iterator[str]:
    command: list[str | Path] = [
        installed / "uvicorn",
        "main:app",
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]
    process = subprocess.Popen(command, cwd=where, env=environment)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(20)


def ask(url: str, accept: str = "*/*") -> tuple[int, str]:
    """Status and text; status 0 where nobody listens yet."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers={"accept": accept}), timeout=10
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read().decode()
    except urllib.error.URLError:
        return 0, ""
