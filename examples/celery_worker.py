"""A Celery worker that starts no task during maintenance; a drain waits for running tasks."""

from __future__ import annotations

import os
import time

from celery import Celery
from celery.signals import (
    task_prerun,
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
)

from fastapi_maintenance import BackgroundMode

URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

app = Celery("shop", broker=URL)
app.conf.task_acks_late = True  # a task that waits here and dies with its worker is not lost
# So no more than one a process waits here; the others stay in the queue.
app.conf.worker_prefetch_multiplier = 1

maintenance = BackgroundMode(URL, on_unreachable="closed")
# In each process that runs tasks, whatever the pool: prefork forks them, and threads do not survive
# a fork. At their start, so that idle processes are registered, too.
worker_process_init.connect(lambda **_: maintenance.start(), weak=False)
# The pool "threads" sends nothing else.
task_prerun.connect(lambda **_: maintenance.start(), weak=False)
for end in (worker_process_shutdown, worker_shutdown):
    end.connect(lambda **_: maintenance.stop(), weak=False)


@app.task
def send_invoice(order: int) -> None:
    with maintenance.job():
        time.sleep(0.05)
        print(f"invoice {order}", flush=True)  # noqa: T201
