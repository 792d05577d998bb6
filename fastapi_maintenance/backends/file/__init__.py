"""The file backend: for one host without Redis, and as a fallback across restarts."""

from __future__ import annotations
