"""Helpers for the tests of others."""

from __future__ import annotations
