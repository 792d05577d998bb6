"""The command line: `fastapi-maintenance`. Needs the extra `cli`."""

from __future__ import annotations
