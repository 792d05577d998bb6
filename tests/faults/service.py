"""An application behind the switch, in the test's own event loop, with a visitor who asks all the
time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from fastapi import FastAPI
from starlette.types import Message

from fastapi_maintenance import MaintenanceModeMiddleware
from fastapi_maintenance.backends import RedisBackend
from tests.support.asgi import UNUSED, http_scope
from tests.support.waiting import eventually

from .bounds import SLACK

logger = logging.getLogger(__name__)

_PAUSE: Final = 0.01  # seconds, between two requests of the visitor


class RequestWaited(RuntimeError):
    """A request awaited something; no state of Redis is a reason for that."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the visitor was answered, and when."""

    at: float
    status: int


class Service:
    """The real middleware before a real FastAPI application, between its lifespan's start and end.

    `options` are the middleware's. Every answer is made in one go: each request is driven by hand,
    and fails with `RequestWaited` if it gives the event loop back before its answer is complete.
    """

    def __init__(self, backend: RedisBackend | str, **options: Any) -> None:
        self._backend = RedisBackend(backend) if isinstance(backend, str) else backend
        self._app = MaintenanceModeMiddleware(_application(), backend=self._backend, **options)
        self.mode = self._app.mode
        self.answers: list[Answer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        started = asyncio.Event()
        self._tasks.append(asyncio.create_task(self._live(started), name="the lifespan"))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait(
            [*self._tasks, waiting],
            timeout=self._backend.ttl + SLACK,
            return_when=asyncio.FIRST_COMPLETED,
        )
        waiting.cancel()
        assert started.is_set(), f"the application did not start: {self._tasks}"
        self._tasks.append(asyncio.create_task(self._visit(), name="the visitor"))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._stop.set()
        done, late = await asyncio.wait(self._tasks, timeout=self._backend.ttl + SLACK)
        for task in late:
            task.cancel()
        for task in done:
            task.result()
        assert not late, f"did not end: {late}"

    def ask(self) -> int:
        """The status of one answer, now.

        After it, a worker whose event loop stood still may catch up; nobody waits for that.
        """
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        answering = self._app(http_scope(path="/", raw_path=b"/"), UNUSED, send)
        with suppress(StopIteration):
            answering.send(None)
        answering.close()
        if not sent or sent[-1].get("more_body", sent[-1]["type"] == "http.response.start"):
            raise RequestWaited
        status: int = sent[0]["status"]
        self.answers.append(Answer(time.monotonic(), status))
        return status

    async def becomes(self, status: int, *, within: float, message: str | None = None) -> float:
        """Wait until it answers so, and its state has this message if one is given; return the
        seconds that took.
        """
        began = time.monotonic()

        def as_wanted() -> bool:
            return self.ask() == status and message in (None, self.mode.gate.state.message)

        await eventually(as_wanted, within=within, every=0.002)
        took = time.monotonic() - began
        logger.debug(
            "%s %safter %.1f ms", status, "" if message is None else f"({message}) ", took * 1000
        )
        return took

    async def is_back(self, *, since: float, within: float) -> None:
        """Wait until it has heard from Redis after a monotonic time."""
        await eventually(lambda: self.mode.cache.fresh_at > since, within=within)
        logger.debug("back after %.1f ms", (time.monotonic() - since) * 1000)

    def answered(self, since: float) -> set[int]:
        """What it has answered since a monotonic time."""
        return {answer.status for answer in self.answers if answer.at >= since}

    async def _live(self, started: asyncio.Event) -> None:
        messages = iter(("lifespan.startup", "lifespan.shutdown"))

        async def receive() -> Message:
            if (kind := next(messages)) == "lifespan.shutdown":
                await self._stop.wait()
            return {"type": kind}

        async def send(message: Message) -> None:
            assert message["type"].endswith(".complete"), message
            started.set()

        await self._app(
            {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send
        )

    async def _visit(self) -> None:
        while not self._stop.is_set():
            self.ask()
            await asyncio.sleep(_PAUSE)


def _application() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def gated() -> str:
        return "open"

    return app
