"""Write the response as a file, for a proxy whose workers are gone."""

from __future__ import annotations

import asyncio
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final, cast

import typer
from starlette.types import Message, Receive

from ..backends.file.atomic import replace_file
from ..model.state import MaintenanceState
from ..responses.options import ResponseOptions
from ..responses.renderers import HTML, JSON, PLAIN, PROBLEM
from ..responses.response import MaintenanceResponse
from .console import ExitCode, exit_with

_RETRY_AFTER: Final = 60  # seconds

_MEDIA_TYPES: Final = {"html": HTML, "json": JSON, "problem": PROBLEM, "text": PLAIN, "http": HTML}
"""The media type of each format; `http` is a page with status and headers."""


def write_page(
    out: Path | None,
    kind: str,
    message: str | None,
    until: datetime | None,
    retry_after: int | None,
    language: str,
) -> None:
    """Print the page of a closed worker, or write it to a file."""
    state = MaintenanceState(enabled=True, message=message, ends_at=until, retry_after=retry_after)
    # The file is older than the response, so its end is a date.
    as_date = kind == "http" and until is not None and retry_after is None
    options = ResponseOptions(
        language=language, retry_after=_RETRY_AFTER, retry_after_as_date=as_date
    )
    document = asyncio.run(_render(MaintenanceResponse(state, options=options), kind))
    if out is None:
        typer.echo(document, nl=False)
        return
    try:
        replace_file(str(out), document)
    except OSError as error:
        exit_with(
            f"--out must be a file that can be written, got {out}: {error.strerror}.",
            ExitCode.FAILED,
        )


async def _render(response: MaintenanceResponse, kind: str) -> bytes:
    """Return the body that a client of that kind gets, with `http` after its status and headers."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    accept = (b"accept", _MEDIA_TYPES[kind].encode())
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [accept]}
    await response(scope, cast(Receive, None), send)  # which it never calls
    start, body = sent
    content: bytes = body["body"]
    if kind != "http":
        return content
    status = HTTPStatus(start["status"])
    head = b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
    headers = b"".join(b"%b: %b\r\n" % header for header in start["headers"])
    return head + headers + b"\r\n" + content
