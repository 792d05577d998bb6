"""Helpers without domain knowledge."""

from __future__ import annotations
