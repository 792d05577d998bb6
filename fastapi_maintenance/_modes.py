"""Which MaintenanceMode an application goes by: that of the middleware in its stack."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.applications import Starlette

from ._routing import layers_of
from .mode import MaintenanceMode

__all__ = ["modes_of"]


def modes_of(app: object) -> list[MaintenanceMode]:
    """Those of every middleware of ours around an application and, once its stack is built, in it; none of what is mounted in it."""
    return [layer.mode for layer in _stack_of(app) if isinstance(getattr(layer, "mode", None), MaintenanceMode)]  # type: ignore[attr-defined]


def _stack_of(app: object) -> Iterator[object]:
    for layer in layers_of(app):
        yield layer
        if isinstance(layer, Starlette) and layer.middleware_stack is not None:
            yield from layers_of(layer.middleware_stack)
