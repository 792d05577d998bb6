"""How many instructions a request costs: a number that no busy machine changes, so that CI can hold it."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from .instructed import PHASES, REQUESTS
from .measuring import say

COMMITTED: Final = Path(__file__).with_name("instructions.json")
MAX_GROWTH: Final = 0.05
_KEPT: Final = ("open", "open, 100 routes", "503", "503, 1,000 routes", "poll")
TARGETS: Final = {"open": 6500, "503": 16000, "503, 1,000 routes": 16000}
_RENEW: Final = "If that is meant, renew the figures with scripts/bench instructions --renew, and say in the commit what they buy."


def count() -> dict[str, float]:
    """Instructions of one request each, without those of calling it. Raises `RuntimeError` where they cannot be counted."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise RuntimeError(
            "there is no valgrind; install it (Debian: apt-get install valgrind; there is none for macOS on ARM)"
        )
    with TemporaryDirectory() as directory:
        counted = Path(directory) / "counted"
        command = [
            valgrind,
            "--tool=callgrind",
            "--dump-before=getsid",
            f"--callgrind-out-file={counted}",
        ]
        # Strings hash the same in every run, so dictionaries collide the same.
        environment = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [*command, sys.executable, "-m", "benchmarks.instructed"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        names = done.stdout.split("\n")[:-1]
        totals = [_total(counted.with_name(f"counted.{number}")) for number in _dumps(counted)][
            -len(names) * PHASES :
        ]
    if done.returncode != 0 or len(totals) != len(names) * PHASES or not names:
        raise RuntimeError(f"callgrind could not count: {done.stderr[-2000:]}")
    # The least of the phases: a heap that happens to give back and ask again for the same block each time is no cost of the code's.
    costs = {
        name: min(totals[number :: len(names)]) / REQUESTS for number, name in enumerate(names)
    }
    return {name: cost - costs["nothing"] for name, cost in costs.items() if name != "nothing"}


def check(counted: dict[str, float], committed: dict[str, Any]) -> list[str]:
    """What has grown by more than it may, in sentences. An interpreter without committed figures is held to nothing."""
    ratios = in_yardsticks(counted)
    before = committed.get(interpreter(), {})
    return [
        f"{name!r} takes {ratios[name] / before[name] - 1:+.1%} instructions more than committed ({ratios[name]:.4f} yardsticks, "
        f"it was {before[name]:.4f}). {_RENEW}"
        for name in before
        if ratios[name] > before[name] * (1 + MAX_GROWTH)
    ]


def renew(counted: dict[str, float]) -> None:
    """Commit to what was counted, on this interpreter."""
    committed = {
        **read(),
        interpreter(): {name: round(ratio, 4) for name, ratio in in_yardsticks(counted).items()},
    }
    COMMITTED.write_text(json.dumps(committed, indent=2, sort_keys=True) + "\n")


def read() -> dict[str, Any]:
    """The committed figures, by interpreter."""
    figures: dict[str, Any] = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    return figures


def in_yardsticks(counted: dict[str, float]) -> dict[str, float]:
    """The counts over that of a fixed piece of Python, which differ less between builds."""
    return {name: counted[name] / counted["yardstick"] for name in _KEPT}


def interpreter() -> str:
    """What the committed figures are for: one patch release may need 7 % more than another."""
    return f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}"


def _dumps(counted: Path) -> list[int]:
    return sorted(int(path.suffix[1:]) for path in counted.parent.glob(f"{counted.name}.*"))


def _total(dump: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def instructions() -> dict[str, Any]:
    """Count, if that is possible."""
    try:
        return {"counted": count()}
    except RuntimeError as error:
        say(str(error))
        return {"counted": {}}


def hold(*, renew_figures: bool) -> int:
    """Compare with the committed figures, or renew them; return the exit code."""
    try:
        counted = count()
    except RuntimeError as error:
        say(f"the instructions were not counted: {error}")
        return 0 if "there is no valgrind" in str(error) else 1
    if renew_figures:
        renew(counted)
        return 0
    committed = read()
    if interpreter() not in committed:
        say(
            f"there are no figures for {interpreter()}; scripts/bench instructions --renew makes them."
        )
    problems = check(counted, committed)
    for problem in problems:
        say(problem)
    ratios = in_yardsticks(counted)
    say("instructions: " + ", ".join(f"{name} {ratio:.4f}" for name, ratio in ratios.items()))
    return 1 if problems else 0
