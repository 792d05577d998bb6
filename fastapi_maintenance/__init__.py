"""Maintenance mode for FastAPI that holds across a whole deployment.

Each name is imported when it is first used, so that the command line and scripts that hold a lease
do not import FastAPI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
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
    from .responses.openapi import maintenance_responses
    from .responses.options import ResponseOptions
    from .responses.response import ResponseHandler
    from .responses.translations import Translation
    from .runtime.current import set_maintenance_mode
    from .runtime.dependencies import (
        MaintenanceStateDep,
        get_maintenance_mode,
        get_maintenance_state,
    )
    from .runtime.gate import OutagePolicy
    from .runtime.hooks import ChangeHook
    from .runtime.mode import MaintenanceMode
    from .runtime.options import MaintenanceOptions
    from .runtime.requests import untrack_current_request
else:  # and not for type checkers, which would take any name for one of these

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f".{_HOMES[name]}", __name__)
        value = globals()[name] = module if name == "exempt" else getattr(module, name)
        return value


__all__ = [
    "BackgroundMode",
    "BarrierResult",
    "Change",
    "ChangeHook",
    "ExemptHandler",
    "ForwardedHeader",
    "MaintenanceMode",
    "MaintenanceModeMiddleware",
    "MaintenanceOptions",
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

_NAMES_OF: Final = {
    "exemptions": "exempt",
    "backends.default": "configure_backend",
    "backends.status": "StatusReport",
    "coordination.barrier": "BarrierResult wait_until_applied",
    "coordination.context": "maintenance_mode_off maintenance_mode_on",
    "coordination.jobs": "BackgroundMode job",
    "decorators": "force_maintenance_mode_off force_maintenance_mode_on maintenance_component "
    "maintenance_mark maintenance_reads maintenance_writes",
    "exemptions.proxies": "ForwardedHeader",
    "exemptions.rules": "ExemptHandler",
    "middleware.middleware": "MaintenanceModeMiddleware",
    "model.history": "Change",
    "model.state": "MaintenanceState",
    "responses.openapi": "maintenance_responses",
    "responses.options": "ResponseOptions",
    "responses.response": "ResponseHandler",
    "responses.translations": "Translation",
    "runtime.gate": "OutagePolicy",
    "runtime.current": "set_maintenance_mode",
    "runtime.dependencies": "MaintenanceStateDep get_maintenance_mode get_maintenance_state",
    "runtime.hooks": "ChangeHook",
    "runtime.mode": "MaintenanceMode",
    "runtime.options": "MaintenanceOptions",
    "runtime.requests": "untrack_current_request",
}
_HOMES: Final = {name: module for module, names in _NAMES_OF.items() for name in names.split()}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
