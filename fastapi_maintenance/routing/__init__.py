"""Which endpoint would answer a request. The only modules that know FastAPI's route tree."""

from __future__ import annotations

from .layers import unwrap
from .match import RouteMatch
from .table import RouteTable

__all__ = ["RouteMatch", "RouteTable", "unwrap"]
