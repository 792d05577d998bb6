"""What ends the demo early."""

from __future__ import annotations

from ..exceptions import MaintenanceError

__all__ = ["DemoError"]


class DemoError(MaintenanceError):
    """The demo cannot go on; one sentence for whoever started it, which says what to do."""
