"""The page for visitors: one file with everything in it, which asks nobody for anything but whether the service is back."""

from __future__ import annotations

import html
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from string import Template
from typing import Final

from .notice import Notice
from .times import iso, readable

__all__ = ["CONTENT_SECURITY_POLICY", "inline_source", "render_page"]

_FILES: Final = files(__package__)
_PAGE: Final = Template(_FILES.joinpath("page.html").read_text("utf-8"))
_STYLE: Final = _FILES.joinpath("page.css").read_text("utf-8")
_SCRIPT: Final = _FILES.joinpath("page.js").read_text("utf-8")


def inline_source(text: str) -> str:
    """What allows exactly this inline style or script (Content Security Policy, 6.7.3.3)."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src {inline_source(_STYLE)}; script-src {inline_source(_SCRIPT)}; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
).encode()
"""The page's own, which lets it have its style and its script and nothing else."""


def render_page(notice: Notice) -> str:
    """The whole page. Without its style and its script, as under a stricter policy of somebody else's, it is a readable text."""
    return _PAGE.substitute(
        language=html.escape(notice.language),
        direction="rtl" if notice.texts.right_to_left else "ltr",
        title=html.escape(notice.title),
        message=html.escape(notice.message),
        until=_until(notice),
        # In read-only mode the visitor's own GET never was refused, so there is nothing to wait for and a form's text to lose.
        waiting="" if notice.read_only else f'<p class="waiting" role="status" hidden>{html.escape(notice.texts.waiting)}</p>\n',
        style=_STYLE,
        script=f"<script>{_SCRIPT}</script>\n",
    )


def _until(notice: Notice) -> str:
    if notice.ends_at is None:
        return ""
    before, after = map(html.escape, notice.texts.until.split("{time}"))
    spread = f' data-jitter="{notice.jitter}"' if notice.jitter else ""
    return f'<p class="until">{before}<time datetime="{iso(notice.ends_at)}"{spread}>{readable(notice.ends_at)}</time>{after}</p>\n'
