"""OpenTelemetry metrics of a worker, read from its memory when they are collected.

Without an SDK in the process, nothing is collected and nothing is paid. `NAMES` are stable.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from ._internal.version import VERSION
from .runtime.dependencies import modes_of
from .runtime.mode import MaintenanceMode

__all__ = ["NAMES", "instrument"]

_INSTRUMENTS: Final = {
    "maintenance.state": ("gauge", "", "1 while this worker is closed, else 0."),
    "maintenance.staleness": ("gauge", "s", "Seconds since the state was last confirmed."),
    "maintenance.link": ("gauge", "", "1 for how this worker learns of changes now, else 0."),
    "maintenance.link.reconnects": ("counter", "{reconnect}", "Reconnects of the link."),
    "maintenance.answers": ("counter", "{answer}", "Refused requests."),
    "maintenance.in_flight": (
        *("gauge", "{request}"),
        "Requests in flight; while closed, those that a drain waits for.",
    ),
    "maintenance.propagation": (
        *("gauge", "s"),
        "Seconds from the last change until this worker applied it.",
    ),
}

NAMES: Final = tuple(_INSTRUMENTS)


def instrument(*apps: object, meter: Meter | None = None) -> None:
    """Register metrics of applications, or of a `MaintenanceMode`, with OpenTelemetry.

    Call it once per process, with all applications, before or after middlewares are added.
    `meter` defaults to one of the global provider.
    """
    meter = get_meter("fastapi_maintenance", VERSION) if meter is None else meter
    references = [weakref.ref(app) for app in apps]
    for name, (kind, unit, description) in _INSTRUMENTS.items():
        create: Any = getattr(meter, f"create_observable_{kind}")
        create(name, [partial(_observe, name, references)], unit, description)


def _observe(
    name: str, references: Sequence[weakref.ref[Any]], options: CallbackOptions
) -> Iterator[Observation]:
    for app in filter(None, (reference() for reference in references)):
        # Found anew each time: the first request builds the middlewares.
        for mode in [app] if isinstance(app, MaintenanceMode) else modes_of(app):
            named = {
                "maintenance.app": getattr(app, "title", type(app).__name__),
                "maintenance.switch": mode.backend.describe(),
            }
            for value, attributes in _measure(name, mode):
                yield Observation(value, named | attributes)


def _measure(name: str, mode: MaintenanceMode) -> Iterator[tuple[float, dict[str, str]]]:
    """Yield the values of one metric, with their attributes."""
    link = mode.backend.link_status(mode)
    match name:
        case "maintenance.state":
            yield int(mode.evaluate_gate().closure is not None), {}
        case "maintenance.staleness" if mode.cache.snapshot is not None:
            yield max(0.0, time.monotonic() - mode.cache.fresh_at), {}
        case "maintenance.link" if link is not None:
            for delivery in link.deliveries:
                yield int(delivery == link.delivery), {"delivery": str(delivery)}
        case "maintenance.link.reconnects" if link is not None:
            yield link.reconnects, {}
        case "maintenance.answers":
            yield mode.refused_total, {}
        case "maintenance.in_flight":
            http, websockets = mode.requests.count(mode.gate)
            yield http, {"kind": "http"}
            yield websockets, {"kind": "websocket"}
        case "maintenance.propagation" if mode.propagation is not None:
            yield mode.propagation, {}
