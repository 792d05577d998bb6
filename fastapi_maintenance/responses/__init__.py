"""The response during maintenance: negotiation, renderers, the page and the ASGI application."""

from __future__ import annotations
