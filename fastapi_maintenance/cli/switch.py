"""Turning the switch, and whether that did what it was turned for."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from ..backends import BaseStateBackend
from ..backends.base import ReplicaAck
from ..backends.status import StatusReport, describe_hold, look
from ..model.holds import Hold
from ..model.state import OFF, MaintenanceState

__all__ = ["Outcome", "operator", "turn_off", "turn_on"]

_MOST_NAMED: Final = 5
_PATIENCE: Final = (
    1.0  # seconds for replicas, which have what was written within milliseconds or are in trouble
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is true afterwards, why that is not what was asked for, empty where it is, and which replicas have it, where there are any."""

    report: StatusReport
    problem: str
    replicas: ReplicaAck | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it but the problem as JSON values, always with the same keys."""
        return self.report.to_json() | {
            "replicas": None if self.replicas is None else asdict(self.replicas)
        }


def operator() -> str:
    """Who turns the switch, as `user@host`."""
    try:
        user = getpass.getuser()
    except (
        KeyError,
        OSError,
        ImportError,
    ):  # a container's user number may have no name; which error says so depends on Python
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


async def turn_on(
    backend: BaseStateBackend,
    state: MaintenanceState,
    length: timedelta | None,
    component: str | None = None,
) -> Outcome:
    """Write a state that is on, from now and for that long. Raises `BackendError` if it could not be written."""
    # Not this host's time: whether it is over is judged by the backend's clock.
    before = await look(backend, component)
    if (
        state.starts_at is not None
        and before.switch_is_on
        and (component is None or before.has_own_switch)
    ):
        return Outcome(before, _WOULD_OPEN)
    now = before.now
    state = state.replace(since=now.replace(microsecond=0))
    if length is not None:
        # An end, and not a time to live of the key: an end can still be read when it is over, and it is not lost when
        # somebody edits the value with a plain SET or copies it to another server.
        try:
            state = state.replace(ends_at=(state.starts_at or now) + length)
        except OverflowError:
            return Outcome(before, _BEYOND)
    replicas = None
    if component is None:
        replicas = await backend.write_replicated(state, within=_PATIENCE)
    else:
        await backend.write_component(component, state)
    report = await look(backend, component)
    return Outcome(report, _why_not_on(report, state), replicas)


async def turn_off(
    backend: BaseStateBackend, *, force: bool = False, component: str | None = None
) -> Outcome:
    """Turn the switch, or that of a component, off, and with `force` end all holds. Raises `BackendError` if that could not be done."""
    if component is None:
        await (backend.clear() if force else backend.write(OFF))
    else:
        await backend.write_component(component, OFF)
    report = await look(backend, component)
    return Outcome(report, _why_not_off(report))


def _why_not_on(report: StatusReport, asked: MaintenanceState) -> str:
    if report.switch != asked:
        return _CHANGED_AGAIN
    if report.state is None:
        return f"The switch is on, but whether maintenance is on cannot be said: {report.reading.error}"
    if report.state.enabled or report.upcoming is not None:
        return ""
    if report.deciding:
        return (
            f"The switch is on, but maintenance stays off because of {_named(report.deciding)}. "
            "It begins when they end; to end them now, run 'off --force' and then this again."
        )
    return f"The switch is on, but its end is over already: on {report.url} it is {report.now:%Y-%m-%d %H:%M:%S} UTC."


def _why_not_off(report: StatusReport) -> str:
    general = report.component is not None and not report.has_own_switch
    if not general and report.switch is not None and report.switch.enabled:
        return _CHANGED_AGAIN
    if report.state is None:
        return f"The switch is off, but whether maintenance is off cannot be said: {report.reading.error}"
    if report.state.enabled and not report.deciding:
        return "The component has no switch of its own any more, but maintenance stays on because of the general one: see 'status'."
    if report.state.enabled:
        return (
            f"The switch is off, but maintenance stays on because of {_named(report.deciding)}. "
            "It ends when they do; to end them now, run 'off --force'."
        )
    return ""


_WOULD_OPEN: Final = (
    "The switch is on already, and there is one only: it would be off until the window begins, so nothing was changed. "
    "Run 'off' first if that is what you want."
)
_BEYOND: Final = (
    "It would end beyond the calendar, so nothing was changed: give a shorter --for, or none."
)
_CHANGED_AGAIN: Final = "The switch was written, but somebody else changed it at the same time: look at 'status', and try again."


def _named(holds: Sequence[Hold]) -> str:
    names = ", ".join(describe_hold(hold) for hold in holds[:_MOST_NAMED])
    more = f" and {len(holds) - _MOST_NAMED} more" if len(holds) > _MOST_NAMED else ""
    return f"{len(holds)} {'hold' if len(holds) == 1 else 'holds'}: {names}{more}"
