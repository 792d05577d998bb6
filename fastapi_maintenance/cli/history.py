"""Print and follow what changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from .._internal.logging import one_line
from ..backends import BaseStateBackend
from ..backends.status import label
from ..model.history import Change
from .console import as_table, echo, on_interruption, show, stdout_closed
from .durations import show_moment

if TYPE_CHECKING:
    from rich.table import Table

_PIPE_CHECK_INTERVAL: Final = 0.5  # seconds


def show_history(
    backend: BaseStateBackend,
    limit: int,
    component: str | None,
    *,
    follow: bool,
    as_json: bool,
) -> None:
    """Print the last changes, and with `follow` those that come."""
    if follow:

        def tell(change: Change) -> bool:
            return echo(json.dumps(change.to_json()) if as_json else _line(change))

        asyncio.run(_follow(backend, limit, component, tell))
        return
    changes = asyncio.run(backend.history(limit=limit, component=component))
    show(
        lambda: [change.to_json() for change in changes],
        lambda: map(_line, changes),
        lambda: _table(changes),
        as_json=as_json,
    )


async def _follow(
    backend: BaseStateBackend, limit: int, component: str | None, tell: Callable[[Change], bool]
) -> None:
    """Print changes until SIGINT, SIGTERM, or a closed pipe."""
    past = await backend.history(limit=limit, component=component)

    async def show_all() -> None:
        for change in past:
            if not tell(change):
                return
        async for change in backend.follow_history(past[-1].id if past else ""):
            if component in (None, change.component) and not tell(change):
                return

    showing = asyncio.ensure_future(show_all())
    with on_interruption(showing.cancel):
        while not showing.done() and not stdout_closed():
            await asyncio.wait([showing], timeout=_PIPE_CHECK_INTERVAL)
    showing.cancel()
    with suppress(asyncio.CancelledError):
        await showing


def _row(change: Change) -> dict[str, str | None]:
    return {
        "when": show_moment(change.at),
        "what": _what(change),
        "state": _state(change),
        "component": change.component,
        "by": change.by,
        "at": _place(change),
        "reason": change.reason,
        "error": change.error,
    }


def _line(change: Change) -> str:
    row = {name: text for name, text in _row(change).items() if text}
    what = [row.pop(name) for name in ("what", "state") if name in row]
    start = f"{row.pop('when')} {(': ' if change.hold else ' ').join(what)}"
    return ", ".join([start, *(f"{name}: {one_line(text)}" for name, text in row.items())])


def _table(changes: Sequence[Change]) -> Table:
    names = ("when", "what", "state", "component", "by", "at", "reason")
    rows = [_row(change) for change in changes]
    texts = [row | {"reason": row["reason"] or row["error"]} for row in rows]
    return as_table(names, [[row[name] for name in names] for row in texts])


def _what(change: Change) -> str:
    return f"hold {change.kind}" if change.hold else change.kind


def _state(change: Change) -> str:
    state = change.state
    if state is None:
        return "" if change.kind == "lost" else label(None)
    window = (("from", state.starts_at), ("until", state.ends_at))
    details = [
        state.mode if state.mode != "full" else "",
        *(f"{name} {show_moment(moment)}" for name, moment in window if moment),
    ]
    return " ".join([label(state), *filter(None, details)])


def _place(change: Change) -> str:
    return "" if change.host is None else f"{change.host}:{change.pid}"
