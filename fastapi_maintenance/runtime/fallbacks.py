"""Whom a worker asks while it has never known its backend's state, and what it leaves behind for the next one."""

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

__all__ = ["Fallbacks"]

logger = logging.getLogger("fastapi_maintenance")

_PATIENCE: Final = 1.0  # seconds for each; whoever asks has waited for the backend already


class Fallbacks:
    """The chain of backends to ask in order. The environment variable is its last link, unless it is in it already."""

    def __init__(self, chain: str | BaseStateBackend | Sequence[str | BaseStateBackend]) -> None:
        given = [chain] if isinstance(chain, str | BaseStateBackend) else chain
        if not isinstance(given, Iterable):
            raise ConfigurationError(f"fallback takes backends and their URLs, not {given!r}.")
        self._chain = [
            backend_from_url(link) if isinstance(link, str) else _checked(link) for link in given
        ]
        if not any(isinstance(link, EnvVarBackend) for link in self._chain):
            self._chain.append(EnvVarBackend())
        self._mirrored: MaintenanceState | None = None
        self._troubles: dict[int, str] = {}
        self._answers: dict[int, Snapshot | None] = {}
        self.reading: Snapshot | None = None
        self.source = "default"

    async def query(self) -> None:
        """Ask each in turn until one knows; its answer is then `reading` and its kind `source`.

        One that cannot be asked just now, or cannot read what it has, counts with what it said before.
        """
        for backend in self._chain:
            reading = await self._ask(backend)
            if reading is not None:
                self.reading, self.source = reading, backend.kind
                return
        self.reading, self.source = None, "default"

    async def _ask(self, backend: BaseStateBackend) -> Snapshot | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                reading = await backend.last_known()
        except Exception as error:  # the last resort must not fail because of another resort
            self._complain(
                backend, f"The fallback {backend.describe()} cannot be asked: {error_text(error)}"
            )
        else:
            if reading is not None and reading.switch is None:
                self._complain(
                    backend, f"The fallback {backend.describe()} cannot be read: {reading.error}"
                )
            else:
                self._troubles.pop(id(backend), None)
                self._answers[id(backend)] = reading
        return self._answers.get(id(backend))

    async def mirror(self, state: MaintenanceState) -> None:
        """Write a confirmed state into the files of the chain, for a worker that starts while the backend is away."""
        if state == self._mirrored:
            return
        self._mirrored = state
        for backend in self._files():
            try:
                await backend.write(state)
            except Exception as error:
                self._mirrored = None
                self._complain(
                    backend,
                    f"The fallback {backend.describe()} is not up to date: {error_text(error)}",
                )
            else:
                self._troubles.pop(id(backend), None)

    def _files(self) -> Iterable[BaseStateBackend]:
        return (backend for backend in self._chain if isinstance(backend, LocalFileBackend))

    def _complain(self, backend: BaseStateBackend, trouble: str) -> None:
        if self._troubles.get(id(backend)) != trouble:
            self._troubles[id(backend)] = trouble
            logger.warning("%s", trouble, extra=log_fields("fallback", backend=backend.describe()))


def _checked(link: object) -> BaseStateBackend:
    if not isinstance(link, BaseStateBackend):
        raise ConfigurationError(f"fallback takes backends and their URLs, not {link!r}.")
    return link
