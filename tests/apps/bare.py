"""An application without maintenance mode, to test what starts applications."""

from __future__ import annotations

import os

from fastapi import FastAPI

app = FastAPI()


@app.get("/pid")
async def pid() -> int:
    """Which process answers."""
    return os.getpid()


@app.get("/env/{name}")
async def env(name: str) -> str | None:
    """What that process was given."""
    return os.environ.get(name)
