"""The panel: one file with everything in it, which asks this router and nobody else."""

from __future__ import annotations

from importlib.resources import files
from string import Template
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from ..responses.page import inline_source

__all__ = ["add_to"]

_FILES: Final = files(__package__)
_STYLE: Final = _FILES.joinpath("panel.css").read_text("utf-8")
_SCRIPT: Final = _FILES.joinpath("panel.js").read_text("utf-8")
_PAGE: Final = Template(_FILES.joinpath("panel.html").read_text("utf-8")).substitute(style=_STYLE, script=_SCRIPT)

_HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {inline_source(_STYLE)}; script-src {inline_source(_SCRIPT)}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def add_to(router: APIRouter) -> None:
    """Add the page to the router."""
    router.get("/", include_in_schema=False)(get_panel)


async def get_panel() -> HTMLResponse:
    """The page. What it shows it gets from the events."""
    return HTMLResponse(_PAGE, headers=_HEADERS)
