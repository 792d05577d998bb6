"""Post to a webhook, once per deployment, when maintenance starts or ends: `on_change_once`."""

from __future__ import annotations

import json
import os
import urllib.request

from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware, MaintenanceState

WEBHOOK = os.environ.get("WEBHOOK", "http://localhost:9000/hooks/maintenance")


def announce(old: MaintenanceState, new: MaintenanceState, source: str) -> None:
    """Post the change. A sync hook runs in a thread, so it may be slow."""
    text = f"Maintenance is {'on' if new.enabled else 'off'}" + (
        f": {new.reason}" if new.reason else ""
    )
    body = json.dumps({"text": text, "was_on": old.enabled, "source": source}).encode()
    request = urllib.request.Request(WEBHOOK, body, {"Content-Type": "application/json"})  # noqa: S310 - of this program's own configuration
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass


app = FastAPI()
app.add_middleware(
    MaintenanceModeMiddleware,
    backend=os.environ.get("REDIS_URL", "redis://localhost:6379"),
    on_change_once=announce,
)


@app.get("/")
async def front() -> str:
    return "open"
