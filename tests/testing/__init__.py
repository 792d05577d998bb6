"""Tests of `fastapi_maintenance.testing`."""

from __future__ import annotations
