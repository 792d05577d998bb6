"""Create, list and revoke bypass tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import timedelta

import typer

from .._internal.logging import one_line
from ..backends import BaseStateBackend
from ..exemptions.bypass import Bypass, link_to
from ..exemptions.tokens import grant, granted, revoke
from .console import echo, echo_error, echo_json
from .durations import show_moment


def create(
    backend: BaseStateBackend,
    length: timedelta,
    note: str | None,
    url: str,
    component: str | None,
    *,
    as_json: bool,
) -> None:
    """Create a token, and print it with a link."""
    token, record, report = asyncio.run(grant(backend, Bypass(), length, note, component))
    if report.deciding:
        echo_error(
            "A hold is active, and no token passes it. This token is valid when the holds end."
        )
    link = link_to(url, token)
    if as_json:
        echo_json(record.model_dump(mode="json") | {"token": token, "link": link})
    else:
        echo(f"id: {record.id}\nuntil: {show_moment(record.until)}\ntoken: {token}\nlink: {link}")


def list_bypasses(backend: BaseStateBackend, component: str | None, *, as_json: bool) -> None:
    """Print the valid bypasses."""
    records = asyncio.run(granted(backend, component))
    if as_json:
        echo_json([record.model_dump(mode="json") for record in records])
        return
    for record in records:
        until, note = show_moment(record.until), one_line(record.note or "")
        echo(f"{one_line(record.id)} until {until} {note}".rstrip())


def revoke_bypasses(
    backend: BaseStateBackend,
    ids: Collection[str] | None,
    component: str | None,
    *,
    everything: bool,
) -> None:
    """Revoke these bypasses, or all."""
    if bool(ids) == everything:
        raise typer.BadParameter("must be given, or --all.", param_hint="ID...")
    asyncio.run(revoke(backend, ids or None, component))
