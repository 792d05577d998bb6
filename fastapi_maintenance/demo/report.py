"""What the demo tells its user: how to flip the switch, and how a check ended. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .server import KEYS
from .tally import Tally, milliseconds

__all__ = ["Verdict", "instructions", "verdict"]

_GOOD: Final = 0.010  # seconds that a flip takes at most, in the median, to reach a worker where it is pushed
_BAD: Final = 0.100  # a poll takes half a second in the median, and a push not even a tenth of that on a very busy machine
_MOST: Final = 10  # complaints that are worth reading


def instructions(port: int, backend_url: str, url: str, python: str) -> list[str]:
    """How to flip the switch by hand, and what to look at."""
    command = f"{shlex.quote(python)} -m fastapi_maintenance"
    return [
        "",
        "Flip the switch from another terminal:",
        f"  redis-cli -p {port} SET {KEYS.switch} 1",
        f"  redis-cli -p {port} DEL {KEYS.switch}",
        "or by the command line, with details:",
        f"  {command} on --backend {backend_url} --message 'Back soon' --for 10m",
        f"  {command} off --backend {backend_url}",
        f"What a visitor gets: curl -i {url}   (never closed: {url}health, always closed: {url}reports)",
        "Ctrl-C ends everything.",
        "",
    ]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a check ended, and whether it is worth another attempt because the machine was busy."""

    passed: bool
    words: str
    again: bool = False


def verdict(tally: Tally, complaints: Sequence[str], *, pushed: bool) -> Verdict:
    """Judge a check: by the workers' answers, and by the median where flips are `pushed`.

    A busy machine is not held against us, unless it is so slow that nothing can have been pushed.
    """
    if complaints:
        return Verdict(False, "\n".join(["FAILED: a worker was wrong.", *(f"  {complaint}" for complaint in complaints[:_MOST])]))
    right = f"every worker answered right after each flip, {tally.flips} times in all; median {milliseconds(tally.median)}"
    if not pushed:
        return Verdict(True, f"OK: {right}, by messages and polling alone.")
    if tally.median < _GOOD:
        return Verdict(True, f"OK: {right}, which is under {milliseconds(_GOOD)}.")
    if tally.median < _BAD:
        return Verdict(
            True, f"OK, but slow: {right}. It is under {milliseconds(_GOOD)} where nothing else keeps the machine busy.", again=True
        )
    return Verdict(False, f"FAILED: {right}. So slow is no push; look at what keeps this machine busy, and try again.", again=True)
