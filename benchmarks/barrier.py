"""6. From a flip to "all have applied it"."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from fastapi_maintenance import wait_until_applied
from fastapi_maintenance.backends import RedisBackend
from tests.support.servers import RedisServer

from .crew import Crew, ours
from .progress import say
from .spread import Spread
from .table import milliseconds, table

__all__ = ["TITLE", "measure", "plots", "report"]

TITLE: Final = "The barrier"
_WORKERS: Final = {4: 20, 20: 12, 100: 6}  # flips, by the number of workers
_WHAT: Final = """\
From the moment at which a bare `SET` is sent until `wait_until_applied` returns with the proof that every worker has applied it, beside the
moment at which the last worker answered 503 in the same flip, which nobody can know before. It looks 10 ms after its beginning, then after
pauses that grow by half."""


def measure() -> dict[str, Any]:
    """By the number of workers."""
    rows = []
    with RedisServer() as server:
        for workers, flips in _WORKERS.items():
            say(f"{workers} workers")
            with Crew(ours, server, workers) as crew:
                asyncio.run(_wait(server))  # a young registry has to settle first
                proved, applied = [], []
                for _ in range(flips):
                    time.sleep(0.05 + 0.002 * workers)
                    sent = crew.switch(True)
                    asyncio.run(_wait(server))
                    proved.append(time.monotonic() - sent)
                    applied.append(max(crew.gather()) - sent)
                    time.sleep(0.05 + 0.002 * workers)
                    crew.flip(False)
            rows.append({"workers": workers, "proved": _shape(proved), "applied": _shape(applied)})
    return {"rows": rows}


async def _wait(server: RedisServer) -> None:
    result = await wait_until_applied(RedisBackend(server.url), timeout=60)
    if not result.is_over:
        raise RuntimeError(f"the barrier did not end: {result}")


def _shape(seconds: list[float]) -> dict[str, float]:
    spread = Spread.of(seconds)
    return {"median": spread.median, "fastest": spread.low, "worst": spread.high}


def report(figures: Mapping[str, Any]) -> str:
    """The table."""
    rows = [
        [
            row["workers"],
            milliseconds(row["proved"]["median"]),
            f"{milliseconds(row['proved']['fastest'])} to {milliseconds(row['proved']['worst'])}",
            milliseconds(row["applied"]["median"]),
            f"{row['proved']['median'] / row['applied']['median']:.1f}",
        ]
        for row in figures["rows"]
    ]
    return "\n\n".join(
        [
            _WHAT,
            table(["workers", "proved, median", "spread", "the last 503, median", "ratio"], rows),
        ]
    )


def plots(figures: Mapping[str, Any]) -> dict[str, str]:
    """None."""
    return {}
