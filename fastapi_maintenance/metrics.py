"""OpenTelemetry metrics of a worker, read from its memory when they are collected.

Without an SDK in the process, nothing is collected and nothing is paid. `NAMES` are stable.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from ._internal.version import VERSION
from .runtime.dependencies import modes_of
from .runtime.mode import MaintenanceMode

__all__ = ["NAMES", "instrument"]

Attributes = dict[str, str]
Read = Callable[[MaintenanceMode], Iterator[tuple[float, Attributes]]]


def instrument(*apps: object, meter: Meter | None = None) -> None:
    """Register metrics of applications, or of a `MaintenanceMode`, with OpenTelemetry.

    Call it once per process, with all applications, before or after middlewares are added.
    `meter` defaults to one of the global provider.
    """
    meter = get_meter("fastapi_maintenance", VERSION) if meter is None else meter
    observed = _Observed(apps)
    for name, (kind, read, unit, description) in _INSTRUMENTS.items():
        create = (
            meter.create_observable_counter if kind == "counter" else meter.create_observable_gauge
        )
        create(name, [observed.by(read)], unit, description)


class _Observed:
    """The modes of applications, found anew each time: the first request builds middlewares."""

    def __init__(self, apps: tuple[object, ...]) -> None:
        self._apps = [weakref.ref(app) for app in apps]

    def by(self, read: Read) -> Callable[[CallbackOptions], Iterator[Observation]]:
        """Make a callback for OpenTelemetry."""

        def observe(options: CallbackOptions) -> Iterator[Observation]:
            for app, mode in self._modes():
                named = {
                    "maintenance.app": getattr(app, "title", type(app).__name__),
                    "maintenance.switch": mode.backend.describe(),
                }
                for value, attributes in read(mode):
                    yield Observation(value, {**named, **attributes})

        return observe

    def _modes(self) -> Iterator[tuple[object, MaintenanceMode]]:
        for reference in self._apps:
            if (app := reference()) is not None:
                for mode in [app] if isinstance(app, MaintenanceMode) else modes_of(app):
                    yield app, mode


def _state(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    yield int(mode.evaluate_gate().closure is not None), {}


def _staleness(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    if mode.cache.snapshot is not None:
        yield max(0.0, time.monotonic() - mode.cache.fresh_at), {}


def _link(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    if (status := mode.backend.link_status(mode)) is not None:
        for delivery in status.deliveries:
            yield int(delivery == status.delivery), {"delivery": str(delivery)}


def _reconnects(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    if (status := mode.backend.link_status(mode)) is not None:
        yield status.reconnects, {}


def _answers(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    yield mode.refused_total, {}


def _in_flight(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    for kind, count in zip(("http", "websocket"), mode.requests.count(mode.gate), strict=True):
        yield count, {"kind": kind}


def _propagation(mode: MaintenanceMode) -> Iterator[tuple[float, Attributes]]:
    if mode.propagation is not None:
        yield mode.propagation, {}


_INSTRUMENTS: Final[dict[str, tuple[str, Read, str, str]]] = {
    "maintenance.state": ("gauge", _state, "", "1 while this worker is closed, else 0."),
    "maintenance.staleness": (
        "gauge",
        _staleness,
        "s",
        "Seconds since the state was last confirmed.",
    ),
    "maintenance.link": (
        "gauge",
        _link,
        "",
        "1 for how this worker learns of changes now, else 0.",
    ),
    "maintenance.link.reconnects": (
        "counter",
        _reconnects,
        "{reconnect}",
        "Reconnects of the link.",
    ),
    "maintenance.answers": ("counter", _answers, "{answer}", "Refused requests."),
    "maintenance.in_flight": (
        "gauge",
        _in_flight,
        "{request}",
        "Requests in flight; while closed, those that a drain waits for.",
    ),
    "maintenance.propagation": (
        "gauge",
        _propagation,
        "s",
        "Seconds from the last change until this worker applied it.",
    ),
}

NAMES: Final = tuple(_INSTRUMENTS)
