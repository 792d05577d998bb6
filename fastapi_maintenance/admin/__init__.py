"""The admin API and the panel: one router that stays reachable during maintenance."""

from __future__ import annotations

from .router import maintenance_admin

__all__ = ["maintenance_admin"]
