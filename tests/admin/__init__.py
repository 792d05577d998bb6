"""What operators ask for, and who may."""

from __future__ import annotations
