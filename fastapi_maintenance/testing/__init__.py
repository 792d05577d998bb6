"""Test applications and custom backends: `override`, a pytest fixture, a conformance suite."""

from __future__ import annotations

from .override import override

__all__ = ["override"]
