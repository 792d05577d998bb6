"""Maintenance mode for FastAPI that holds across a whole deployment."""

from __future__ import annotations

from . import exemptions as exempt
from .barrier import BarrierResult, wait_until_applied
from .context import maintenance_mode_off, maintenance_mode_on
from .decorators import (
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_mark,
    maintenance_reads,
    maintenance_scope,
    maintenance_writes,
)
from .defaults import MaintenanceStateDep, configure_backend, get_maintenance_mode, get_maintenance_state, set_maintenance_mode
from .in_flight import untrack_current_request
from .middleware import MaintenanceModeMiddleware
from .responses import MaintenanceAnswer, Texts, maintenance_responses
from .state import MaintenanceState

__all__ = [
    "BarrierResult",
    "MaintenanceAnswer",
    "MaintenanceModeMiddleware",
    "MaintenanceState",
    "MaintenanceStateDep",
    "Texts",
    "configure_backend",
    "exempt",
    "force_maintenance_mode_off",
    "force_maintenance_mode_on",
    "get_maintenance_mode",
    "get_maintenance_state",
    "maintenance_mark",
    "maintenance_mode_off",
    "maintenance_mode_on",
    "maintenance_reads",
    "maintenance_responses",
    "maintenance_scope",
    "maintenance_writes",
    "set_maintenance_mode",
    "untrack_current_request",
    "wait_until_applied",
]
