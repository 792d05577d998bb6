"""Follow the state live."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from .._internal.logging import error_text, one_line
from ..backends import BaseStateBackend, EnvVarBackend
from ..backends.status import StatusReport, label
from ..exceptions import BackendError
from ..model.snapshot import Snapshot
from ..runtime.mode import MaintenanceMode
from .console import echo, echo_error, on_interruption, stdout_closed, terminal
from .durations import show_moment, show_seconds
from .render import as_tables

_REDRAW_INTERVAL: Final = 0.5  # seconds; also how soon a closed pipe is noticed
_FIRST_TIMEOUT: Final = 5.0  # seconds to wait for the first snapshot or error


def watch(backend: BaseStateBackend, *, as_json: bool) -> None:
    """Show the state on a terminal that can redraw it, or print a line for each change."""
    if isinstance(backend, EnvVarBackend):
        echo_error(
            f"{backend.describe()} is read from this process' own environment, "
            "which no other process can change."
        )
    console = terminal()
    if as_json or console is None or console.is_dumb_terminal:
        asyncio.run(follow(backend, lines(as_json=as_json)))
    else:
        with screen(console) as show:
            asyncio.run(follow(backend, show))


@dataclass(frozen=True, slots=True)
class Observation:
    """The state at one moment, its source, and its age in seconds; None if never confirmed."""

    report: StatusReport
    source: str
    age: float | None

    @property
    def key(self) -> object:
        """A value that stays equal until something other than the time changes."""
        report = self.report
        known = report.holds
        holds = None if known is None else [(hold.id, hold.state) for hold in known]
        error = report.reading.error
        return report.state, report.decided_by, report.switch, holds, error, self.source

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values, always with the same keys."""
        return self.report.to_json() | {"source": self.source, "age": self.age}


class Observer(MaintenanceMode):
    """Follows a backend as a worker does, without serving requests.

    `async with` waits for the first snapshot. Then call `look` and `wait` in turn until `ended`.
    """

    def __init__(self, backend: BaseStateBackend) -> None:
        super().__init__(backend)
        self.ended = False
        self._news = asyncio.Event()
        self._trouble = "The backend has not answered yet."

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.wait(_FIRST_TIMEOUT)
        return self

    def end(self) -> None:
        """End the current `wait`, the last one."""
        self.ended = True
        self._news.set()

    async def wait(self, seconds: float = _REDRAW_INTERVAL) -> None:
        """Wait for a change, at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def look(self) -> Observation:
        """Return the current observation."""
        source = (await self.refresh()).source
        self._news.clear()
        reading, now = self.cache.snapshot, time.monotonic()
        if reading is None:
            unread = Snapshot(None, None, time.time(), error=self._trouble)
            return Observation(StatusReport.of(self.backend, unread), "nowhere", None)
        # No fallback replaces an unreadable switch here, because workers may have other fallbacks.
        source = self.backend.kind if reading.switch is None else source
        return Observation(
            StatusReport.of(self.backend, reading, self.cache.backend_time(now)),
            source,
            now - self.cache.fresh_at,
        )

    # -- from the backend -------------------------------------------------------------------------

    def update(self, snapshot: Snapshot, at: float) -> Snapshot:
        known = super().update(snapshot, at)
        self._news.set()
        return known

    def fail(self, error: BackendError) -> None:
        super().fail(error)
        self._trouble = error_text(error)
        self._news.set()

    def report(self) -> Mapping[str, Any]:
        """Return nothing, so that no barrier waits for a terminal, which may be suspended."""
        return {}


# -- views -----------------------------------------------------------------------------------------

View = Callable[[Observation], bool]
"""Shows an observation. Returns False when there is no reader any more."""


def lines(*, as_json: bool) -> View:
    """Print one line per change, as text or as JSON."""
    last: object = None

    def show(sight: Observation) -> bool:
        nonlocal last
        if sight.key != last:
            last = sight.key
            if not echo(json.dumps(sight.to_json()) if as_json else _line(sight)):
                return False
        return not stdout_closed()

    return show


@contextmanager
def screen(console: Console) -> Iterator[View]:
    """Draw the current state in place, below the past changes."""
    last: object = None

    def show(sight: Observation) -> bool:
        nonlocal last
        if sight.key != last:
            last = sight.key
            live.console.print(Text(_line(sight)))
        footer = Text(f"{_origin(sight)} · Ctrl-C ends", style="dim")
        live.update(Group(Text(), as_tables(sight.report), footer), refresh=True)
        return True

    with Live(console=console, auto_refresh=False) as live:
        yield show


async def follow(backend: BaseStateBackend, show: View) -> None:
    """Show the state that a worker would have, until SIGINT, SIGTERM, or a closed pipe."""
    observer = Observer(backend)
    with on_interruption(observer.end):
        async with observer:
            while not observer.ended and show(await observer.look()):
                await observer.wait()


def _line(sight: Observation) -> str:
    return f"{show_moment(sight.report.now)} {', '.join(_words(sight))} [{_origin(sight)}]"


def _words(sight: Observation) -> Iterator[str]:
    report = sight.report
    state = report.state
    yield label(state)
    if state is not None and state.enabled:
        yield state.mode
        for name in ("by", "reason"):
            if (text := getattr(state, name)) is not None:
                yield f"{name}: {one_line(text)}"
        if state.ends_at is not None:
            yield f"until {show_moment(state.ends_at)}"
    if report.upcoming is not None and report.upcoming.starts_at is not None:
        yield f"coming: {show_moment(report.upcoming.starts_at)}"
    if report.holds:
        yield f"{len(report.holds)} {'hold' if len(report.holds) == 1 else 'holds'}"
    if report.reading.error is not None:
        yield f"error: {one_line(report.reading.error)}"


def _origin(sight: Observation) -> str:
    return (
        f"{sight.source}, never confirmed"
        if sight.age is None
        else f"{sight.source}, {show_seconds(sight.age)} old"
    )
