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


def content_security_policy(style: str, script: str) -> str:
    """Return the policy that allows this style, this script and requests to the own origin."""
    digests = (sha256(text.encode()).digest() for text in (style, script))
    of_style, of_script = (f"'sha256-{b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; style-src {of_style}; script-src {of_script}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


CONTENT_SECURITY_POLICY: Final = content_security_policy(_STYLE, _SCRIPT).encode()


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
