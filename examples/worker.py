"""A worker without FastAPI that takes no job during maintenance; a drain waits for its job."""

from __future__ import annotations

import asyncio
import os
import signal

from fastapi_maintenance import MaintenanceMode, job
from fastapi_maintenance.backends import RedisBackend


async def consume(mode: MaintenanceMode) -> None:
    """Stand in for a queue of jobs."""
    number = 0
    while True:
        async with job(mode):
            number += 1
            print(f"job {number}", flush=True)  # noqa: T201
            await asyncio.sleep(0.05)


async def main() -> None:
    backend = RedisBackend(os.environ.get("REDIS_URL", "redis://localhost:6379"))
    async with MaintenanceMode(backend, on_unreachable="closed") as mode:
        consuming = asyncio.create_task(consume(mode))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, consuming.cancel)
        await asyncio.wait([consuming])


if __name__ == "__main__":
    asyncio.run(main())
