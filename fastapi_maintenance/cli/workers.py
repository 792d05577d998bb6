"""Wait for the workers, list them, and forget those that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from ..backends import BaseStateBackend
from ..coordination.barrier import BarrierResult, forget_workers, registry_of, wait_until_applied
from ..model.workers import RegistrySnapshot
from .console import (
    ExitCode,
    echo,
    echo_error,
    echo_json,
    exit_with,
    on_interruption,
    show,
    terminal,
)
from .worker_table import as_table, rows, wait_display, ways_around, worker_lines


def wait(backend: BaseStateBackend, *, allow_unfenced: bool, as_json: bool, **options: Any) -> None:
    """Wait until every live worker has followed. Raises `BarrierError` unless that is proved."""
    result = wait_for_workers(backend, silent=as_json, **options)
    if as_json:
        echo_json(result.to_json())
    result.check(strict=not allow_unfenced)


def wait_for_workers(backend: BaseStateBackend, *, silent: bool, **options: Any) -> BarrierResult:
    """Wait with a live table on a terminal, a line for each change elsewhere, or silently."""

    async def waited(progress: Callable[[BarrierResult], object] | None = None) -> BarrierResult:
        task = asyncio.ensure_future(wait_until_applied(backend, progress=progress, **options))
        with on_interruption(task.cancel):
            return await task

    try:
        if silent:
            return asyncio.run(waited())
        with wait_display(terminal(), echo) as progress:
            return asyncio.run(waited(progress))
    except asyncio.CancelledError:
        exit_with(
            "Interrupted before it was known whether every worker has followed; the state "
            "stays as it is.",
            ExitCode.INTERRUPTED,
        )


def list_workers(backend: BaseStateBackend, *, as_json: bool) -> None:
    """Print the workers, and the paths that were answered without a route."""

    async def read() -> tuple[RegistrySnapshot, tuple[str, ...]]:
        return await registry_of(backend).read_registry(), await backend.warnings()

    roll, warnings = asyncio.run(read())
    show(
        lambda: rows(roll, warnings),
        lambda: worker_lines(roll),
        lambda: as_table((each.status, each) for each in roll.workers),
        as_json=as_json,
    )
    for sentence in (*ways_around(roll.workers), *warnings):
        echo_error(sentence)


def forget(backend: BaseStateBackend, names: Iterable[str]) -> None:
    """Forget workers that vanished."""
    gone = asyncio.run(forget_workers(registry_of(backend), list(names)))
    for worker in gone:
        echo(f"Forgot {worker.id}, {worker.name}.")
    if not gone:
        exit_with("No worker of that id or host has vanished.", ExitCode.FAILED)
