"""What tests of holds look at: the threads that keep them, and what is said when one is lost."""

from __future__ import annotations

import logging
import threading

import pytest


def lease_threads() -> list[threading.Thread]:
    """Those that keep a lease now."""
    return [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("fastapi_maintenance lease")
    ]


def critical_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as critical so far."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
