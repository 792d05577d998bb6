"""EnvVarBackend: the switch is an environment variable."""

from __future__ import annotations

import logging
import os
import time
from typing import ClassVar, Final, NoReturn

from .._internal.logging import log_fields
from .._internal.validation import require
from ..exceptions import InvalidStateError, ReadOnlyBackendError
from ..model.evaluate import evaluate
from ..model.snapshot import Snapshot
from ..model.state import OFF, MaintenanceState
from .base import BaseStateBackend

DEFAULT_VAR_NAME: Final = "FASTAPI_MAINTENANCE_MODE"

logger = logging.getLogger("fastapi_maintenance")


class EnvVarBackend(BaseStateBackend):
    """Reads the switch from an environment variable, at every request. It is read-only.

    An unset, empty or invalid variable is off. Holds are local to this process.
    """

    kind: ClassVar[str] = "env"

    def __init__(self, var_name: str | None = None) -> None:
        name = DEFAULT_VAR_NAME if var_name is None else var_name
        requirement = f"var_name must be the name of a variable like {DEFAULT_VAR_NAME}"
        require(name and not {"=", "\0"} & {*name}, requirement, name)
        self.var_name = name
        self._parsed: tuple[str | None, MaintenanceState] = (None, OFF)
        self._holds_version = object()
        self._peeked: tuple[str | None, object, Snapshot] = (None, None, Snapshot())

    def describe(self) -> str:
        return f"env:{self.var_name}"

    def read_nowait(self) -> Snapshot:
        try:
            raw: str | None = os.environ[self.var_name]
        except KeyError:  # faster than os.environ.get(), which does this inside
            raw = None
        seen, version, reading = self._peeked
        return reading if seen == raw and version is self._holds_version else self._read(raw)

    async def read(self) -> Snapshot:
        return self.read_nowait()

    async def last_known(self) -> Snapshot | None:
        return self.read_nowait() if self.var_name in os.environ else None

    async def get_value(self) -> bool:
        return evaluate(self.read_nowait(), time.time()).switch.enabled

    async def set_value(self, value: bool) -> None:
        self._refuse()

    async def write(self, state: MaintenanceState, *, expires_in: float | None = None) -> None:
        self._refuse()

    async def clear(self) -> None:
        """End every hold of this process. Raises `ReadOnlyBackendError` if the variable is on."""
        try:
            await super().clear()
        except ReadOnlyBackendError:
            if await self.get_value():
                raise

    async def _announce(self) -> None:
        # A new object, not a counter: two threads may announce at once, and no version may recur.
        self._holds_version = object()
        await super()._announce()

    def _read(self, raw: str | None) -> Snapshot:
        version = self._holds_version  # before the holds are read: a later change must count
        state = self._parse(raw)
        reading = self._local_reading(state)
        if state.starts_at is None and state.ends_at is None:  # otherwise `now` matters
            self._peeked = (raw, version, reading)
        return reading

    def _parse(self, raw: str | None) -> MaintenanceState:
        known, state = self._parsed
        if raw == known:
            return state
        try:
            state = MaintenanceState.parse(raw if raw and raw.strip() else None)
        except InvalidStateError as problem:
            # Not an error of the snapshot, which would keep the last known state.
            logger.warning(
                "The environment variable %s counts as off. %s",
                self.var_name,
                problem,
                extra=log_fields("unreadable", backend=self.describe()),
            )
            state = OFF
        self._parsed = (raw, state)
        return state

    def _refuse(self) -> NoReturn:
        raise ReadOnlyBackendError(
            f"The environment variable {self.var_name} cannot be changed from within: "
            "set it where the process is started, "
            "or keep the switch in Redis or in a file (backend='redis://…' or 'file:…')."
        )
