"""The check: flips the switch in every way, and holds each worker to the right answer each time."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from .client import Answer
from .crew import Crew
from .server import RedisServer
from .tally import Sample, Tally
from .turns import Turn
from .witness import Statement

__all__ = ["Trial", "complaints"]

_IN_TIME: Final = 2.0  # seconds; what nobody pushes is found by a poll, 1.2 s later at the most
_FIRST_LOOK: Final = 0.01  # seconds until a client looks; a worker that has to answer meanwhile is slower to follow
_LAST_LOOK: Final = 0.04  # seconds between looks in the end; they double until then
_SKEW: Final = 0.01  # seconds by which Redis may end a time to live early, as it counts milliseconds
_ALWAYS: Final = {"/health": 200, "/reports": 503, "/nowhere": 404}  # forced off, forced on, and no such route


class Trial:
    """Turns the switch on and off, one turn after another, and collects samples and complaints."""

    def __init__(self, redis: RedisServer, crew: Crew) -> None:
        self._redis = redis
        self._crew = crew
        self.tally = Tally()
        self.complaints: list[str] = []

    async def run(self, turns: Sequence[Turn]) -> None:
        """Try every turn; the first that goes wrong is the last."""
        for number, turn in enumerate(turns):
            for on in (True, False):
                when = f"{turn.name}, {'on' if on else 'off'}"
                await self._flip(turn, on, when)
                if number == 0:
                    await self._try_other_routes(when)
                if self.complaints:
                    return
                # Some pause, never the same, so that the flips do not fall into step with the workers' polls.
                await asyncio.sleep(random.uniform(0.02, 0.06))

    async def _flip(self, turn: Turn, on: bool, when: str) -> None:
        at = await turn.make(self._redis, on=on)
        pids = self._crew.pids
        looks = await asyncio.gather(*(self._await_status(pid, 503 if on else 200, at + _IN_TIME) for pid in pids))
        for pid, (answer, seen_at) in zip(pids, looks, strict=True):  # only now: a worker that has to answer is slower to follow
            statement = await self._crew.hear(pid)
            found = [*complaints(answer, closed=on, detail=turn.detail), *_doubts(statement, on=on, at=at)]
            self._complain(when, pid, found)
            if not found:
                self.tally.add(Sample(pid, turn.name, max(0.0, statement.changed_at - at), seen_at - at))

    async def _try_other_routes(self, when: str) -> None:
        for pid in self._crew.pids:
            answers = [(await self._crew.ask(pid, path), path, status) for path, status in _ALWAYS.items()]
            found = [f"answered {answer.status} to {path}, not {status}" for answer, path, status in answers if answer.status != status]
            self._complain(when, pid, found)

    def _complain(self, when: str, pid: int, found: Iterable[str]) -> None:
        self.complaints += [f"{when}: worker {pid} {what}." for what in found]

    async def _await_status(self, pid: int, status: int, deadline: float) -> tuple[Answer, float]:
        """Look until the status is there, or time is up; the answer then got, and when."""
        pause = _FIRST_LOOK
        while True:
            await asyncio.sleep(pause)
            answer = await self._crew.ask(pid, "/")
            now = time.monotonic()
            if answer.status == status or now > deadline:
                return answer, now
            pause = min(2 * pause, _LAST_LOOK)


def complaints(answer: Answer, *, closed: bool, detail: str) -> Iterator[str]:
    """What is wrong with a worker's answer to an ordinary request."""
    status = 503 if closed else 200
    if answer.status != status:
        yield f"answered {answer.status} instead of {status}"
        return
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = answer.body
    if not closed:
        if not isinstance(body, dict) or "hello" not in body:
            yield f"answered 200 with {body}"
        return
    if body != {"detail": detail}:
        yield f"answered 503 with {body}, not with the detail {detail!r}"
    if answer.headers.get("cache-control") != "no-store":
        yield "answered 503 without Cache-Control: no-store"
    if not answer.headers.get("retry-after", "").isdigit():
        yield "answered 503 without Retry-After"


def _doubts(statement: Statement, *, on: bool, at: float) -> Iterator[str]:
    """What is wrong with what a worker says of itself after a flip at that time."""
    if statement.enabled is not on or statement.changed_at < at - _SKEW:
        yield f"says that it has been {'closed' if statement.enabled else 'open'} since {at - statement.changed_at:.3f} s before the flip"
