"""The commands `status` and `watch`."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Any, Final, Protocol, Self

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from .._internal.logging import error_text
from ..backends import BaseStateBackend, EnvVarBackend
from ..backends.status import StatusReport, label, look
from ..exceptions import BackendError
from ..model.snapshot import Snapshot
from ..runtime.mode import MaintenanceMode
from .console import (
    ExitCode,
    echo,
    echo_error,
    exit_with,
    handle_errors,
    sanitize,
    stdout_closed,
    terminal,
)
from .durations import show_moment, show_seconds
from .options import BackendOption, ComponentOption, JsonOption
from .render import as_tables, print_status

__all__ = [
    "Lines",
    "Observation",
    "Observer",
    "Screen",
    "Viewer",
    "app",
    "follow",
    "on_interruption",
]

_REDRAW_INTERVAL: Final = 0.5  # seconds; also how soon a closed pipe is noticed
_FIRST_TIMEOUT: Final = 5.0  # seconds to wait for the first snapshot or error
_INTERRUPTIONS: Final = (signal.SIGINT, signal.SIGTERM)

app = typer.Typer()


@app.command()
def status(
    backend: BackendOption,
    as_json: JsonOption = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 6 if maintenance is on.")
    ] = False,
    component: ComponentOption = None,
) -> None:
    """Print whether maintenance is on, and why.

    Exits with 1 if the state is unknown, with or without --exit-code.
    """
    with handle_errors():
        report = asyncio.run(look(backend, component))
    print_status(report, as_json=as_json)
    if report.state is None:
        exit_with(
            f"Cannot determine the current state: {report.reading.error} "
            "Workers keep their last known state.",
            ExitCode.FAILED,
        )
    if exit_code and report.state.enabled:
        raise typer.Exit(ExitCode.ON)


@app.command()
def watch(backend: BackendOption, as_json: JsonOption = False) -> None:
    """Follow the state live, until Ctrl-C.

    Receives changes as a worker does. Shows the state on a terminal, or prints one line per change
    to a pipe, with the source of the state and its age. Keeps trying while the backend cannot be
    reached. The exit code is 0 after Ctrl-C or when the pipe is closed.
    """
    with handle_errors():
        if isinstance(backend, EnvVarBackend):
            echo_error(
                f"{backend.describe()} is read from this process' own environment, "
                "which no other process can change."
            )
        console = terminal()
        if as_json or console is None or console.is_dumb_terminal:
            asyncio.run(follow(backend, Lines(as_json=as_json)))
        else:
            with Screen(console) as screen:
                asyncio.run(follow(backend, screen))


# -- following --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known at one moment, where that comes from, and how many seconds ago it was confirmed; None for never."""

    report: StatusReport
    source: str
    age: float | None

    @property
    def key(self) -> Hashable:
        """Equal as long as nothing has changed but the time."""
        report = self.report
        holds = (
            None if report.holds is None else tuple((hold.id, hold.state) for hold in report.holds)
        )
        return (
            report.state,
            report.decided_by,
            report.switch,
            holds,
            report.reading.error,
            self.source,
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values, always with the same keys."""
        return self.report.to_json() | {"source": self.source, "age": self.age}


class Observer(MaintenanceMode):
    """Follows a backend by push. `async with` it, which waits for the first news, then `look` and `wait` in turn until `ended`."""

    def __init__(self, backend: BaseStateBackend) -> None:
        super().__init__(backend)
        self.ended = False
        self._news = asyncio.Event()
        self._trouble = "nothing has been heard of it yet"

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.wait(_FIRST_TIMEOUT)
        return self

    def end(self) -> None:
        """Let the current `wait` be the last."""
        self.ended = True
        self._news.set()

    async def wait(self, seconds: float = _REDRAW_INTERVAL) -> None:
        """Wait for a change, or long enough that the time itself is news."""
        alarm = asyncio.get_running_loop().call_later(seconds, self._news.set)
        try:
            await self._news.wait()
        finally:
            alarm.cancel()

    async def look(self) -> Observation:
        """What is known now."""
        source = (await self.refresh()).source
        self._news.clear()
        reading, now = self.cache.snapshot, time.monotonic()
        if reading is None:
            unread = Snapshot(None, None, time.time(), error=self._trouble)
            return Observation(StatusReport.of(self.backend, unread), "nowhere", None)
        # An unreadable switch is not replaced by a fallback's here: no worker need have the same fallbacks.
        source = self.backend.kind if reading.switch is None else source
        return Observation(
            StatusReport.of(self.backend, reading, self.cache.backend_time(now)),
            source,
            now - self.cache.fresh_at,
        )

    # -- feed ------------------------------------------------------------------------------------------------------------

    def update(self, reading: Snapshot, at: float) -> None:
        super().update(reading, at)
        self._news.set()

    def fail(self, error: BackendError) -> None:
        super().fail(error)
        self._trouble = error_text(error)
        self._news.set()

    def report(self) -> Mapping[str, Any]:
        """Nothing: it serves nobody, and no barrier may wait for a terminal that somebody suspended."""
        return {}


class Viewer(Protocol):
    """Shows what is seen, and says whether anybody is left to look."""

    def show(self, sight: Observation) -> bool: ...


class Lines:
    """One line a change, as text or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._last: Hashable = None

    def show(self, sight: Observation) -> bool:
        """Print it if it differs from what was shown last."""
        if sight.key != self._last:
            self._last = sight.key
            if not echo(json.dumps(sight.to_json()) if self._as_json else _line(sight)):
                return False
        return not stdout_closed()


class Screen:
    """The present state, redrawn in place, below the changes that led to it."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._last: Hashable = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, sight: Observation) -> bool:
        """Draw it; where it differs from what was shown last, note the change above."""
        if sight.key != self._last:
            self._last = sight.key
            self._live.console.print(Text(_line(sight)))
        footer = Text(f"{_origin(sight)} · Ctrl-C ends", style="dim")
        self._live.update(Group(Text(), as_tables(sight.report), footer), refresh=True)
        return True


async def follow(backend: BaseStateBackend, viewer: Viewer) -> None:
    """Show what a worker would know, until interrupted (SIGINT, SIGTERM) or until nobody looks any more."""
    observer = Observer(backend)
    with on_interruption(observer.end):
        async with observer:
            while not observer.ended and viewer.show(await observer.look()):
                await observer.wait()


@contextmanager
def on_interruption(callback: Callable[[], object]) -> Iterator[None]:
    """Call back, in the event loop, instead of ending: what was opened is closed, and the terminal gets its cursor back."""
    loop = asyncio.get_running_loop()
    for number in _INTERRUPTIONS:
        loop.add_signal_handler(number, callback)
    try:
        yield
    finally:
        for number in _INTERRUPTIONS:
            loop.remove_signal_handler(number)


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
                yield f"{name}: {sanitize(text)}"
        if state.ends_at is not None:
            yield f"until {show_moment(state.ends_at)}"
    if report.upcoming is not None and report.upcoming.starts_at is not None:
        yield f"coming: {show_moment(report.upcoming.starts_at)}"
    if report.holds:
        yield f"{len(report.holds)} {'hold' if len(report.holds) == 1 else 'holds'}"
    if report.reading.error is not None:
        yield f"error: {sanitize(report.reading.error)}"


def _origin(sight: Observation) -> str:
    return (
        f"{sight.source}, never confirmed"
        if sight.age is None
        else f"{sight.source}, {show_seconds(sight.age)} old"
    )
