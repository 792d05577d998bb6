"""The stream of the panel: the whole dashboard after every change, and regularly as a heartbeat."""

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

_MIN_PAUSE: Final = 0.1  # seconds between two reads, after a change
_MAX_PAUSE: Final = 0.5
_HEARTBEAT: Final = 2.0
_LIFE: Final = 60.0  # seconds; when the panel reconnects, the guard is asked again


router = APIRouter(route_class=PrivateRoute)


@router.get("/events", response_class=EventSourceResponse, responses=responses())
async def get_events(mode: Mode, operator: Operator) -> AsyncIterator[Picture]:
    """Stream the dashboard as server-sent events: at once, after every change, and every two seconds."""
    untrack_current_request()  # else the panel would show its own request in flight
    async for picture in follow(mode, operator):
        yield picture


async def follow(mode: MaintenanceMode, operator: str | None = None, *, life: float = _LIFE) -> AsyncIterator[Picture]:
    """Read often after a change and less often later, for `life` seconds or until the server stops."""
    began, sent_at, pause = time.monotonic(), 0.0, _MIN_PAUSE
    shown: Picture | None = None
    while time.monotonic() - began < life and not _server_is_stopping():
        picture = await draw(mode, operator)
        changed = not picture.shows_the_same_as(shown)
        if changed or time.monotonic() - sent_at >= _HEARTBEAT:
            shown, sent_at = picture, time.monotonic()
            yield picture
        pause = _MIN_PAUSE if changed else min(_MAX_PAUSE, pause * 1.5)
        await asyncio.sleep(pause)


def _server_is_stopping() -> bool:
    """Return whether uvicorn is stopping, for it waits for responses before it tells the application."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
