"""Following a backend live: a view that redraws itself on a terminal, one line a change elsewhere."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ..backends import BaseStateBackend
from ..report import word
from .observer import Observer, Sight
from .output import clean, is_abandoned, say
from .times import show_moment, show_seconds
from .view import as_tables

__all__ = ["Lines", "Screen", "Viewer", "follow", "on_interruption"]

_INTERRUPTIONS: Final = (signal.SIGINT, signal.SIGTERM)


class Viewer(Protocol):
    """Shows what is seen, and says whether anybody is left to look."""

    def show(self, sight: Sight) -> bool: ...


class Lines:
    """One line a change, as text or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._last: Hashable = None

    def show(self, sight: Sight) -> bool:
        """Print it if it differs from what was shown last."""
        if sight.key != self._last:
            self._last = sight.key
            if not say(json.dumps(sight.to_json()) if self._as_json else _line(sight)):
                return False
        return not is_abandoned()


class Screen:
    """The present state, redrawn in place, below the changes that led to it."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._last: Hashable = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, sight: Sight) -> bool:
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


def _line(sight: Sight) -> str:
    return f"{show_moment(sight.report.now)} {', '.join(_words(sight))} [{_origin(sight)}]"


def _words(sight: Sight) -> Iterator[str]:
    report = sight.report
    state = report.state
    yield word(state)
    if state is not None and state.enabled:
        yield state.mode
        for name in ("by", "reason"):
            if (text := getattr(state, name)) is not None:
                yield f"{name}: {clean(text)}"
        if state.ends_at is not None:
            yield f"until {show_moment(state.ends_at)}"
    if report.coming is not None and report.coming.starts_at is not None:
        yield f"coming: {show_moment(report.coming.starts_at)}"
    if report.holds:
        yield f"{len(report.holds)} {'hold' if len(report.holds) == 1 else 'holds'}"
    if report.reading.error is not None:
        yield f"error: {clean(report.reading.error)}"


def _origin(sight: Sight) -> str:
    return f"{sight.source}, never confirmed" if sight.age is None else f"{sight.source}, {show_seconds(sight.age)} old"
