"""Several processes together: holds, barriers and jobs."""

from __future__ import annotations
