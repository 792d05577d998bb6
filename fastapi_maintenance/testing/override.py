"""Override the state of one application for the length of a block."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack

from starlette.applications import Starlette
from starlette.types import ASGIApp

from .._internal.validation import require
from ..exceptions import ConfigurationError
from ..model.state import OFF, ON, MaintenanceState
from ..routing import unwrap
from ..runtime.dependencies import modes_of
from ..runtime.mode import MaintenanceMode


# Lower-case, as those of contextlib: it is written as a call.
class override(AbstractContextManager[None]):
    """Override the state of one application for a block, against its backend, holds and options.

    `state` is True, False or a `MaintenanceState`, whose window is judged by this machine's clock.
    Route decorators and exemptions still apply. The backend is neither read nor written; blocks
    nest. Add middlewares before: the middleware stack is built here. Raises `ConfigurationError` if
    the application has no `MaintenanceModeMiddleware`.
    """

    def __init__(self, app: ASGIApp, state: bool | MaintenanceState) -> None:
        valid = isinstance(state, bool | MaintenanceState)
        require(valid, "state must be True, False or a MaintenanceState", state)
        self._app = app
        self._state = state if isinstance(state, MaintenanceState) else ON if state else OFF
        self._undo = ExitStack()

    def __enter__(self) -> None:
        for mode in _modes_of(self._app):
            self._undo.callback(mode.override, mode.override(self._state))

    def __exit__(self, *exc_info: object) -> None:
        self._undo.close()


def _modes_of(app: ASGIApp) -> list[MaintenanceMode]:
    for layer in unwrap(app):
        if isinstance(layer, Starlette) and layer.middleware_stack is None:
            layer.middleware_stack = layer.build_middleware_stack()  # as its first request would do
    modes = modes_of(app)
    if not modes:
        raise ConfigurationError(
            f"{app!r} has no MaintenanceModeMiddleware. Add one to it, and override "
            "that application itself, not one in which it is mounted."
        )
    return modes
