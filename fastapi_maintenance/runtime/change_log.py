"""Log outages of the backend and state changes, with stable structured fields."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from .._internal.logging import log_fields
from ..model.snapshot import Snapshot
from ..model.state import OFF, MaintenanceState
from .gate import Gate, GateState

logger = logging.getLogger("fastapi_maintenance")


class ChangeLog:
    """Logs one line for each change, and nothing twice."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._failing = False
        self._error: str | None = None
        self._ignored: list[str] = []

    def unreachable(self, sentence: str) -> None:
        """Log that the backend cannot be read, and the consequence."""
        if not self._failing:
            logger.warning("%s", sentence, extra=log_fields("unreachable", backend=self._backend))
        self._failing = True

    def recovered(self, snapshot: Snapshot) -> None:
        """Log that the backend answers again, and an unreadable value or ignored details once."""
        name = self._backend
        if self._failing:
            # As a warning too, for a log of warnings shows no end of the outage else.
            logger.warning("%s answers again", name, extra=log_fields("reachable", backend=name))
        extra = log_fields("unreadable", backend=name)
        if snapshot.error and snapshot.error != self._error:
            logger.error("%s: %s The last known state stays.", name, snapshot.error, extra=extra)
        ignored = [
            f"{where}: {'; '.join(state.ignored)}"
            for where, state in _states(snapshot)
            if state.ignored
        ]
        for problem in ignored:
            if problem not in self._ignored:
                logger.warning("%s: ignored details of %s", name, problem, extra=extra)
        self._failing, self._error, self._ignored = False, snapshot.error, ignored

    def changed(self, gate: Gate, before: Gate, errors: Iterable[str] = ()) -> None:
        """Log how a gate differs from the one before, and the errors in its states."""
        if gate.closure is not before.closure:
            _log_change(None, gate.for_component(None), gate.source)
        for component in sorted(gate.components.keys() | before.components.keys()):
            if gate.for_component(component).closure != before.for_component(component).closure:
                _log_change(component, gate.for_component(component), gate.source)
        for error in errors:
            logger.warning("%s", error, extra=log_fields("unreadable", backend=self._backend))


def _states(snapshot: Snapshot) -> Iterator[tuple[str, MaintenanceState]]:
    yield "the switch", snapshot.switch or OFF
    yield from (
        (f"the switch of {name}", own.switch or OFF)
        for name, own in (snapshot.components or {}).items()
    )
    yield from ((f"the hold {hold.id}", hold.state) for hold in snapshot.holds or ())


def _log_change(component: str | None, current: GateState, source: str) -> None:
    closed = current.closure is not None
    state = current.state if closed else OFF
    by, reason = state.by, state.reason
    extra = log_fields(
        "changed", mode=state.mode, source=source, by=by, reason=reason, component=component
    )
    extra["maintenance"] = on_or_off = "on" if closed else "off"
    where = "" if component is None else f" for the component {component}"
    details = [state.mode, source] if closed else [source]
    details += [f"{name}: {text}" for name, text in (("by", by), ("reason", reason)) if text]
    logger.info("maintenance %s%s (%s)", on_or_off, where, ", ".join(details), extra=extra)
