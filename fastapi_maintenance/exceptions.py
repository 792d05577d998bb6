"""The exceptions of this package.

MaintenanceError
├── ConfigurationError (also ValueError)   an invalid option
├── InvalidStateError (also ValueError)    an invalid value of the switch
├── BackendError                           the backend failed
│   ├── BackendUnavailableError            it did not answer in time
│   ├── ReadOnlyBackendError               it cannot be written
│   ├── UnsupportedError                   it does not support the operation
│   └── LeaseLostError                     a hold ended while its block ran
└── BarrierError                           not every worker is proved to have followed
    ├── DrainTimeout                       some have not in time
    └── UnfencedError                      some have vanished and may still serve
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
    """The base class of every exception of this package."""


class ConfigurationError(MaintenanceError, ValueError):
    """An invalid option. Raised at start-up; the message says what to write instead."""


class InvalidStateError(MaintenanceError, ValueError):
    """A value of the switch that is neither a boolean word nor valid JSON, or is over 64 KiB."""


class BackendError(MaintenanceError):
    """A backend failed."""


class BackendUnavailableError(BackendError):
    """A backend did not answer in time, or is unreachable."""


class ReadOnlyBackendError(BackendError):
    """The backend is read-only, like an environment variable."""


class UnsupportedError(BackendError):
    """The backend, or the permissions on its server, do not support the operation."""


class LeaseLostError(BackendError):
    """A hold was revoked or expired while its block was running."""


class BarrierError(MaintenanceError):
    """Not every worker is proved to have followed. `result` is the `BarrierResult`."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class DrainTimeout(BarrierError):
    """Some workers have not applied the state, or not drained, in time."""


class UnfencedError(BarrierError):
    """Some workers vanished from the registry without proof that they are closed."""
