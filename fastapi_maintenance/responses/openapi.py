"""The response during maintenance as OpenAPI documents it."""

from __future__ import annotations

from typing import Any, Final

from .content import DETAIL
from .renderers import HTML, JSON, PLAIN, PROBLEM


def _object(*required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


_DETAIL: Final = {"type": "string", "example": DETAIL}
_URI: Final = {"type": "string", "format": "uri-reference"}
_MODE: Final = {"type": "string", "enum": ["full", "read-only"]}

maintenance_responses: Final[dict[int | str, dict[str, Any]]] = {
    503: {
        "description": "Down for maintenance, or read-only.",
        "headers": {
            "Retry-After": {
                "description": "Seconds to wait, or an HTTP date.",
                "schema": {"type": "string", "example": "120"},
            },
            "X-Maintenance-Mode": {
                "description": "`full` or `read-only`, with `;ends_at=@…` if the end is known.",
                "required": True,
                "schema": {"type": "string", "example": "full;ends_at=@1795320000"},
            },
        },
        "content": {
            JSON: {"schema": _object("detail", detail=_DETAIL, mode=_MODE)},
            PROBLEM: {
                "schema": _object(
                    *("type", "title", "status", "detail", "mode", "retry_after"),
                    type=_URI | {"default": "urn:problem-type:maintenance"},
                    title={"type": "string", "example": "Down for maintenance"},
                    status={"type": "integer", "example": 503},
                    detail=_DETAIL,
                    mode=_MODE,
                    ends_at={"type": "string", "format": "date-time"},
                    retry_after={"type": "integer", "description": "Seconds.", "example": 120},
                )
            },
            HTML: {"schema": {"type": "string"}},
            PLAIN: {"schema": {"type": "string"}},
        },
    }
}
"""The 503 of every gated operation, for OpenAPI: `FastAPI(responses=maintenance_responses)`."""
