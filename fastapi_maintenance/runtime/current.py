"""The mode and the backend of the current request, `get_maintenance_mode` and `set_maintenance_mode`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, cast

from fastapi import Depends
from starlette.applications import Starlette

from ..backends import BaseStateBackend
from ..backends.default import backend_or_default
from ..exceptions import BackendError
from ..model.evaluate import evaluate
from ..model.state import MaintenanceState
from ..routing import unwrap
from .mode import MaintenanceMode
from .requests import current_request

__all__ = [
    "MaintenanceStateDep",
    "current_backend",
    "current_mode",
    "get_maintenance_mode",
    "get_maintenance_state",
    "modes_of",
    "set_maintenance_mode",
]


def current_mode() -> MaintenanceMode | None:
    """Return the mode of the application whose request or lifespan the code runs in."""
    admission = current_request.get()
    return None if admission is None else cast("MaintenanceMode", admission.owner)


async def _absent() -> None:
    """Keep parameters of functions that are dependencies, too, from becoming parameters of requests."""


_Backend = Annotated[str | BaseStateBackend | None, Depends(_absent)]


_Name = Annotated[str | None, Depends(_absent)]


def current_backend(backend: str | BaseStateBackend | None = None) -> BaseStateBackend:
    """The backend given, else that of the application whose request or lifespan this runs in, else the default."""
    mode = current_mode()
    return mode.backend if backend is None and mode is not None else backend_or_default(backend)


async def get_maintenance_mode(backend: _Backend = None, *, component: _Name = None) -> bool:
    """Whether maintenance is on, in general or in a component: the effective state, of switch and holds together.

    Inside a request without any I/O, but for a component that none of the application's routes belongs to; elsewhere by asking the
    backend. Raises `BackendError` where that fails. A dependency, too: `Depends(get_maintenance_mode)`.
    """
    return (await _effective_state(backend, component)).enabled


async def get_maintenance_state(
    backend: _Backend = None, *, component: _Name = None
) -> MaintenanceState:
    """Return the effective state, in general or of a component.

    Inside a request, without arguments: the state by which the gate decided on this request, also if it has changed since.
    Raises `BackendError` if the backend must be asked and fails. `MaintenanceStateDep` is the same as a dependency.
    """
    admission = current_request.get()
    if (
        backend is None
        and component is None
        and admission is not None
        and (state := admission.state) is not None
    ):
        return state
    return await _effective_state(backend, component)


async def _effective_state(
    backend: str | BaseStateBackend | None, component: str | None
) -> MaintenanceState:
    mode = current_mode()
    if backend is None and mode is not None and (component is None or component in mode.components):
        return (await mode.refresh()).for_component(component).state
    asked = current_backend(backend)
    if component is not None:
        asked.follow_components([component])
    reading = await asked.read()
    effective = evaluate(reading, reading.now, component)
    if effective.hold is None and (reading.for_component(component) or reading).switch is None:
        raise BackendError(f"{asked.describe()}: {reading.error}")
    return effective.state


MaintenanceStateDep = Annotated[MaintenanceState, Depends(get_maintenance_state)]
"""The state by which the gate decided on a request, for endpoints and dependencies: `state: MaintenanceStateDep`."""


async def set_maintenance_mode(
    value: bool | MaintenanceState,
    backend: str | BaseStateBackend | None = None,
    *,
    expires_in: float | None = None,
    component: str | None = None,
) -> None:
    """Set the switch, or that of a component, for `expires_in` seconds where given. Raises `BackendError` if that did not happen.

    For a component, False is no switch of its own: what holds in general decides again.
    """
    state = value if isinstance(value, MaintenanceState) else MaintenanceState(enabled=value)
    target = current_backend(backend)
    await (
        target.write(state, expires_in=expires_in)
        if component is None
        else target.write_component(component, state, expires_in=expires_in)
    )


def modes_of(app: object) -> list[MaintenanceMode]:
    """Those of every middleware of ours around an application and, once its stack is built, in it; none of what is mounted in it."""
    return [
        layer.mode  # type: ignore[attr-defined]
        for layer in _stack_of(app)
        if isinstance(getattr(layer, "mode", None), MaintenanceMode)
    ]


def _stack_of(app: object) -> Iterator[object]:
    for layer in unwrap(app):
        yield layer
        if isinstance(layer, Starlette) and layer.middleware_stack is not None:
            yield from unwrap(layer.middleware_stack)
