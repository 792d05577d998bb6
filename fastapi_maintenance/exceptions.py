"""Everything this package raises.

MaintenanceError
├── ConfigurationError (also ValueError)   an option that cannot be meant
├── InvalidStateError (also ValueError)    a switch value that cannot be read or written
├── BackendError                           the backend could not do what was asked
│   ├── BackendUnavailableError            it did not answer in time, or not at all
│   ├── ReadOnlyBackendError               it can never be written
│   ├── UnsupportedError                   it lacks what was asked for
│   └── LeaseLostError                     a hold ended before its block did
└── BarrierError                           it is not proved that every worker has followed
    ├── DrainTimeout                       some have not, in the time given
    └── UnfencedError                      some have vanished and may still be serving
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BackendError",
    "BackendUnavailableError",
    "BarrierError",
    "ConfigurationError",
    "DrainTimeout",
    "InvalidStateError",
    "LeaseLostError",
    "MaintenanceError",
    "ReadOnlyBackendError",
    "UnfencedError",
    "UnsupportedError",
]


class MaintenanceError(Exception):
    """The root of every error this package raises."""


class ConfigurationError(MaintenanceError, ValueError):
    """An option is wrong; raised at start-up, and says what to write instead."""


class InvalidStateError(MaintenanceError, ValueError):
    """A switch value is neither a boolean word nor valid JSON of a state, or is over 64 KiB."""


class BackendError(MaintenanceError):
    """A backend could not do what was asked of it."""


class BackendUnavailableError(BackendError):
    """A backend did not answer in time, or could not be reached at all."""


class ReadOnlyBackendError(BackendError):
    """The backend can be read but never written, as environment variables are."""


class UnsupportedError(BackendError):
    """The backend, or what its server permits, lacks the capability that was asked for."""


class LeaseLostError(BackendError):
    """A hold was revoked or ran out while its block was still running."""


class BarrierError(MaintenanceError):
    """It is not proved that every worker has followed; `result` is the `BarrierResult`, with every worker in it."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class DrainTimeout(BarrierError):
    """Some workers have not applied the state, or not drained, in the time given."""


class UnfencedError(BarrierError):
    """Some workers vanished from the registry, and nothing proves that they have closed themselves."""
