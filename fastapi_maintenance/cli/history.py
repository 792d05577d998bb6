"""The command `history`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from ..backends import BaseStateBackend
from ..backends.status import label
from ..model.history import Change
from .console import echo, handle_errors, sanitize, stdout_closed, terminal
from .durations import show_moment
from .options import BackendOption, ComponentOption, JsonOption, option
from .status import on_interruption

_PIPE_CHECK_INTERVAL: Final = 0.5  # seconds

app = typer.Typer()


@app.command("history", short_help="Print who changed what, when and why.")
def _history(
    backend: BackendOption,
    limit: Annotated[
        int, option("--limit", "COUNT", "The number of past changes to print.", min=1)
    ] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", help="Also print new changes, until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
    component: ComponentOption = None,
) -> None:
    """Print the last changes, the newest at the end: when, what, who, from where, and why.

    The kinds of changes: 'set' by this program, the panel or code. 'noticed': written by another
    program, such as redis-cli; 'at' is the worker that saw it first. 'expired': its time to live
    ended. 'cleared': ended by force. 'hold taken' and 'hold released'. 'hold lapsed': its lease
    ended. 'restored' after Redis lost it. 'lost': not restored. With --follow and --json, each
    change is one line. Only Redis keeps a history.
    """
    show: Callable[[Change], bool] = _echo_json if as_json else _echo
    with handle_errors():
        if follow:
            asyncio.run(_follow(backend, limit, component, show))
        else:
            changes = asyncio.run(backend.history(limit=limit, component=component))
            _show(changes, as_json=as_json)


def _show(changes: Sequence[Change], *, as_json: bool) -> None:
    if as_json:
        echo(json.dumps([change.to_json() for change in changes], indent=2))
    elif (console := terminal()) is not None:
        console.print(_table(changes))
    else:
        for change in changes:
            _echo(change)


async def _follow(
    backend: BaseStateBackend, limit: int, component: str | None, show: Callable[[Change], bool]
) -> None:
    """Print changes until SIGINT, SIGTERM, or a closed pipe."""
    past = await backend.history(limit=limit, component=component)

    async def show_all() -> None:
        for change in past:
            if not show(change):
                return
        async for change in backend.follow_history(past[-1].id if past else ""):
            if component in (None, change.component) and not show(change):
                return

    showing = asyncio.ensure_future(show_all())
    with on_interruption(showing.cancel):
        while not showing.done() and not stdout_closed():
            await asyncio.wait([showing], timeout=_PIPE_CHECK_INTERVAL)
    showing.cancel()
    with suppress(asyncio.CancelledError):
        await showing


def _echo(change: Change) -> bool:
    return echo(f"{show_moment(change.at)} {', '.join(_words(change))}")


def _echo_json(change: Change) -> bool:
    return echo(json.dumps(change.to_json()))


def _words(change: Change) -> Iterator[str]:
    yield " ".join(filter(None, (_what(change), _state(change))))
    for name, text in (
        ("component", change.component),
        ("by", change.by),
        ("at", _place(change)),
        ("reason", change.reason),
        ("error", change.error),
    ):
        if text:
            yield f"{name}: {sanitize(text)}"


def _table(changes: Sequence[Change]) -> Table:
    table = Table("when", "what", "state", "component", "by", "at", "reason")
    for change in changes:
        reason = change.reason or change.error
        texts = (
            show_moment(change.at),
            _what(change),
            _state(change),
            change.component,
            change.by,
            _place(change),
            reason,
        )
        table.add_row(*(Text(sanitize(text or "")) for text in texts))
    return table


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
