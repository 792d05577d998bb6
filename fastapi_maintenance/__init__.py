"""Maintenance mode for FastAPI that holds across a whole deployment."""

from __future__ import annotations

from . import exemptions as exempt
from .backends.default import configure_backend
from .backends.status import StatusReport
from .coordination.barrier import BarrierResult, wait_until_applied
from .coordination.context import maintenance_mode_off, maintenance_mode_on
from .coordination.jobs import BackgroundMode, job
from .decorators import (
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_component,
    maintenance_mark,
    maintenance_reads,
    maintenance_writes,
)
from .exemptions.proxies import ForwardedHeader
from .exemptions.rules import ExemptHandler
from .middleware.middleware import MaintenanceModeMiddleware
from .model.history import Change
from .model.state import MaintenanceState
from .responses import ResponseOptions, Translation, maintenance_responses
from .responses.response import ResponseHandler
from .runtime.cache import OutagePolicy
from .runtime.current import (
    MaintenanceStateDep,
    get_maintenance_mode,
    get_maintenance_state,
    set_maintenance_mode,
)
from .runtime.hooks import ChangeHook
from .runtime.mode import MaintenanceMode
from .runtime.requests import untrack_current_request

__all__ = [
    "BackgroundMode",
    "BarrierResult",
    "Change",
    "ChangeHook",
    "ExemptHandler",
    "ForwardedHeader",
    "MaintenanceMode",
    "MaintenanceModeMiddleware",
    "MaintenanceState",
    "MaintenanceStateDep",
    "OutagePolicy",
    "ResponseHandler",
    "ResponseOptions",
    "StatusReport",
    "Translation",
    "configure_backend",
    "exempt",
    "force_maintenance_mode_off",
    "force_maintenance_mode_on",
    "get_maintenance_mode",
    "get_maintenance_state",
    "job",
    "maintenance_component",
    "maintenance_mark",
    "maintenance_mode_off",
    "maintenance_mode_on",
    "maintenance_reads",
    "maintenance_responses",
    "maintenance_writes",
    "set_maintenance_mode",
    "untrack_current_request",
    "wait_until_applied",
]
