"""How long the garbage collector takes, which has the heap of all tests to look through."""

from __future__ import annotations

import gc
import time
from typing import Any, Self


class Collecting:
    """Counts, while it is entered, the `seconds` of wall-clock time and of this process' threads
    that collections took.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def __enter__(self) -> Self:
        gc.callbacks.append(self._note)
        return self

    def __exit__(self, *exc_info: object) -> None:
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = time.monotonic()
        else:
            self.seconds += time.monotonic() - self._began
