"""The version of this library, as it was installed."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

__all__ = ["VERSION"]

VERSION: Final = version("fastapi-maintenance-cluster")
