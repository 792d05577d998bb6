"""What one worker process knows."""

from __future__ import annotations
