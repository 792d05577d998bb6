"""The command about what has happened: `history`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from ..backends import BaseStateBackend
from ..backends.status import label
from ..model.history import Change
from .console import echo, sanitize, stdout_closed, terminal
from .durations import show_moment
from .options import BackendOption, ComponentOption, FilePathOption, JsonOption, VarNameOption
from .shared import handle_errors, open_target
from .status import on_interruption

__all__ = ["add_to"]

_TICK: Final = 0.5  # seconds; how soon a closed pipe is noticed


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("history", short_help="Print who has changed what, when and why.")(_history)


def _history(
    ctx: typer.Context,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", metavar="COUNT", min=1, help="How many of the newest changes to begin with."
        ),
    ] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what changes from now on, until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
    component: ComponentOption = None,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Print the last changes, the newest at the end: when, what, who, from where, and why.

    What: 'set' by this program, the panel or code; 'noticed' written past these, as by redis-cli, 'at' being the worker that saw
    it first; 'expired' its time to live ran out; 'cleared' ended by force; 'hold taken', 'released', 'lapsed' as its lease ran out;
    'restored' put back after Redis had lost it; 'lost' not put back. With --follow and --json, each change is one line.
    Only Redis keeps a history.
    """
    with handle_errors():
        target = open_target(ctx, backend, var_name, file_path, component)
        tell: Callable[[Change], bool] = _tell_json if as_json else _tell
        if follow:
            asyncio.run(_follow(target, limit, component, tell))
        else:
            _show(asyncio.run(target.history(limit=limit, component=component)), as_json=as_json)


def _show(changes: Sequence[Change], *, as_json: bool) -> None:
    console = terminal()
    if as_json:
        echo(json.dumps([change.to_json() for change in changes], indent=2))
    elif console is None:
        for change in changes:
            _tell(change)
    else:
        console.print(_table(changes))


async def _follow(
    backend: BaseStateBackend, limit: int, component: str | None, tell: Callable[[Change], bool]
) -> None:
    """Print changes until interrupted (SIGINT, SIGTERM) or until nobody looks any more."""
    changes = await backend.history(limit=limit, component=component)
    coming = backend.follow_history(changes[-1].id if changes else "")
    telling = asyncio.ensure_future(_tell_all(changes, coming, component, tell))
    with on_interruption(telling.cancel):
        while not telling.done() and not stdout_closed():
            await asyncio.wait([telling], timeout=_TICK)
    telling.cancel()
    with suppress(asyncio.CancelledError):
        await telling


async def _tell_all(
    changes: Sequence[Change],
    coming: AsyncIterator[Change],
    component: str | None,
    tell: Callable[[Change], bool],
) -> None:
    for change in changes:
        if not tell(change):
            return
    async for change in coming:
        if component in (None, change.component) and not tell(change):
            return


def _tell(change: Change) -> bool:
    return echo(f"{show_moment(change.at)} {', '.join(_words(change))}")


def _tell_json(change: Change) -> bool:
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
