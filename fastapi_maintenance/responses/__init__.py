"""The response during maintenance: negotiation, renderers, the page and the ASGI application."""

from __future__ import annotations

from .answer import MaintenanceAnswer
from .fit import fit, shorten
from .notice import DETAIL, detail
from .openapi import maintenance_responses
from .response import MaintenanceResponse, announcement
from .texts import Texts

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
