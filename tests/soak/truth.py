"""Which answers are right, and when. Pure.

A flip makes two answers right for a while: the new one from the moment that it is sent, the old one
until it is due.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

OPEN: Final = 200
CLOSED: Final = 503
ODD: Final = 500
"""Neither the application's answer nor our 503, whatever its status."""
GONE: Final = 0
"""Not an answer: the connection ended."""

_EXAMPLES: Final = 10


class Batch(NamedTuple):
    """So many equal answers of one worker, sent and received together; local monotonic times."""

    worker: int
    sent: float
    received: float
    status: int
    answers: int


@dataclass(eq=False)
class Flip:
    """A change of what is right. `reference` is from when on its age counts: the reply to the
    write, or the end of a fault.

    `late` has another reference for the workers that were away.
    """

    closed: bool
    begins: float
    reference: float = math.inf
    bound: float = 0.0
    late: dict[int, float] = field(default_factory=dict)

    def since(self, worker: int) -> float:
        """From when on this worker could follow."""
        return max(self.reference, self.late.get(worker, -math.inf))


@dataclass
class Verdict:
    """What came of judging answers: how many, how many of them wrong, errors, and the oldest that
    was still allowed or not.
    """

    answers: int = 0
    wrong: int = 0
    odd: int = 0
    gone: int = 0
    worst: float = 0.0
    examples: list[str] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        """Take another's counts in."""
        self.answers += other.answers
        self.wrong += other.wrong
        self.odd += other.odd
        self.gone += other.gone
        self.worst = max(self.worst, other.worst)
        for example in other.examples:
            self.note(example)

    def note(self, example: str) -> None:
        """Keep the first few."""
        if len(self.examples) < _EXAMPLES:
            self.examples.append(example)


class Truth:
    """All flips so far, the last few of them kept."""

    def __init__(self, now: float, slack: float) -> None:
        self.slack = slack
        self._flips = [Flip(closed=False, begins=now, reference=now)]

    @property
    def closed(self) -> bool:
        """What is right now."""
        return self._flips[-1].closed

    def begin(self, closed: bool, now: float) -> Flip:
        """Somebody is about to write: from now on the new answer is right too. The old one stays so
        until the flip is settled.
        """
        flip = Flip(closed, now)
        self._flips = [*self._flips[-20:], flip]
        return flip

    def due(self) -> float:
        """When every worker must have followed every flip, the slack included."""
        return (
            max(max([flip.reference, *flip.late.values()]) + flip.bound for flip in self._flips)
            + self.slack
        )

    def judge(self, batches: Iterable[Batch], excused: frozenset[int] = frozenset()) -> Verdict:
        """Judge answers, after all flips have been settled. Of `excused` workers, connections may
        end.
        """
        verdict = Verdict()
        for batch in batches:
            if batch.status == GONE:
                if batch.worker not in excused:
                    verdict.gone += 1
                    verdict.note(
                        f"worker {batch.worker} ended a connection at {batch.received:.3f}"
                    )
            elif batch.status == ODD:
                verdict.odd += batch.answers
                verdict.note(
                    f"worker {batch.worker} answered something odd at {batch.received:.3f}"
                )
            else:
                verdict.answers += batch.answers
                self._judge_answer(batch, verdict)
        return verdict

    def _judge_answer(self, batch: Batch, verdict: Verdict) -> None:
        closed = batch.status == CLOSED
        last = self._flips[-1]
        if last.closed is closed and batch.received >= last.begins:
            return
        fits = [
            index
            for index, flip in enumerate(self._flips)
            if flip.closed is closed and flip.begins <= batch.received
        ]
        ended = [self._flips[index + 1] for index in fits if index + 1 < len(self._flips)]
        if not ended:  # neither now nor at any time before
            self._convict(batch, verdict, "before the flip was sent")
            return
        latest = max(ended, key=lambda flip: flip.since(batch.worker) + flip.bound)
        age = batch.sent - latest.since(batch.worker)
        verdict.worst = max(verdict.worst, age)
        if age > latest.bound + self.slack:
            self._convict(batch, verdict, f"{age:.3f} s after it was over")

    @staticmethod
    def _convict(batch: Batch, verdict: Verdict, why: str) -> None:
        verdict.wrong += batch.answers
        verdict.note(
            f"worker {batch.worker} answered {batch.status} at {batch.received:.3f}, {why}"
        )
