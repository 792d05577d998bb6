"""The status of the workers, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from .._internal.logging import one_line
from ..coordination.barrier import BarrierResult, names_of
from ..model.workers import WAY_AROUND, RegistrySnapshot, Worker
from . import console as output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_COLUMNS: Final = ["worker", "host", "pid", "delivery", "status", "requests", "WebSockets"]
_COLOURS: Final = {
    "open": "green",
    "drained": "green",
    "applied": "yellow",
    "waiting": "red",
    "expired": "magenta",
    "vanished": "magenta",
    "unfenced": "bold magenta",
}


@contextmanager
def wait_display(
    console: Console | None, tell: Callable[[str], object]
) -> Iterator[Callable[[BarrierResult], object]]:
    """Yield a function that shows the progress of a wait.

    It redraws a table on a terminal that supports this. Otherwise it tells a line for each change.
    """

    def footer(result: BarrierResult) -> str:
        return f"{result.elapsed:.1f} s: {summary(result)}"

    if console is None or console.is_dumb_terminal:
        yield lambda result: tell(footer(result))
        return
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    def draw(result: BarrierResult) -> None:
        live.start()  # only now: without anything to show it would print an empty line
        table = as_table(list(_by_status(result)))
        live.update(Group(table, Text(footer(result), style="dim")), refresh=True)

    live = Live(console=console, auto_refresh=False)
    try:
        yield draw
    finally:
        live.stop()


def summary(result: BarrierResult) -> str:
    """Return the number of workers by status, and the pending ones."""
    if not result.looked:
        return "the registry of workers could not be read"
    counts = [
        f"{len(group)} {_called(name, result)}" for name, group in result.groups() if group
    ] or ["no workers"]
    pending = ""
    if result.pending:
        pending = f"; waiting for {one_line(names_of(result.pending))}"
    elif result.trusted_in > 0:
        pending = (
            f"; waiting for {result.trusted_in:.1f} s, as the registry is young and may not know "
            "of all workers yet"
        )
    position = "on" if result.state.enabled else "off"
    return f"maintenance {position}; {', '.join(counts)}{pending}"


def as_table(workers: Iterable[tuple[str, Worker]]) -> Table:
    """Return a row for each worker."""
    rows = (
        (
            *(worker.id, worker.host, str(worker.pid), worker.delivery, status),
            *(str(worker.http), str(worker.websockets)),
            "never" if worker.fence is None else f"{worker.fence:g} s",
        )
        for status, worker in workers
    )
    return output.as_table((*_COLUMNS, "closes by itself after"), rows, _COLOURS)


def worker_lines(roll: RegistrySnapshot) -> Iterator[str]:
    """Yield a line for each worker, as `name: value` pairs, with the reason if it has vanished."""
    for worker in roll.workers:
        fence = "never" if worker.fence is None else f"{worker.fence:g}s"
        known = f"http={worker.http} websockets={worker.websockets} fence={fence}"
        why = f" ({roll.why_not_gone(worker)})" if worker.vanished else ""
        yield one_line(
            f"{worker.id} host={worker.host} pid={worker.pid} delivery={worker.delivery} "
            f"version={worker.version} status={worker.status} {known}{why}"
        )


def ways_around(workers: Sequence[Worker]) -> list[str]:
    """Return a sentence for each path that was answered without a route while closed."""
    return [
        one_line(f"{path} {WAY_AROUND}")
        for path in sorted({path for worker in workers for path in worker.unrouted})
    ]


def rows(roll: RegistrySnapshot, warnings: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return workers as JSON values, with the reason why a vanished one is not proved gone.

    `warnings` are those of the registry.
    """
    vanished = {worker.id: roll.why_not_gone(worker) for worker in roll.workers if worker.vanished}
    return [
        worker.to_json() | {"why_not_gone": vanished.get(worker.id), "warnings": [*warnings]}
        for worker in roll.workers
    ]


def _by_status(result: BarrierResult) -> Iterator[tuple[str, Worker]]:
    unfenced = {worker.id for worker in result.unfenced}
    for name in ("waiting", "applied", "drained", "expired"):
        for worker in getattr(result, name):
            yield "unfenced" if worker.id in unfenced else _called(name, result), worker


def _called(name: str, result: BarrierResult) -> str:
    """Return the label of a group of workers; after an opening, `drained` means open."""
    return "open" if name == "drained" and not result.state.enabled else name
