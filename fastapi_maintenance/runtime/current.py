"""The mode and the backend of the current request, and how to set the switch."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..backends import BaseStateBackend
from ..backends.default import backend_or_default
from ..model.state import MaintenanceState
from .requests import current_request

if TYPE_CHECKING:  # the command line needs the backend only
    from .mode import MaintenanceMode


def current_mode() -> MaintenanceMode | None:
    """Return the mode of the application whose request or lifespan the code runs in."""
    request = current_request.get()
    return None if request is None else cast("MaintenanceMode", request.owner)


def current_backend(backend: str | BaseStateBackend | None = None) -> BaseStateBackend:
    """Return the given backend, else that of the current application, else the process default."""
    mode = current_mode()
    return mode.backend if backend is None and mode is not None else backend_or_default(backend)


async def set_maintenance_mode(
    value: bool | MaintenanceState,
    backend: str | BaseStateBackend | None = None,
    *,
    expires_in: float | None = None,
    component: str | None = None,
) -> None:
    """Set the switch, or the switch of a component, for `expires_in` seconds if given.

    For a component, False removes its switch, and the general state applies again. Raises
    `BackendError` if the switch could not be set.
    """
    state = value if isinstance(value, MaintenanceState) else MaintenanceState(enabled=value)
    target = current_backend(backend)
    if component is None:
        await target.write(state, expires_in=expires_in)
    else:
        await target.write_component(component, state, expires_in=expires_in)
