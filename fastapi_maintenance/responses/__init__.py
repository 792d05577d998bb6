"""The response during maintenance: negotiation, renderers, the page and the ASGI application."""

from __future__ import annotations

from .content import DETAIL, detail
from .openapi import maintenance_responses
from .options import ResponseOptions
from .response import MaintenanceResponse, announcement
from .translations import Translation
from .transport import adapt_send, truncate_reason

__all__ = [
    "DETAIL",
    "MaintenanceResponse",
    "ResponseOptions",
    "Translation",
    "adapt_send",
    "announcement",
    "detail",
    "maintenance_responses",
    "truncate_reason",
]
