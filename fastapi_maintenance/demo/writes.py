"""What was written to the switch, and which worker's change came of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

__all__ = ["Ledger", "Write", "parse_monitor"]

_LINE: Final = re.compile(r"\+?(?P<at>\d+\.\d+) \[\d+ (?P<client>[^\]]*)\] (?P<words>.*)")
_WORD: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_HARMLESS: Final = frozenset({"GET", "STRLEN", "PTTL", "TTL", "EXISTS", "TYPE", "HGETALL", "HLEN", "MGET", "DUMP", "OBJECT", "WATCH"})
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"})  # what they write has lines of its own
_LONGEST: Final = 60
_AT_MOST: Final = 2.0  # seconds for a write to reach a worker; what changes later changed for another reason
_SKEW: Final = 0.005  # seconds by which two clocks' readings may disagree about an instant


@dataclass(frozen=True, slots=True)
class Write:
    """A command that may have changed the switch, and the local monotonic time of it."""

    at: float
    text: str


def parse_monitor(line: str, keys: Collection[str], clock_offset: float) -> Write | None:
    """Read a line of Redis' MONITOR: the write in it, if it is one and names one of the keys.

    `clock_offset` is the wall clock less the monotonic one.
    """
    match = _LINE.fullmatch(line.strip())
    if match is None:
        return None
    words = [_ESCAPED.sub(r"\1", word) for word in _WORD.findall(match["words"])]
    command = words[0].upper() if words else ""
    if command in _HARMLESS | _SCRIPTS or not set(keys).intersection(words[1:]):
        return None
    text = " ".join(words)
    return Write(float(match["at"]) - clock_offset, text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


class Ledger:
    """Says how long each worker took to follow the latest write."""

    def __init__(self) -> None:
        self.latest: Write | None = None
        self._previous: Write | None = None
        self._followed: dict[int, float] = {}

    def wrote(self, write: Write) -> None:
        """Enter a write."""
        self._previous, self.latest = self.latest, write

    def followed(self, pid: int, at: float) -> tuple[Write, float] | None:
        """The write that a worker followed with a change at that time, and the seconds it took.

        None if it followed none: a time to live, a window or a hold ended.
        """
        for write in (self.latest, self._previous):
            if write is not None and -_SKEW <= at - write.at <= _AT_MOST:
                if self._followed.get(pid) == write.at:
                    return None
                self._followed[pid] = write.at
                return write, max(0.0, at - write.at)
        return None
