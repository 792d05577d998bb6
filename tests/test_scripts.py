"""What the scripts install on macOS, with a stub of Homebrew and without apt-get."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from .support.pages import ROOT

TOOLS: Final = ("basename", "cat", "cksum", "dirname", "id", "rm", "sed")
STUBS: Final = {
    "uname": "echo Darwin",
    "brew": 'echo "$*" >>brewed; for program; do :; done; [ ! -e broken ] || exit 1; '
    'printf "#!/bin/sh\\n" >"$program"; /bin/chmod +x "$program"; '
    '[ "$program" != redis ] || /bin/mv redis redis-server',
}
ADDED: Final = "/opt/homebrew/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/sbin"  # by _setup


@pytest.fixture
def mac(tmp_path: Path) -> Path:
    """A directory with all the programs that this Mac has."""
    for tool in TOOLS:
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    for name, text in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        (tmp_path / name).chmod(0o755)
    for program in ("redis-server", "chromium", "google-chrome", "apt-get", "wrk"):
        if shutil.which(program, path=ADDED):
            pytest.skip(f"{program} is where a Mac would have it")
    return tmp_path


def dry(mac: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    """Run commands after scripts/_setup, without making an environment for Python."""
    script = "\n".join(["set -eu", ". scripts/_setup", "ensure_venv() { :; }", *commands])
    return subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=ROOT,
        env={"PATH": str(mac), "HOME": str(mac)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def brewed(mac: Path) -> list[str]:
    log = mac / "brewed"
    return log.read_text().splitlines() if log.exists() else []


REDIS: Final = "install --quiet redis"
CHROMIUM: Final = "install --quiet --cask chromium"


@pytest.mark.parametrize(
    ("script", "installs"),
    [
        ("test", [REDIS, CHROMIUM]),
        ("demo", [REDIS]),
        ("panel", [REDIS]),
        ("screenshots", [REDIS, CHROMIUM]),
        ("soak", [REDIS]),
    ],
)
def test_script_on_a_mac_installs_by_brew(script: str, installs: list[str], mac: Path) -> None:
    calls = re.findall(r"\bensure_\w+(?=$| \|\|)", (ROOT / "scripts" / script).read_text(), re.M)
    ran = dry(mac, *calls)

    assert ran.returncode == 0, ran.stderr
    assert brewed(mac) == installs
    assert [f"brew {line.replace(' --quiet', '')}" in ran.stderr for line in installs] == [
        True
    ] * len(installs)


def test_program_on_a_mac_is_brewed_once(mac: Path) -> None:
    assert dry(mac, "ensure_program wrk", "ensure_program wrk").returncode == 0
    assert brewed(mac) == ["install --quiet wrk"]


def test_program_that_no_mac_has_is_missing(mac: Path) -> None:
    assert dry(mac, "ensure_program valgrind").returncode != 0
    assert brewed(mac) == []


def test_brew_that_fails_is_reported_with_a_hint(mac: Path) -> None:
    (mac / "broken").touch()
    (said,) = re.findall(r"^ensure_redis .*$", (ROOT / "scripts" / "test").read_text(), re.M)
    ran = dry(mac, said)

    assert ran.returncode == 1
    assert "macOS: brew install redis" in ran.stderr
