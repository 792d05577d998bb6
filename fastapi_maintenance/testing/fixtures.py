"""A fixture for pytest: `from fastapi_maintenance.testing.fixtures import override_maintenance` in your conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest
from starlette.types import ASGIApp

from ..state import MaintenanceState
from .overriding import override

__all__ = ["OverrideMaintenance", "override_maintenance"]


class OverrideMaintenance(Protocol):
    """What the fixture is: call it as often as you like, the last call for an application counts."""

    def __call__(self, app: ASGIApp, state: bool | MaintenanceState = True) -> None: ...


@pytest.fixture
def override_maintenance() -> Iterator[OverrideMaintenance]:
    """Lets an application go by a state until the end of the test: `override_maintenance(app, True)`."""
    with ExitStack() as overrides:

        def go_by(app: ASGIApp, state: bool | MaintenanceState = True) -> None:
            overrides.enter_context(override(app, state))

        yield go_by
