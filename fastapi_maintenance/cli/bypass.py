"""The commands about bypasses: `bypass create`, `bypass list` and `bypass revoke`."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from .._internal.times import isoformat_utc
from ..exemptions.bypass import Bypass, link_to
from ..exemptions.tokens import grant, granted, revoke
from .console import echo, echo_error, sanitize
from .durations import parse_duration, show_moment
from .options import BackendOption, ComponentOption, FilePathOption, JsonOption, VarNameOption
from .shared import handle_errors, invalid_option, open_target

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    bypasses = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Let testers through while the switch is on.",
    )
    bypasses.command("create")(_create)
    bypasses.command("list")(_list)
    bypasses.command("revoke")(_revoke)
    app.add_typer(bypasses, name="bypass")


def _create(
    ctx: typer.Context,
    length: Annotated[
        str,
        typer.Option(
            "--for", metavar="LENGTH", help="How long it holds at most, like 30m, 2h or 1d."
        ),
    ] = "1h",
    note: Annotated[
        str | None,
        typer.Option(
            "--note", metavar="TEXT", help="Who it is for; operators see it, visitors never."
        ),
    ] = None,
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="Where the link is to lead.")
    ] = "http://localhost:8000/",
    component: ComponentOption = None,
    as_json: JsonOption = False,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Make a token that lets its bearer through, and print it with a link.

    It holds until it runs out, is revoked, or the switch gets another value, by 'on' and 'off' or by anybody's SET; never under a
    hold. With --component it is for what the component's own switch closes, else for what the general one does. The switch keeps no more of
    it than a hash. The secret is that of FASTAPI_MAINTENANCE_SECRET, as for the workers.
    """
    with invalid_option("--for"):
        lasting = parse_duration(length)
    with handle_errors():
        bypass = Bypass()
        target = open_target(ctx, backend, var_name, file_path, component)
        token, record, report = asyncio.run(grant(target, bypass, lasting, note or None, component))
    if report.deciding:
        echo_error(
            "While a hold stands, nobody bypasses it: the token will do when the holds have ended."
        )
    link = link_to(url, token)
    if as_json:
        echo(
            json.dumps(
                {
                    "id": record.id,
                    "until": isoformat_utc(record.until),
                    "note": record.note,
                    "token": token,
                    "link": link,
                },
                indent=2,
            )
        )
    else:
        echo(
            "\n".join(
                [
                    f"id: {record.id}",
                    f"until: {show_moment(record.until)}",
                    f"token: {token}",
                    f"link: {link}",
                ]
            )
        )


def _list(
    ctx: typer.Context,
    component: ComponentOption = None,
    as_json: JsonOption = False,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """Print which bypasses hold; nothing where there is none."""
    with handle_errors():
        records = asyncio.run(
            granted(open_target(ctx, backend, var_name, file_path, component), component)
        )
    if as_json:
        echo(
            json.dumps(
                [
                    record.model_dump() | {"until": isoformat_utc(record.until)}
                    for record in records
                ],
                indent=2,
            )
        )
    elif records:
        echo(
            "\n".join(
                f"{sanitize(record.id)} until {show_moment(record.until)} {sanitize(record.note or '')}".rstrip()
                for record in records
            )
        )


def _revoke(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID...", help="As 'bypass list' prints them.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Revoke all of them.")] = False,
    component: ComponentOption = None,
    backend: BackendOption = None,
    var_name: VarNameOption = None,
    file_path: FilePathOption = None,
) -> None:
    """End bypasses before their time, on every worker at once."""
    if bool(ids) == everything:
        raise typer.BadParameter("name those to revoke, or give --all.", param_hint="ID...")
    with handle_errors():
        asyncio.run(
            revoke(
                open_target(ctx, backend, var_name, file_path, component), ids or None, component
            )
        )
