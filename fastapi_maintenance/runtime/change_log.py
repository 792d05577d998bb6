"""What a worker logs: one line for each change, with fields that stay what they are called."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from .._internal.logging import fields
from ..model.snapshot import Reading
from ..model.state import OFF, MaintenanceState
from .gate import Gate, Verdict

__all__ = ["ChangeLog"]

logger = logging.getLogger("fastapi_maintenance")


class ChangeLog:
    """Remembers how the backend did, and says each thing once."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._failing = False
        self._problem: str | None = None
        self._ignored: list[str] = []

    def failed(self, sentence: str) -> None:
        """The backend could not be read, and what follows from that."""
        if not self._failing:
            logger.warning("%s", sentence, extra=fields("unreachable", backend=self._backend))
        self._failing = True

    def answered(self, reading: Reading) -> None:
        """Log that the backend answers again, and once for a value that it is unreadable or has details that are ignored."""
        if self._failing:
            logger.info("%s answers again", self._backend, extra=fields("reachable", backend=self._backend))
        extra = fields("unreadable", backend=self._backend)
        if reading.error and reading.error != self._problem:
            logger.error("%s: %s The last known state stays.", self._backend, reading.error, extra=extra)
        ignored = [f"{where}: {'; '.join(state.ignored)}" for where, state in _states(reading) if state.ignored]
        for problem in ignored:
            if problem not in self._ignored:
                logger.warning("%s: ignored details of %s", self._backend, problem, extra=extra)
        self._failing, self._problem, self._ignored = False, reading.error, ignored

    def changed(self, gate: Gate, before: Gate, problems: Iterable[str] = ()) -> None:
        """One gate followed another, and what is wrong with what its states say."""
        if gate.closing is not before.closing:
            _log_change(None, gate.of(None), gate.source)
        for scope in sorted(gate.scopes.keys() | before.scopes.keys()):
            if gate.of(scope).closing != before.of(scope).closing:
                _log_change(scope, gate.of(scope), gate.source)
        for problem in problems:
            logger.warning("%s", problem, extra=fields("unreadable", backend=self._backend))


def _states(reading: Reading) -> Iterator[tuple[str, MaintenanceState]]:
    yield "the switch", reading.switch or OFF
    yield from ((f"the switch of {name}", own.switch or OFF) for name, own in (reading.scopes or {}).items())
    yield from ((f"the hold {hold.id}", hold.state) for hold in reading.holds or ())


def _log_change(scope: str | None, verdict: Verdict, source: str) -> None:
    state = OFF if verdict.closing is None else verdict.state
    extra = fields("changed", mode=state.mode, source=source, by=state.by, reason=state.reason, scope=scope)
    extra["maintenance"] = "off" if verdict.closing is None else "on"
    where = "" if scope is None else f" for the scope {scope}"
    if verdict.closing is None:
        logger.info("maintenance off%s (%s)", where, source, extra=extra)
        return
    details = "".join(f", {name}: {value}" for name, value in (("by", state.by), ("reason", state.reason)) if value)
    logger.info("maintenance on%s (%s, %s%s)", where, state.mode, source, details, extra=extra)
