"""Values and pure functions: no I/O, no clock."""

from __future__ import annotations
