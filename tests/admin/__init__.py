"""Tests of the admin API and the panel."""

from __future__ import annotations
