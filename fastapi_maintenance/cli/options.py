"""The options that several commands share, or that are long to say."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from ..model.state import MAX_RETRY_AFTER

__all__ = [
    "AllowOption",
    "AtOption",
    "BackendOption",
    "ByOption",
    "ComponentOption",
    "ExpectOption",
    "FilePathOption",
    "ForOption",
    "JsonOption",
    "MessageOption",
    "ModeName",
    "ModeOption",
    "ReasonOption",
    "RetryAfterOption",
    "TimeoutOption",
    "UnfencedOption",
    "UntilOption",
    "VarNameOption",
]

BackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="URL",
        help="Where the switch is: redis://…, rediss://…, unix://…, redis+sentinel://…, redis+cluster://…, file:PATH or env:NAME; "
        "or file or env with the next two. Default: the URL in FASTAPI_MAINTENANCE_BACKEND, else env:FASTAPI_MAINTENANCE_MODE.",
    ),
]
VarNameOption = Annotated[
    str | None,
    typer.Option("--var-name", metavar="NAME", help="The environment variable of --backend env."),
]
FilePathOption = Annotated[
    str | None, typer.Option("--file-path", metavar="PATH", help="The file of --backend file.")
]
ComponentOption = Annotated[
    str | None,
    typer.Option(
        "--component",
        metavar="NAME",
        help="Only the routes of this component; its switch is the general one's key with :NAME.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, always with the same keys.")]

MessageOption = Annotated[
    str | None, typer.Option("--message", metavar="TEXT", help="What visitors are told.")
]
ReasonOption = Annotated[
    str | None,
    typer.Option(
        "--reason", metavar="TEXT", help="What operators are told; visitors never see it."
    ),
]
ByOption = Annotated[
    str | None, typer.Option("--by", metavar="TEXT", help="Who turns it on. Default: user@host.")
]
ForOption = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="LENGTH",
        help="Let it end by itself after 90, 90s, 30m, 2h, 1d or 1h30m; a number alone is seconds.",
    ),
]
AtOption = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="TIME",
        help="Let it begin by itself, at a time written as for --until; then --for counts from there, and --until is the next such time "
        "after it.",
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="TIME",
        help="Let it end by itself: 04:00 or 04:00:30 is the next such time here, 2026-11-22T04:00 is local time too, "
        "2026-11-22T04:00Z and 2026-11-22T04:00+01:00 say their zone.",
    ),
]
RetryAfterOption = Annotated[
    int | None,
    typer.Option(
        "--retry-after",
        metavar="SECONDS",
        min=0,
        max=MAX_RETRY_AFTER,
        help="When clients shall try again. Default: at its end, else in an hour.",
    ),
]

AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="ENTRY",
        help='Let these through, for each time it is given: "/login", "POST /login", "/users/{id}", 10.1.0.0/16 or "GET 10.1.0.0/16".',
    ),
]

TimeoutOption = Annotated[
    str,
    typer.Option(
        "--timeout", metavar="LENGTH", help="How long to wait at most, like 90, 30s or 5m."
    ),
]
ExpectOption = Annotated[
    int | None,
    typer.Option(
        "--expect",
        metavar="N",
        min=0,
        help="Wait for exactly so many workers. Without it, at least one must be registered.",
    ),
]
UnfencedOption = Annotated[
    bool,
    typer.Option(
        "--allow-unfenced", help="Succeed although workers have vanished that may still be serving."
    ),
]


class ModeName(Enum):
    """What `--mode` takes."""

    FULL = "full"
    READ_ONLY = "read-only"


ModeOption = Annotated[
    ModeName, typer.Option("--mode", help="read-only lets GET, HEAD, OPTIONS and TRACE pass.")
]
