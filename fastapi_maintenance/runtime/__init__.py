"""The runtime state of one worker process."""

from __future__ import annotations
