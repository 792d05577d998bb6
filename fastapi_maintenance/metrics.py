"""What a worker knows, as metrics of OpenTelemetry: read from its memory when they are collected, and free otherwise.

Without an SDK in the process nothing is collected. `NAMES` are stable.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from ._modes import modes_of
from .mode import MaintenanceMode
from .version import VERSION

__all__ = ["NAMES", "instrument"]

Attributes = dict[str, str]
Read = Callable[[MaintenanceMode], Iterator[tuple[float, Attributes]]]

NAMES: Final = (
    "maintenance.state",
    "maintenance.staleness",
    "maintenance.link",
    "maintenance.link.reconnects",
    "maintenance.answers",
    "maintenance.in_flight",
    "maintenance.propagation",
)


def instrument(*apps: object, meter: Meter | None = None) -> None:
    """Offer metrics of applications, or of a `MaintenanceMode`, to OpenTelemetry. Call it once, with all there are in this process.

    It may be called before or after middlewares are added. `meter` is that of the global provider unless one is given.
    """
    meter = get_meter("fastapi_maintenance", VERSION) if meter is None else meter
    observed = _Observed(apps)
    state, staleness, link, reconnects, answers, in_flight, propagation = NAMES
    meter.create_observable_gauge(state, [observed.by(_state)], "", "1 while this worker is closed, else 0.")
    meter.create_observable_gauge(staleness, [observed.by(_staleness)], "s", "How long ago the state was last confirmed.")
    meter.create_observable_gauge(link, [observed.by(_link)], "", "1 for how this worker hears of changes just now, else 0.")
    meter.create_observable_counter(reconnects, [observed.by(_reconnects)], "{reconnect}", "How often the link had to be made again.")
    meter.create_observable_counter(answers, [observed.by(_answers)], "{answer}", "Requests that were refused.")
    meter.create_observable_gauge(in_flight, [observed.by(_in_flight)], "{request}", "Requests in work; closed, those to wait for.")
    meter.create_observable_gauge(propagation, [observed.by(_propagation)], "s", "From the last change to this worker's following it.")


class _Observed:
    """The modes of some applications, found anew each time: a middleware stack is built when it is first needed."""

    def __init__(self, apps: tuple[object, ...]) -> None:
        self._apps = [weakref.ref(app) for app in apps]

    def by(self, read: Read) -> Callable[[CallbackOptions], Iterator[Observation]]:
        """A callback for OpenTelemetry."""

        def observe(options: CallbackOptions) -> Iterator[Observation]:
            for app, mode in self._modes():
                named = {"maintenance.app": getattr(app, "title", type(app).__name__), "maintenance.switch": mode.backend.describe()}
                for value, attributes in read(mode):
                    yield Observation(value, {**named, **attributes})

        return observe

    def _modes(self) -> Iterator[tuple[object, MaintenanceMode]]:
        for reference in self._apps:
            if (app := reference()) is not None:
                for mode in [app] if isinstance(app, MaintenanceMode) else modes_of(app):
                    yield app, mode


def _state(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    yield int(mode.judge().closing is not None), {}


def _staleness(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    if mode.knowledge.reading is not None:
        yield max(0.0, time.monotonic() - mode.knowledge.fresh_at), {}


def _link(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    if (status := mode.backend.link_status(mode)) is not None:
        for rung in status.rungs:
            yield int(rung == status.rung), {"rung": str(rung)}


def _reconnects(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    if (status := mode.backend.link_status(mode)) is not None:
        yield status.reconnects, {}


def _answers(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    yield mode.refused, {}


def _in_flight(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    for kind, count in zip(("http", "websocket"), mode.in_flight.count(mode.gate), strict=True):
        yield count, {"kind": kind}


def _propagation(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    if mode.propagation is not None:
        yield mode.propagation, {}
