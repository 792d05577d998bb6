"""What a worker logs: one line for each change, with fields that stay what they are called."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from .._internal.logging import log_fields
from ..model.snapshot import Snapshot
from ..model.state import OFF, MaintenanceState
from .gate import Gate, GateState

__all__ = ["ChangeLog"]

logger = logging.getLogger("fastapi_maintenance")


class ChangeLog:
    """Remembers how the backend did, and says each thing once."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._failing = False
        self._problem: str | None = None
        self._ignored: list[str] = []

    def unreachable(self, sentence: str) -> None:
        """The backend could not be read, and what follows from that."""
        if not self._failing:
            logger.warning("%s", sentence, extra=log_fields("unreachable", backend=self._backend))
        self._failing = True

    def recovered(self, reading: Snapshot) -> None:
        """Log that the backend answers again, and once for a value that it is unreadable or has details that are ignored."""
        if self._failing:
            logger.info(
                "%s answers again",
                self._backend,
                extra=log_fields("reachable", backend=self._backend),
            )
        extra = log_fields("unreadable", backend=self._backend)
        if reading.error and reading.error != self._problem:
            logger.error(
                "%s: %s The last known state stays.", self._backend, reading.error, extra=extra
            )
        ignored = [
            f"{where}: {'; '.join(state.ignored)}"
            for where, state in _states(reading)
            if state.ignored
        ]
        for problem in ignored:
            if problem not in self._ignored:
                logger.warning("%s: ignored details of %s", self._backend, problem, extra=extra)
        self._failing, self._problem, self._ignored = False, reading.error, ignored

    def changed(self, gate: Gate, before: Gate, problems: Iterable[str] = ()) -> None:
        """One gate followed another, and what is wrong with what its states say."""
        if gate.closure is not before.closure:
            _log_change(None, gate.for_component(None), gate.source)
        for component in sorted(gate.components.keys() | before.components.keys()):
            if gate.for_component(component).closure != before.for_component(component).closure:
                _log_change(component, gate.for_component(component), gate.source)
        for problem in problems:
            logger.warning("%s", problem, extra=log_fields("unreadable", backend=self._backend))


def _states(reading: Snapshot) -> Iterator[tuple[str, MaintenanceState]]:
    yield "the switch", reading.switch or OFF
    yield from (
        (f"the switch of {name}", own.switch or OFF)
        for name, own in (reading.components or {}).items()
    )
    yield from ((f"the hold {hold.id}", hold.state) for hold in reading.holds or ())


def _log_change(component: str | None, verdict: GateState, source: str) -> None:
    state = OFF if verdict.closure is None else verdict.state
    extra = log_fields(
        "changed",
        mode=state.mode,
        source=source,
        by=state.by,
        reason=state.reason,
        component=component,
    )
    extra["maintenance"] = "off" if verdict.closure is None else "on"
    where = "" if component is None else f" for the component {component}"
    if verdict.closure is None:
        logger.info("maintenance off%s (%s)", where, source, extra=extra)
        return
    details = "".join(
        f", {name}: {value}"
        for name, value in (("by", state.by), ("reason", state.reason))
        if value
    )
    logger.info("maintenance on%s (%s, %s%s)", where, state.mode, source, details, extra=extra)
