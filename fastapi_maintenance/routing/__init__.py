"""Which endpoint would answer a request. The only modules that know FastAPI's route tree."""

from __future__ import annotations

from .layers import layers_of
from .match import Resolved
from .table import RouteTable

__all__ = ["Resolved", "RouteTable", "layers_of"]
