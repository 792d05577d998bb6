"""The ASGI middleware."""

from __future__ import annotations

from .middleware import MaintenanceModeMiddleware

__all__ = ["MaintenanceModeMiddleware"]
