"""What the live view shows: the workers as they were last seen. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from .tally import milliseconds
from .witness import Statement
from .writes import Ledger, Write

__all__ = ["Board", "Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One worker; `status` is what a visitor gets from it. Times are in words, and empty before the first flip."""

    pid: int
    status: int
    source: str
    rung: str
    reached: str
    median: str

    @property
    def state(self) -> str:
        """Whether visitors get in, in one word."""
        return _state(self.status)


@dataclass(slots=True)
class _Seen:
    status: int
    statement: Statement
    reached: str = ""
    times: list[float] = field(default_factory=list)


class Board:
    """Takes in what was seen of workers and of writes to the switch, and says what is new in it."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._seen: dict[int, _Seen] = {}
        self.rungs: Mapping[int, str] = {}

    def wrote(self, write: Write) -> None:
        """Note a write."""
        self._ledger.wrote(write)

    def left(self, pid: int) -> str:
        """Note that a worker is gone, and say so."""
        self._seen.pop(pid, None)
        return f"worker {pid} is gone"

    def saw(self, status: int, statement: Statement) -> str | None:
        """Note what a worker answered and what it said of itself. Returns a sentence if that is news."""
        pid = statement.pid
        if pid not in self._seen:
            self._seen[pid] = _Seen(status, statement)
            return f"worker {pid} {_what_stands(status, statement) if statement.trouble else f'is {_state(status)} ({status})'}"
        seen = self._seen[pid]
        before, seen.status, seen.statement = seen.statement, status, statement
        if statement.changes != before.changes:
            return f"worker {pid} is {_state(status)} ({status}), {self._explain(seen)}"
        if statement.trouble != before.trouble:
            return f"worker {pid} {_what_stands(status, statement)}"
        return f"worker {pid} has its state from {statement.source}" if statement.source != before.source else None

    def _explain(self, seen: _Seen) -> str:
        followed = self._ledger.followed(seen.statement.pid, seen.statement.changed_at)
        if followed is None:
            seen.reached = "by itself"  # a time to live, a window or a hold ended
            return seen.reached
        write, seconds = followed
        seen.times.append(seconds)
        seen.reached = milliseconds(seconds)
        return f"{seen.reached} after {write.text}"

    def rows(self) -> list[Row]:
        """The workers, by process id."""
        return [self._row(pid, seen) for pid, seen in sorted(self._seen.items())]

    def _row(self, pid: int, seen: _Seen) -> Row:
        middle = milliseconds(median(seen.times)) if seen.times else ""
        source = seen.statement.source + (", unreadable" if seen.statement.trouble else "")
        return Row(pid, seen.status, source, self.rungs.get(pid, "?"), seen.reached, middle)


def _state(status: int) -> str:
    return "open" if status == 200 else "closed"


def _what_stands(status: int, statement: Statement) -> str:
    """What a worker does about a switch that it cannot read, or can read again."""
    if statement.trouble:
        return f"stays {_state(status)} ({status}), as it cannot read the switch: {statement.trouble}"
    return f"can read the switch again, and is {_state(status)} ({status})"
