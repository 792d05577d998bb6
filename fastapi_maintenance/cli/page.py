"""The command `page`: the response as a file, for a proxy whose workers are gone."""

from __future__ import annotations

import asyncio
from datetime import datetime
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Final, cast

import typer
from starlette.types import Message, Receive

from ..backends.file.atomic import replace_file
from ..model.state import MAX_RETRY_AFTER, MaintenanceState
from ..responses import MaintenanceResponse, ResponseOptions
from ..responses.renderers import HTML, JSON, PLAIN, PROBLEM
from .console import ExitCode, exit_with, handle_errors
from .durations import parse_until
from .options import MessageOption, option, parser_of

_RETRY_AFTER: Final = 60  # seconds

app = typer.Typer()


class Format(Enum):
    """The values of `--format`."""

    HTML = "html"
    JSON = "json"
    PROBLEM = "problem"
    TEXT = "text"
    HTTP = "http"


_MEDIA_TYPES: Final = {
    Format.HTML: HTML,
    Format.JSON: JSON,
    Format.PROBLEM: PROBLEM,
    Format.TEXT: PLAIN,
    Format.HTTP: HTML,
}


@app.command()
def page(
    out: Annotated[
        Path | None,
        option("--out", "FILE", "The file, which is replaced atomically. Default: print it."),
    ] = None,
    kind: Annotated[
        Format,
        typer.Option("--format", help="http is the page with status and headers, for HAProxy."),
    ] = Format.HTML,
    message: MessageOption = None,
    until: Annotated[
        datetime | None,
        option(
            "--until",
            "TIME",
            "The expected end, in the formats of 'on --until'.",
            parser=parser_of(lambda text: parse_until(text, datetime.now().astimezone())),
        ),
    ] = None,
    retry_after: Annotated[
        int | None,
        option(
            "--retry-after",
            "SECONDS",
            "When clients should retry, in http and problem. Default: at the end, else in 60 s.",
            min=0,
            max=MAX_RETRY_AFTER,
        ),
    ] = None,
    language: Annotated[
        str, option("--language", "TAG", "The language of html, http and text.")
    ] = "en",
) -> None:
    """Write the maintenance page for a proxy, which sends it while no worker answers.

    It is the page of a closed worker. No backend is read.
    """
    with handle_errors():
        state = MaintenanceState(
            enabled=True, message=message or None, ends_at=until, retry_after=retry_after
        )
        # The file is older than the response, so its end is a date.
        as_date = kind is Format.HTTP and until is not None and retry_after is None
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


async def _render(response: MaintenanceResponse, kind: Format) -> bytes:
    """Return the body that a client of that kind gets, with `http` after its status and headers."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    accept = (b"accept", _MEDIA_TYPES[kind].encode())
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [accept]}
    await response(scope, cast(Receive, None), send)  # which it never calls
    start, body = sent
    content: bytes = body["body"]
    if kind is not Format.HTTP:
        return content
    status = HTTPStatus(start["status"])
    head = b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
    headers = b"".join(b"%b: %b\r\n" % header for header in start["headers"])
    return head + headers + b"\r\n" + content
