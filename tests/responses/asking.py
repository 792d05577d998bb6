"""Asking for the answer to a state, and reading what comes."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import Message, Scope

from fastapi_maintenance.model.state import ON, MaintenanceState
from fastapi_maintenance.responses.options import ResponseOptions
from fastapi_maintenance.responses.response import MaintenanceResponse

from ..support.asgi import exchange, http_scope

NOW: Final = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
CHROME: Final = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)
FIREFOX: Final = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def response_to(
    state: MaintenanceState = ON, now: datetime = NOW, **options: Any
) -> MaintenanceResponse:
    """The answer for a state while the clock stands still, with these options of
    `ResponseOptions`.
    """
    return MaintenanceResponse(state, lambda: now, ResponseOptions(**options))


def accepting(media_type: str, method: str = "GET", **headers: str) -> dict[str, Any]:
    """A request of a client that accepts this; names of further headers are written with
    underscores.
    """
    return http_scope(
        method,
        {
            "accept": media_type,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
    )


async def ask(response: MaintenanceResponse, scope: Scope) -> tuple[Message, Headers, bytes]:
    """The start message, its headers, and the body."""
    start, body = await exchange(response, scope)
    assert not body.get("more_body", False)
    return start, Headers(raw=start["headers"]), body["body"]


async def read(response: MaintenanceResponse, scope: Scope) -> str:
    """The body as text."""
    return (await ask(response, scope))[2].decode()


class Page(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            tag = self.tags[-1][0]
            self.texts[tag] = self.texts.get(tag, "") + data
