"""Renderers for JSON, problem details, HTML and plain text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from .._internal.times import iso_seconds, readable
from .content import Content, detail
from .page import CONTENT_SECURITY_POLICY, render_page

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
HTML: Final = "text/html"
PLAIN: Final = "text/plain"
MEDIA_TYPES: Final = (JSON, PROBLEM, HTML, PLAIN)
"""The media types in order: the first is the default, and the earlier one wins a tie."""


@dataclass(frozen=True, slots=True)
class RenderedBody:
    """A rendered body and its headers.

    With `after`, the seconds of Retry-After go between the two parts, as they may differ for each
    client.
    """

    content: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    after: bytes | None = None


def render_json(content: Content) -> RenderedBody:
    """Render JSON like FastAPI's own errors. `mode` is present in read-only mode only."""
    document: dict[str, Any] = {"detail": detail(content.state)}
    if content.read_only:
        document["mode"] = content.state.mode
    return RenderedBody(_dump(document), (_content_type(JSON), _VARY))


def render_problem(content: Content, kind: str, status: int) -> RenderedBody:
    """Render problem details (RFC 9457) of the type `kind`, with `retry_after` in seconds.

    As that RFC recommends, the title of `about:blank` is the phrase of the status.
    """
    title = "Read-only for maintenance" if content.read_only else "Down for maintenance"
    if kind == "about:blank":
        title = next((known.phrase for known in HTTPStatus if known == status), title)
    problem: dict[str, Any] = {
        "type": kind,
        "title": title,
        "status": status,
        "detail": detail(content.state),
        "mode": content.state.mode,
    }
    if content.ends_at is not None:
        problem["ends_at"] = iso_seconds(content.ends_at)
    head = _dump(problem).removesuffix(b"}")
    return RenderedBody(head + b',"retry_after":', (_content_type(PROBLEM), _VARY), after=b"}")


def render_html(content: Content) -> RenderedBody:
    """Render the built-in page."""
    policy = (b"content-security-policy", CONTENT_SECURITY_POLICY)
    headers = _content_type(f"{HTML}; charset=utf-8"), *_language_headers(content), policy
    return RenderedBody(render_page(content).encode(), headers)


def render_plain(content: Content) -> RenderedBody:
    """Render plain text of two or three lines."""
    lines = [content.title, content.message]
    if content.ends_at is not None:
        lines.append(content.translation.until.replace("{time}", readable(content.ends_at)))
    headers = _content_type(f"{PLAIN}; charset=utf-8"), *_language_headers(content)
    return RenderedBody("".join(f"{line}\n" for line in lines).encode(), headers)


_VARY: Final = (b"vary", b"accept")


def _content_type(value: str) -> tuple[bytes, bytes]:
    return b"content-type", value.encode()


def _language_headers(content: Content) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of a body in one of several languages."""
    return (b"vary", b"accept, accept-language"), (b"content-language", content.language.encode())


def _dump(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
