"""What users hand to this package: plain callables, described as types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from .state import MaintenanceState

__all__ = ["ChangeHook", "ExemptHandler", "ForwardedHeader", "ResponseHandler"]

ExemptHandler = Callable[[Request], bool | Awaitable[bool]] | Callable[[HTTPConnection], bool | Awaitable[bool]]
"""Decides whether a request passes although maintenance is on. Sync handlers run in threads of their own.

The argument is a `Request`; for a WebSocket, an `HTTPConnection`, which has no method and no body. A handler that asks that for
what only a `Request` has, refuses the WebSocket.
"""

_Answer = Response | Awaitable[Response]
ResponseHandler = (
    Callable[[Request], _Answer]
    | Callable[[HTTPConnection], _Answer]
    | Callable[[Request, MaintenanceState], _Answer]
    | Callable[[HTTPConnection, MaintenanceState], _Answer]
)
"""Makes the response during maintenance. Sync handlers run in threads of their own.

A handler with two parameters also gets the state that the request was refused by. A WebSocket is described as to an
`ExemptHandler`; a handler that asks for what only a `Request` has, leaves it to the standard response.
"""

ChangeHook = Callable[[MaintenanceState, MaintenanceState, str], object]
"""Is told of a change: the old state, the new one, and where that comes from. May be async; sync ones run in a thread."""

ForwardedHeader = Literal["x-forwarded-for", "forwarded"]
"""In which header proxies say for whom they ask."""
