"""The commands `bypass create`, `bypass list` and `bypass revoke`."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Annotated

import typer

from .._internal.times import isoformat_utc
from ..exemptions.bypass import Bypass, link_to
from ..exemptions.tokens import grant, granted, revoke
from .console import echo, echo_error, handle_errors, sanitize
from .durations import parse_duration, show_moment
from .options import BackendOption, ComponentOption, JsonOption, option, parser_of

app = typer.Typer(help="Let testers through while the switch is on.")


@app.command("create")
def _create(
    backend: BackendOption,
    length: Annotated[
        timedelta,
        option(
            "--for",
            "LENGTH",
            "The longest time that it is valid, like 30m, 2h or 1d.",
            parser=parser_of(parse_duration),
            show_default="1h",
        ),
    ] = timedelta(hours=1),
    note: Annotated[
        str | None, option("--note", "TEXT", "Who it is for. Visitors never see it.")
    ] = None,
    url: Annotated[
        str, option("--url", "URL", "The address that the link leads to.")
    ] = "http://localhost:8000/",
    component: ComponentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a token that lets its bearer through, and print it with a link.

    It is valid until it expires, is revoked, or the switch gets another value. It never passes
    while a hold stands. With --component it is for what the component's own switch closes, else
    for what the general switch closes. The switch stores only a hash. The secret is
    FASTAPI_MAINTENANCE_SECRET, as for the workers.
    """
    with handle_errors():
        token, record, report = asyncio.run(
            grant(backend, Bypass(), length, note or None, component)
        )
    if report.deciding:
        echo_error("A hold stands, and no token passes it. This one is valid when the holds end.")
    link = link_to(url, token)
    if as_json:
        until = isoformat_utc(record.until)
        values = {
            "id": record.id,
            "until": until,
            "note": record.note,
            "token": token,
            "link": link,
        }
        echo(json.dumps(values, indent=2))
    else:
        echo(f"id: {record.id}\nuntil: {show_moment(record.until)}\ntoken: {token}\nlink: {link}")


@app.command("list")
def _list(
    backend: BackendOption, component: ComponentOption = None, as_json: JsonOption = False
) -> None:
    """Print the valid bypasses, or nothing if there are none."""
    with handle_errors():
        records = asyncio.run(granted(backend, component))
    if as_json:
        rows = [one.model_dump() | {"until": isoformat_utc(one.until)} for one in records]
        echo(json.dumps(rows, indent=2))
        return
    for record in records:
        until, note = show_moment(record.until), sanitize(record.note or "")
        echo(f"{sanitize(record.id)} until {until} {note}".rstrip())


@app.command("revoke")
def _revoke(
    backend: BackendOption,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID...", help="As 'bypass list' prints them.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Revoke all of them.")] = False,
    component: ComponentOption = None,
) -> None:
    """Revoke bypasses on every worker at once."""
    if bool(ids) == everything:
        raise typer.BadParameter("must be given, or --all.", param_hint="ID...")
    with handle_errors():
        asyncio.run(revoke(backend, ids or None, component))
