"""What a visitor sees, in a real browser."""

from __future__ import annotations
