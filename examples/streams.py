"""A server of long streams, as MCP and SSE servers have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI
from fastapi.sse import EventSourceResponse

from fastapi_maintenance import MaintenanceModeMiddleware, untrack_current_request

app = FastAPI()
# The backend is the one that FASTAPI_MAINTENANCE_BACKEND names. Choose more seconds than a tool
# call takes: they end its stream, too.
app.add_middleware(MaintenanceModeMiddleware, close_streams=3)


@app.post("/tools/{name}", response_class=EventSourceResponse)
async def call(name: str, steps: int = 3) -> AsyncIterator[str]:
    """Stream the progress of a tool call. A drain waits for it, as it writes."""
    for step in range(steps):
        yield f"{name}: step {step + 1} of {steps}"
        await asyncio.sleep(0.2)


@app.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterator[int]:
    """Stream without an end. A closing ends it after `close_streams`; the client reconnects."""
    count = 0
    while True:
        yield count
        count += 1
        await asyncio.sleep(0.2)


@app.get(
    "/notices",
    response_class=EventSourceResponse,
    dependencies=[Depends(untrack_current_request)],
)
async def notices() -> AsyncIterator[int]:
    """Stream without an end that writes nothing: no drain waits for it, and no closing ends it."""
    async for count in events():
        yield count
