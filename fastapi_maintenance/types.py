"""What users hand to this package: plain callables, described as types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from .state import MaintenanceState

__all__ = ["ChangeHook", "ExemptHandler", "ForwardedHeader", "ResponseHandler"]

ExemptHandler = Callable[[Request], bool | Awaitable[bool]] | Callable[[HTTPConnection], bool | Awaitable[bool]]
"""Says whether a request passes although maintenance is on. Sync ones run in the thread pool.

It is given a `Request`; for a WebSocket, an `HTTPConnection`, which has no method and no body.
"""

ResponseHandler = Callable[[Request], Response | Awaitable[Response]] | Callable[[HTTPConnection], Response | Awaitable[Response]]
"""Makes the answer during maintenance. Sync ones run in the thread pool."""

ChangeHook = Callable[[MaintenanceState, MaintenanceState, str], object]
"""Is told of a change: the old state, the new one, and where that comes from. May be async; sync ones run in a thread."""

ForwardedHeader = Literal["x-forwarded-for", "forwarded"]
"""In which header proxies say for whom they ask."""
