"""The process' default backend, and the functions that work on the application at hand or, without one, on that."""

from __future__ import annotations

import os
from typing import Annotated, Any, Final

from fastapi import Depends

from .backends import BaseStateBackend, EnvVarBackend, backend_from_url
from .backends.urls import backend_of_kind
from .exceptions import BackendError, ConfigurationError
from .in_flight import current_admission
from .mode import mode_at_hand
from .snapshot import evaluate
from .state import MaintenanceState

__all__ = [
    "BACKEND_VARIABLE",
    "MaintenanceStateDep",
    "backend_at_hand",
    "backend_or_default",
    "configure_backend",
    "get_maintenance_mode",
    "get_maintenance_state",
    "set_maintenance_mode",
]

BACKEND_VARIABLE: Final = "FASTAPI_MAINTENANCE_BACKEND"


async def _absent() -> None:
    """Keep parameters of functions that are dependencies, too, from becoming parameters of requests."""


_Backend = Annotated[str | BaseStateBackend | None, Depends(_absent)]
_Name = Annotated[str | None, Depends(_absent)]


class _Default:
    """The one piece of module state: what a process without a word of configuration shares."""

    configured: BaseStateBackend | None = None
    from_variable: tuple[str, BaseStateBackend] | None = None


def configure_backend(backend: str | BaseStateBackend, **options: Any) -> None:
    """Set the process' default backend: `env`, `file` or `redis` with options, or a URL, or an instance.

    The URL in the environment variable `FASTAPI_MAINTENANCE_BACKEND` goes before it. Raises `ConfigurationError`.
    """
    if isinstance(backend, BaseStateBackend):
        if options:
            raise ConfigurationError("Options belong to the backend's own constructor when an instance is given.")
        _Default.configured = backend
    elif not isinstance(backend, str):
        raise ConfigurationError(f"backend must be a kind (env, file or redis), a URL or a backend, not {backend!r}.")
    elif ":" in backend:
        if options:
            raise ConfigurationError("Options belong into the URL's query when a URL is given.")
        _Default.configured = backend_from_url(backend)
    else:
        _Default.configured = backend_of_kind(backend, **options)


def backend_or_default(backend: str | BaseStateBackend | None = None) -> BaseStateBackend:
    """The backend given, as an instance or a URL; else the one the environment names; else the configured one; else env."""
    if isinstance(backend, BaseStateBackend):
        return backend
    if isinstance(backend, str):
        return backend_from_url(backend)
    if backend is not None:
        raise ConfigurationError(f"backend must be a backend or its URL, not {backend!r}.")
    if url := os.environ.get(BACKEND_VARIABLE):
        if _Default.from_variable is None or _Default.from_variable[0] != url:
            _Default.from_variable = (url, backend_from_url(url))
        return _Default.from_variable[1]
    if _Default.configured is None:
        _Default.configured = EnvVarBackend()
    return _Default.configured


def backend_at_hand(backend: str | BaseStateBackend | None = None) -> BaseStateBackend:
    """The backend given, else that of the application whose request or lifespan this runs in, else the default."""
    mode = mode_at_hand()
    return mode.backend if backend is None and mode is not None else backend_or_default(backend)


async def get_maintenance_mode(backend: _Backend = None, *, scope: _Name = None) -> bool:
    """Whether maintenance is on, in general or in a scope: the effective state, of switch and holds together.

    Inside a request without any I/O, but for a scope that none of the application's routes belongs to; elsewhere by asking the
    backend. Raises `BackendError` where that fails. A dependency, too: `Depends(get_maintenance_mode)`.
    """
    return (await _effective_state(backend, scope)).enabled


async def get_maintenance_state(backend: _Backend = None, *, component: _Name = None) -> MaintenanceState:
    """Return the effective state, in general or of a component.

    Inside a request, without arguments: the state by which the gate decided on this request, also if it has changed since.
    Raises `BackendError` if the backend must be asked and fails. `MaintenanceStateDep` is the same as a dependency.
    """
    admission = current_admission.get()
    if backend is None and component is None and admission is not None and (state := admission.state) is not None:
        return state
    return await _effective_state(backend, component)


async def _effective_state(backend: str | BaseStateBackend | None, scope: str | None) -> MaintenanceState:
    mode = mode_at_hand()
    if backend is None and mode is not None and (scope is None or scope in mode.scopes):
        return (await mode.refresh()).of(scope).state
    asked = backend_at_hand(backend)
    if scope is not None:
        asked.follow_scopes([scope])
    reading = await asked.read()
    effective = evaluate(reading, reading.now, scope)
    if effective.hold is None and (reading.of(scope) or reading).switch is None:
        raise BackendError(f"{asked.describe()}: {reading.error}")
    return effective.state


MaintenanceStateDep = Annotated[MaintenanceState, Depends(get_maintenance_state)]
"""The state by which the gate decided on a request, for endpoints and dependencies: `state: MaintenanceStateDep`."""


async def set_maintenance_mode(
    value: bool | MaintenanceState,
    backend: str | BaseStateBackend | None = None,
    *,
    expires_in: float | None = None,
    scope: str | None = None,
) -> None:
    """Set the switch, or that of a scope, for `expires_in` seconds where given. Raises `BackendError` if that did not happen.

    For a scope, False is no switch of its own: what holds in general decides again.
    """
    state = value if isinstance(value, MaintenanceState) else MaintenanceState(enabled=value)
    target = backend_at_hand(backend)
    await (target.write(state, expires_in=expires_in) if scope is None else target.write_scope(scope, state, expires_in=expires_in))
