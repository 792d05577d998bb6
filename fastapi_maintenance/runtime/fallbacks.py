"""Fallback backends, used until the first successful read. Files also mirror the state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Final

from .._internal.logging import error_text, log_fields
from ..backends import BaseStateBackend, EnvVarBackend, LocalFileBackend, backend_from_url
from ..exceptions import ConfigurationError
from ..model.snapshot import Snapshot
from ..model.state import MaintenanceState

logger = logging.getLogger("fastapi_maintenance")

_QUERY_TIMEOUT: Final = 1.0  # seconds for each backend


class Fallbacks:
    """The chain of fallback backends.

    The environment variable comes last unless it is in the chain. Raises `ConfigurationError` for a
    chain of anything but backends and URLs.
    """

    def __init__(self, chain: str | BaseStateBackend | Sequence[str | BaseStateBackend]) -> None:
        given: object = chain
        if isinstance(given, str | BaseStateBackend) or not isinstance(given, Iterable):
            given = [given]
        self._chain = [_backend_of(link) for link in given]
        if not any(isinstance(link, EnvVarBackend) for link in self._chain):
            self._chain.append(EnvVarBackend())
        self._mirrored: MaintenanceState | None = None
        self._last_errors: dict[int, str | None] = {}
        self._snapshots: dict[int, Snapshot | None] = {}
        self.snapshot: Snapshot | None = None
        self.source = "default"

    async def query(self) -> None:
        """Read the backends in order until one has a state, and keep it as `snapshot` and `source`.

        A backend that cannot be read now counts with its last snapshot.
        """
        for backend in self._chain:
            snapshot = await self._ask(backend)
            if snapshot is not None:
                self.snapshot, self.source = snapshot, backend.kind
                return
        self.snapshot, self.source = None, "default"

    async def _ask(self, backend: BaseStateBackend) -> Snapshot | None:
        error = None
        try:
            async with asyncio.timeout(_QUERY_TIMEOUT):
                snapshot = await backend.last_known()
        except Exception as failure:  # a failing fallback must not disable the next one
            error = f"cannot be asked: {error_text(failure)}"
        else:
            if snapshot is not None and snapshot.switch is None:
                error = f"cannot be read: {snapshot.error}"
            else:
                self._snapshots[id(backend)] = snapshot
        self._note(backend, error)
        return self._snapshots.get(id(backend))

    async def mirror(self, state: MaintenanceState) -> None:
        """Write a confirmed state into the files, for workers that start in an outage."""
        if state == self._mirrored:
            return
        self._mirrored = state
        for backend in self._chain:
            if isinstance(backend, LocalFileBackend):
                error = None
                try:
                    await backend.write(state)
                except Exception as failure:
                    self._mirrored, error = None, f"is not up to date: {error_text(failure)}"
                self._note(backend, error)

    def _note(self, backend: BaseStateBackend, error: str | None) -> None:
        """Log an error unless it is the last one of this backend."""
        if error is not None and error != self._last_errors.get(id(backend)):
            name = backend.describe()
            extra = log_fields("fallback", backend=name)
            logger.warning("The fallback %s %s", name, error, extra=extra)
        self._last_errors[id(backend)] = error


def _backend_of(link: object) -> BaseStateBackend:
    if isinstance(link, str):
        return backend_from_url(link)
    if not isinstance(link, BaseStateBackend):
        raise ConfigurationError(
            f"fallback must be backends or their URLs, got {link!r}. Give one of them, or a list."
        )
    return link
