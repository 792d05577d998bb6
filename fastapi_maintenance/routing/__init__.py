"""Find the endpoint that would answer a request. No other package knows FastAPI's route tree."""

from __future__ import annotations

from .layers import unwrap
from .match import RouteMatch
from .table import RouteScan, RouteTable

__all__ = ["RouteMatch", "RouteScan", "RouteTable", "unwrap"]
