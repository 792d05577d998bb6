"""The check: flips the switch in every way, and holds each worker to the right answer each time."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator, Sequence
from typing import Final

from .client import Answer
from .crew import Crew
from .server import RedisServer
from .tally import Sample, Tally
from .turns import Turn

__all__ = ["Trial", "complaints"]

_IN_TIME: Final = 2.0  # seconds; what nothing pushes is found by a poll, after 1.2 s at the most
_LOOK: Final = 0.005  # seconds between a client's looks: often enough to tell, and not so often that it slows the workers down
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
        for turn in turns:
            for on in (True, False):
                await self._flip(turn, on=on)
                if self.complaints:
                    return
                # Some pause, never the same, so that the flips do not fall into step with the workers' polls.
                await asyncio.sleep(random.uniform(0.02, 0.06))

    async def _flip(self, turn: Turn, *, on: bool) -> None:
        at = await turn.make(self._redis, on=on)
        await asyncio.gather(*(self._follow(pid, turn, on, at) for pid in self._crew.pids))

    async def _follow(self, pid: int, turn: Turn, on: bool, at: float) -> None:
        answer, seen_at = await self._await_status(pid, 503 if on else 200, at + _IN_TIME)
        testimony = await self._crew.hear(pid)
        found = list(complaints(answer, closed=on, detail=turn.detail))
        if testimony.enabled is not on or testimony.changed_at < at - _SKEW:
            found.append(f"says that it is {'on' if testimony.enabled else 'off'}, since {at - testimony.changed_at:.3f} s before the flip")
        for path, status in _ALWAYS.items():
            if (other := await self._crew.ask(pid, path)).status != status:
                found.append(f"answered {other.status} to {path}, not {status}")
        self.complaints += [f"{turn.name}, {'on' if on else 'off'}: worker {pid} {what}." for what in found]
        if not found:
            self.tally.add(Sample(pid, turn.name, max(0.0, testimony.changed_at - at), seen_at - at))

    async def _await_status(self, pid: int, status: int, deadline: float) -> tuple[Answer, float]:
        """Look until the status is there, or time is up; the answer then got, and when."""
        while True:
            await asyncio.sleep(_LOOK)
            answer = await self._crew.ask(pid, "/")
            now = time.monotonic()
            if answer.status == status or now > deadline:
                return answer, now


def complaints(answer: Answer, *, closed: bool, detail: str) -> Iterator[str]:
    """What is wrong with a worker's answer to an ordinary request."""
    status = 503 if closed else 200
    if answer.status != status:
        yield f"answered {answer.status} instead of {status}"
        return
    body = json.loads(answer.body)
    if not closed:
        if "hello" not in body:
            yield f"answered 200 with {body}"
        return
    if body != {"detail": detail}:
        yield f"answered 503 with {body}, not with the detail {detail!r}"
    if answer.headers.get("cache-control") != "no-store":
        yield "answered 503 without Cache-Control: no-store"
    if not answer.headers.get("retry-after", "").isdigit():
        yield "answered 503 without Retry-After"
