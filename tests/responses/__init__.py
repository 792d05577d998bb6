"""The answer during maintenance."""

from __future__ import annotations
