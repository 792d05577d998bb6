"""The panel: one self-contained page that requests nothing but this router."""

from __future__ import annotations

from importlib.resources import files
from string import Template
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from ..responses.page import content_security_policy
from .security import PrivateRoute

_FILES: Final = files(__package__)
_STYLE: Final = _FILES.joinpath("panel.css").read_text("utf-8")
_SCRIPT: Final = _FILES.joinpath("panel.js").read_text("utf-8")
_PAGE: Final = Template(_FILES.joinpath("panel.html").read_text("utf-8")).substitute(
    style=_STYLE, script=_SCRIPT
)

_HEADERS: Final = {
    "Content-Security-Policy": (
        f"{content_security_policy(_STYLE, _SCRIPT)}; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


router = APIRouter(route_class=PrivateRoute)


@router.get("/", include_in_schema=False)
async def get_panel() -> HTMLResponse:
    """Return the page. The stream of events brings its content."""
    return HTMLResponse(_PAGE, headers=_HEADERS)
