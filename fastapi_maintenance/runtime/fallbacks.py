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
        given = [chain] if isinstance(chain, str | BaseStateBackend) else chain
        if not isinstance(given, Iterable):
            raise _invalid(given)
        self._chain = [
            backend_from_url(link) if isinstance(link, str) else _checked(link) for link in given
        ]
        if not any(isinstance(link, EnvVarBackend) for link in self._chain):
            self._chain.append(EnvVarBackend())
        self._mirrored: MaintenanceState | None = None
        self._last_errors: dict[int, str] = {}
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
        try:
            async with asyncio.timeout(_QUERY_TIMEOUT):
                snapshot = await backend.last_known()
        except Exception as error:  # a failing fallback must not disable the next one
            self._log_once(
                backend, f"The fallback {backend.describe()} cannot be asked: {error_text(error)}"
            )
        else:
            if snapshot is not None and snapshot.switch is None:
                self._log_once(
                    backend, f"The fallback {backend.describe()} cannot be read: {snapshot.error}"
                )
            else:
                self._last_errors.pop(id(backend), None)
                self._snapshots[id(backend)] = snapshot
        return self._snapshots.get(id(backend))

    async def mirror(self, state: MaintenanceState) -> None:
        """Write a confirmed state into the files, for workers that start in an outage."""
        if state == self._mirrored:
            return
        self._mirrored = state
        for backend in self._files():
            try:
                await backend.write(state)
            except Exception as error:
                self._mirrored = None
                self._log_once(
                    backend,
                    f"The fallback {backend.describe()} is not up to date: {error_text(error)}",
                )
            else:
                self._last_errors.pop(id(backend), None)

    def _files(self) -> Iterable[BaseStateBackend]:
        return (backend for backend in self._chain if isinstance(backend, LocalFileBackend))

    def _log_once(self, backend: BaseStateBackend, error: str) -> None:
        if self._last_errors.get(id(backend)) != error:
            self._last_errors[id(backend)] = error
            logger.warning("%s", error, extra=log_fields("fallback", backend=backend.describe()))


def _invalid(given: object) -> ConfigurationError:
    return ConfigurationError(
        f"fallback must be backends or their URLs, got {given!r}. Give one of them, or a list."
    )


def _checked(link: object) -> BaseStateBackend:
    if not isinstance(link, BaseStateBackend):
        raise _invalid(link)
    return link
