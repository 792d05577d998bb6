"""What the demo tells its user: how to flip the switch, and how a check ended. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from .server import KEYS
from .tally import Tally, milliseconds

__all__ = ["instructions", "verdict"]

_GOOD: Final = 0.010  # seconds that a flip may take, in the median, to reach a worker where it is pushed
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


def verdict(tally: Tally, complaints: Sequence[str], *, pushed: bool) -> tuple[bool, str]:
    """Whether a check is passed, and the last words about it."""
    if complaints:
        return False, "\n".join(["FAILED: a worker was wrong.", *(f"  {complaint}" for complaint in complaints[:_MOST])])
    right = f"every worker answered right after each of {tally.flips} flips; median {milliseconds(tally.median)}"
    if not pushed:
        return True, f"OK: {right}, by messages and polling alone."
    if tally.median >= _GOOD:
        return False, f"FAILED: {right}, which is not under {milliseconds(_GOOD)}. Is this machine busy with something else?"
    return True, f"OK: {right}, and so under {milliseconds(_GOOD)}."
