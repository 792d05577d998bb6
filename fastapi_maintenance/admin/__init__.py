"""The door for operators: an API and a panel on one router that is always reachable."""

from __future__ import annotations

from .router import maintenance_admin

__all__ = ["maintenance_admin"]
