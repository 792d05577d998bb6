"""Format-independent content of the response."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ..model.state import MaintenanceState
from .translations import Translation

DETAIL: Final = "Service temporarily unavailable due to maintenance"
"""The detail for programs if the state has no message."""

READ_ONLY_DETAIL: Final = "Service temporarily read-only due to maintenance"
"""The detail for programs in read-only mode if the state has no message."""


def detail(state: MaintenanceState) -> str:
    """Return the detail for programs."""
    return state.message or (READ_ONLY_DETAIL if state.mode == "read-only" else DETAIL)


@dataclass(frozen=True, slots=True)
class Content:
    """The public part of a state in one language. `jitter` spreads browsers, in seconds."""

    state: MaintenanceState
    language: str
    translation: Translation
    jitter: int = 0

    @property
    def read_only(self) -> bool:
        return self.state.mode == "read-only"

    @property
    def title(self) -> str:
        return self.translation.read_only_title if self.read_only else self.translation.title

    @property
    def message(self) -> str:
        """The message of the state, else of the language."""
        return self.state.message or (
            self.translation.read_only_message if self.read_only else self.translation.message
        )

    @property
    def ends_at(self) -> datetime | None:
        """The end in UTC, rounded up to a second; `None` if it is unknown."""
        end = self.state.ends_at
        if end is None or not end.microsecond:
            return end
        return end.replace(microsecond=0) + timedelta(seconds=1)
