"""Dependencies for the endpoints of an application, and the modes around it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends
from starlette.applications import Starlette

from ..backends import BaseStateBackend
from ..exceptions import BackendError
from ..model.evaluate import evaluate
from ..model.state import MaintenanceState
from ..routing import unwrap
from .current import current_backend, current_mode
from .mode import MaintenanceMode
from .requests import current_request


async def _absent() -> None:
    """Keep parameters of functions that are also dependencies out of requests."""


_Backend = Annotated[str | BaseStateBackend | None, Depends(_absent)]
_Component = Annotated[str | None, Depends(_absent)]


async def get_maintenance_mode(backend: _Backend = None, *, component: _Component = None) -> bool:
    """Return whether the effective state, of switch and holds together, is on.

    Inside a request this needs no I/O, except for a component without routes in the application.
    Elsewhere the backend is read. Raises `BackendError` if that fails. The function is also a
    dependency: `Depends(get_maintenance_mode)`.
    """
    return (await _effective_state(backend, component)).enabled


async def get_maintenance_state(
    backend: _Backend = None, *, component: _Component = None
) -> MaintenanceState:
    """Return the effective state, in general or of a component.

    Inside a request and without arguments, return the state by which the gate decided on that
    request, even if it has changed since. Raises `BackendError` if the backend must be read and
    cannot. `MaintenanceStateDep` is the same as a dependency.
    """
    request = current_request.get()
    if (
        backend is None
        and component is None
        and request is not None
        and (state := request.state) is not None
    ):
        return state
    return await _effective_state(backend, component)


async def _effective_state(
    backend: str | BaseStateBackend | None, component: str | None
) -> MaintenanceState:
    mode = current_mode()
    if backend is None and mode is not None and (component is None or component in mode.components):
        return (await mode.refresh()).for_component(component).state
    source = current_backend(backend)
    if component is not None:
        source = source.with_component(component)
    snapshot = await source.read()
    effective = evaluate(snapshot, snapshot.now, component)
    if effective.hold is None and (snapshot.for_component(component) or snapshot).switch is None:
        raise BackendError(f"{source.describe()}: {snapshot.error}")
    return effective.state


MaintenanceStateDep = Annotated[MaintenanceState, Depends(get_maintenance_state)]
"""The state by which the gate decided on the current request, as a dependency: declare a parameter
`state: MaintenanceStateDep`."""


def modes_of(app: object) -> list[MaintenanceMode]:
    """Return the modes of the middlewares around an application and in its built stack.

    Mounted applications are left out.
    """
    modes = (getattr(layer, "mode", None) for layer in _stack_of(app))
    return [mode for mode in modes if isinstance(mode, MaintenanceMode)]


def _stack_of(app: object) -> Iterator[object]:
    for layer in unwrap(app):
        yield layer
        if isinstance(layer, Starlette) and layer.middleware_stack is not None:
            yield from unwrap(layer.middleware_stack)
