"""The built-in, self-contained HTML page."""

from __future__ import annotations

import html
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from string import Template
from typing import Final

from .._internal.times import iso_seconds, readable
from .content import Content

_FILES: Final = files(__package__)
_PAGE: Final = Template(_FILES.joinpath("page.html").read_text("utf-8"))
_STYLE: Final = _FILES.joinpath("page.css").read_text("utf-8")
_WAITING: Final = '<p class="waiting" role="status" hidden>{}</p>\n'
_SCRIPT: Final = _FILES.joinpath("page.js").read_text("utf-8")


def inline_source(text: str) -> str:
    """Return the CSP source that allows exactly this inline style or script."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src {inline_source(_STYLE)}; script-src {inline_source(_SCRIPT)}; "
    "connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
).encode()
"""The policy of the page. It allows its style, its script and requests to its own origin."""


def render_page(content: Content) -> str:
    """Render the page. It stays readable where a stricter policy blocks its style and script."""
    return _PAGE.substitute(
        language=html.escape(content.language),
        direction="rtl" if content.translation.right_to_left else "ltr",
        title=html.escape(content.title),
        message=html.escape(content.message),
        until=_until(content),
        # Read-only mode never refuses a GET, so there is nothing to wait for; a reload would lose
        # the text of a form.
        waiting=""
        if content.read_only
        else _WAITING.format(html.escape(content.translation.waiting)),
        style=_STYLE,
        script=f"<script>{_SCRIPT}</script>\n",
    )


def _until(content: Content) -> str:
    if content.ends_at is None:
        return ""
    before, after = map(html.escape, content.translation.until.split("{time}"))
    spread = f' data-jitter="{content.jitter}"' if content.jitter else ""
    begin = f'<time datetime="{iso_seconds(content.ends_at)}"{spread}>'
    return f'<p class="until">{before}{begin}{readable(content.ends_at)}</time>{after}</p>\n'
