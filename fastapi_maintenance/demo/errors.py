"""What ends the demo early."""

from __future__ import annotations

from ..exceptions import MaintenanceError

__all__ = ["DemoError", "describe"]


class DemoError(MaintenanceError):
    """The demo cannot go on; one sentence for whoever started it, which says what to do."""


def describe(error: BaseException) -> str:
    """What an error says, or what it is where it says nothing, as many of the network's do."""
    return str(error) or type(error).__name__
