"""Pytest fixture: import `override_maintenance` in your conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest
from starlette.types import ASGIApp

from ..model.state import MaintenanceState
from .override import override

__all__ = ["OverrideMaintenance", "override_maintenance"]


class OverrideMaintenance(Protocol):
    """The fixture's value: the last call for an application counts."""

    def __call__(self, app: ASGIApp, state: bool | MaintenanceState = True) -> None: ...


@pytest.fixture
def override_maintenance() -> Iterator[OverrideMaintenance]:
    """Override the state of an application for a test: `override_maintenance(app, True)`."""
    with ExitStack() as overrides:

        def go_by(app: ASGIApp, state: bool | MaintenanceState = True) -> None:
            overrides.enter_context(override(app, state))

        yield go_by
