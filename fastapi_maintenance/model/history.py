"""Entries of the history, and the attribution that is stored with each change."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import to_jsonable_python

from ..exceptions import InvalidStateError
from .state import MaintenanceState

Kind = Literal[
    "set", "noticed", "expired", "cleared", "taken", "released", "lapsed", "restored", "lost"
]

_MAX_LENGTHS: Final = {"by": 200, "message": 500, "reason": 500}  # characters


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a backend's history.

    `kind` of a switch: `set` through this package, `noticed` if written in another way, `expired`
    with its time to live. `kind` of a hold: `taken`, `released`, or `lapsed` when its lease
    expired. Of both: `cleared`, and after the backend lost its data `restored`, or `lost` if
    nothing was restored.

    `state` is the state that was set, held or released, without lists and with truncated texts. If
    it is unreadable, it is `None` and `error` says why. `host` and `pid` are the process that made
    the change or, if it was made in another way, noticed it.
    """

    id: str
    at: datetime
    kind: Kind
    component: str | None = None
    hold: str | None = None
    state: MaintenanceState | None = None
    by: str | None = None
    host: str | None = None
    pid: int | None = None
    error: str | None = None

    @property
    def reason(self) -> str | None:
        """The reason of the state."""
        return None if self.state is None else self.state.reason

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, always with the same keys."""
        state = self.state and self.state.model_dump(exclude={"allow", "bypass"})
        return cast(dict[str, Any], to_jsonable_python({**asdict(self), "state": state}))


class Attribution(BaseModel):
    """The author, place and resulting state of a change. Validated, as a backend stores it."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore", populate_by_name=True)

    by: str | None = None
    host: str | None = None
    pid: Annotated[int, Field(ge=0)] | None = None
    state: MaintenanceState | None = None
    component: str | None = Field(default=None, validation_alias="scope")  # as it is stored

    @field_validator("state", mode="plain")
    @classmethod
    def _or_none(cls, value: Any) -> MaintenanceState | None:
        try:
            return MaintenanceState.from_document(value)
        except InvalidStateError:  # of a newer version; the other fields are still readable
            return None

    @classmethod
    def parse(cls, text: str | bytes) -> Attribution:
        """Parse what `attribution_json` wrote. Raises `InvalidStateError` for anything else."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            raise InvalidStateError("The attribution cannot be read.") from None


def attribution_json(
    state: MaintenanceState | None = None, *, by: str | None = None, component: str | None = None
) -> str:
    """Return the attribution of a change by this process; `by` if the state has no author."""
    author = by if state is None else state.by or by
    facts: dict[str, Any] = {"by": _cut(author, "by"), "host": socket.gethostname()}
    facts |= {"pid": os.getpid(), "scope": component}
    if state is not None:
        facts["state"] = truncated(state).model_dump(mode="json", exclude_none=True)
    return json.dumps({name: fact for name, fact in facts.items() if fact is not None})


def truncated(state: MaintenanceState) -> MaintenanceState:
    """Return a state as it is recorded: truncated texts, no lists."""
    texts = {name: _cut(getattr(state, name), name) for name in _MAX_LENGTHS}
    return state.model_copy(update={**texts, "allow": None, "bypass": None})


def _cut(text: str | None, name: str) -> str | None:
    longest = _MAX_LENGTHS[name]
    return text if text is None or len(text) <= longest else f"{text[: longest - 1]}…"
