"""The response during maintenance: negotiation, renderers, the page and the ASGI application."""

from __future__ import annotations

from .content import DETAIL, detail
from .openapi import maintenance_responses
from .options import MaintenanceAnswer
from .response import MaintenanceResponse, announcement
from .translations import Texts
from .transport import fit, shorten

__all__ = [
    "DETAIL",
    "MaintenanceAnswer",
    "MaintenanceResponse",
    "Texts",
    "announcement",
    "detail",
    "fit",
    "maintenance_responses",
    "shorten",
]
