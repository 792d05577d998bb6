"""Wait for the workers, list them, and forget those that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any

from ..backends import BaseStateBackend
from ..coordination.barrier import BarrierResult, forget_workers, registry_of, wait_until_applied
from ..exceptions import BarrierError, MaintenanceError
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


def wait(backend: BaseStateBackend, *, as_json: bool, **options: Any) -> None:
    """Wait until every live worker has followed, and print the result if it is for a program."""
    wait_for_workers(backend, silent=as_json, as_json=as_json, **options)


def wait_for_workers(
    backend: BaseStateBackend,
    *,
    allow_unfenced: bool,
    silent: bool,
    as_json: bool = False,
    **options: Any,
) -> None:
    """Wait with a live table on a terminal, or a line for each change elsewhere.

    `silent` shows neither; `as_json` prints the result. Exits with the code of the result if it is
    not proved, and with INTERRUPTED on SIGINT and SIGTERM.
    """
    wait = partial(wait_until_applied, backend, **options)
    try:
        if silent:
            result = asyncio.run(_until_interrupted(wait()))
        else:
            with wait_display(terminal(), echo) as progress:
                result = asyncio.run(_until_interrupted(wait(progress=progress)))
    except asyncio.CancelledError:
        exit_with(
            "Interrupted before it was known whether every worker has followed; the state "
            "stays as it is.",
            ExitCode.INTERRUPTED,
        )
    if as_json:
        echo_json(result.to_json())
    try:
        result.check(strict=not allow_unfenced)
    except BarrierError as error:
        exit_with(str(error), exit_code_of(error))


async def _until_interrupted(waiting: Coroutine[Any, Any, BarrierResult]) -> BarrierResult:
    task = asyncio.ensure_future(waiting)
    with on_interruption(task.cancel):
        return await task


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


def exit_code_of(error: MaintenanceError) -> ExitCode:
    """Return the exit code of an error."""
    if not isinstance(error, BarrierError):
        return ExitCode.FAILED
    return ExitCode.UNFENCED if error.result.is_over else ExitCode.NOT_DRAINED
