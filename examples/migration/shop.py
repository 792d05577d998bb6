"""A shop that writes a row per order, and must not write while its table is migrated."""

from __future__ import annotations

import os
import sqlite3
import time

from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware

DATABASE = os.environ.get("SHOP_DATABASE", "shop.db")

app = FastAPI()
# A worker that cannot read Redis closes after two seconds, so that the barrier of `run` is a proof.
app.add_middleware(MaintenanceModeMiddleware, on_unreachable="closed")


@app.post("/orders")
def order() -> dict[str, float]:
    """Place an order, and return its time."""
    placed = time.time()
    with sqlite3.connect(DATABASE, timeout=10) as database:
        database.execute("INSERT INTO orders (placed) VALUES (?)", (placed,))
    return {"placed": placed}
