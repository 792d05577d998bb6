"""The stream that the panel lives on: a whole picture for every change, and one now and then to show that it is alive."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from typing import Final

from fastapi import APIRouter
from fastapi.sse import EventSourceResponse

from ..in_flight import untrack_current_request
from ..mode import MaintenanceMode
from .at_hand import Mode, Operator
from .guard import PrivateRoute
from .picture import Picture, draw
from .problems import responses

__all__ = ["follow", "router"]

_SHORTEST: Final = 0.1  # seconds between two looks, after a change
_LONGEST: Final = 0.5
_HEARTBEAT: Final = 2.0
_LIFE: Final = 60.0  # seconds, after which the guard is asked again: the browser reconnects by itself


router = APIRouter(route_class=PrivateRoute)


@router.get("/events", response_class=EventSourceResponse, responses=responses())
async def get_events(mode: Mode, operator: Operator) -> AsyncIterator[Picture]:
    """Stream the dashboard as server-sent events: at once, after every change, and every two seconds."""
    untrack_current_request()  # else the panel would show itself as a request at work
    async for picture in follow(mode, operator):
        yield picture


async def follow(mode: MaintenanceMode, operator: str | None = None, *, life: float = _LIFE) -> AsyncIterator[Picture]:
    """Look often after a change and less often later, for `life` seconds or until the server is to stop."""
    began, sent_at, pause = time.monotonic(), 0.0, _SHORTEST
    shown: Picture | None = None
    while time.monotonic() - began < life and not _server_is_stopping():
        picture = await draw(mode, operator)
        changed = not picture.shows_the_same_as(shown)
        if changed or time.monotonic() - sent_at >= _HEARTBEAT:
            shown, sent_at = picture, time.monotonic()
            yield picture
        pause = _SHORTEST if changed else min(_LONGEST, pause * 1.5)
        await asyncio.sleep(pause)


def _server_is_stopping() -> bool:
    """Whether uvicorn has been told to end: it waits for every response before it lets the application know."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
