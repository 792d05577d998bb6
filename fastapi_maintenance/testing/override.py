"""Override the state of one application for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from starlette.applications import Starlette
from starlette.types import ASGIApp

from .._internal.validation import require
from ..exceptions import ConfigurationError
from ..model.state import OFF, ON, MaintenanceState
from ..routing import unwrap
from ..runtime.dependencies import modes_of
from ..runtime.mode import MaintenanceMode


def override(app: ASGIApp, state: bool | MaintenanceState) -> AbstractContextManager[None]:
    """Override the state of one application for a block, against its backend, holds and options.

    `state` is True, False or a `MaintenanceState`, whose window is judged by this machine's clock.
    Route decorators and exemptions still apply. The backend is neither read nor written; blocks
    nest. Add middlewares before: the middleware stack is built here. Raises `ConfigurationError` if
    the application has no `MaintenanceModeMiddleware`.
    """
    valid = isinstance(state, bool | MaintenanceState)
    require(valid, "state must be True, False or a MaintenanceState", state)
    return _overriding(app, state if isinstance(state, MaintenanceState) else ON if state else OFF)


@contextmanager
def _overriding(app: ASGIApp, state: MaintenanceState) -> Iterator[None]:
    with ExitStack() as undo:
        for mode in _modes_of(app):
            undo.callback(mode.override, mode.override(state))
        yield


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
